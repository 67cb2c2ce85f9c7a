"""Where the clone is."""

from pathlib import Path


def project_root() -> Path:
    """The clone: the nearest folder upwards that holds params.yaml and pipelines/."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "pipelines").is_dir():
            return folder
    raise ValueError(f"{here} is not inside a clone of bnc_repro (no params.yaml upwards); cd into the clone")
