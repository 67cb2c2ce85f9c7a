"""Where the clone is."""

from pathlib import Path


def project_root() -> Path:
    """The clone: the nearest folder upwards that holds params.yaml and pipelines/."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "pipelines").is_dir():
            return folder
    raise ValueError(f"{here} is not inside a clone of bnc_repro (no params.yaml upwards); cd into the clone")


def from_the_clone(path: Path) -> Path:
    """`path` as seen from the clone's root; unchanged where it lies elsewhere."""
    root = project_root()
    return path.relative_to(root) if path.is_relative_to(root) else path
