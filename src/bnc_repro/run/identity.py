"""What makes two runs the same run: fingerprints of recipe, data and source, and the folder that they name."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from ..binarizers.registry import own_file
from ..images import manifest
from ..recipe.build import recipe_identity
from ..recipe.clone import project_root
from ..recipe.schema import Recipe, missing_data
from .code import DIGITS, source_of


def fingerprints(recipe: Recipe, data: str | None = None) -> dict[str, str]:
    """What a run is made of, each by itself: `recipe` (with the files that it names), `data` (looked at now, unless its
    fingerprint is given) and `source`.

    Raises ValueError when the data folder, or a file that the recipe names, does not exist.
    """
    root = recipe.data.folder
    if not recipe.data.root or not root.is_dir():
        raise ValueError(missing_data(recipe))
    identity = recipe_identity(recipe)
    for key in ("init_from", "teacher"):
        if Path(identity[key]).suffix or Path(identity[key]).is_file():
            identity[key] = file_fingerprint(identity[key])
    for key in ("weight_binarizer", "activation_binarizer"):
        file = own_file(identity[key])
        if file:
            identity[key] = file_fingerprint(file) + identity[key].rpartition(":")[2]
    if recipe.pose.detections:
        identity["pose"]["detections"] = file_fingerprint(recipe.pose.detections)
    return {
        "recipe": recipe_fingerprint(identity),
        "data": data or data_fingerprint(root),
        "source": source_of(recipe.experiment),
    }


def folder_of(recipe: Recipe, runs: Path | None = None, data: str | None = None) -> Path:
    """runs/<profile>/<experiment>/<fingerprint>. Raises ValueError as `fingerprints` does."""
    fingerprint = run_fingerprint(fingerprints(recipe, data))
    return (runs or project_root() / "runs") / recipe.profile / recipe.experiment / fingerprint


def recipe_fingerprint(identity: dict) -> str:
    """sha256 of what makes two recipes the same, `recipe.build.recipe_identity`."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:DIGITS]


def file_fingerprint(path: str | Path) -> str:
    """sha256 of one file's content. Raises ValueError if it is not there."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}; correct the path")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def data_fingerprint(root: str | Path) -> str:
    """sha256 over the relative paths and contents below `root` (paths and sizes where it exceeds 1 GiB); where there is
    a manifest, over it, over what is not as it says any more, and over the sizes of what it does not list."""
    files = sorted(manifest.files_below(Path(root)))
    if (Path(root) / manifest.NAME).is_file():
        digest, listed = file_fingerprint(Path(root) / manifest.NAME), manifest.read(Path(root)) or {}
        names = {path: path.relative_to(root).as_posix() for path in files}
        different = manifest.changed(Path(root)) | {
            name: str(path.stat().st_size)
            for path, name in names.items()
            if name not in listed and name != manifest.NAME
        }
        return hashlib.sha256(f"{digest}{sorted(different.items())}".encode()).hexdigest() if different else digest
    stamps = tuple((str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _data_fingerprint(str(root), stamps)


@lru_cache
def _data_fingerprint(root: str, stamps: tuple) -> str:
    small = sum(size for _, size, _ in stamps) < 2**30
    digest = hashlib.sha256()
    for name, size, _ in stamps:
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))  # names as the disk has them
        if small:
            digest.update((Path(root) / name).read_bytes())
    return digest.hexdigest()


def run_fingerprint(parts: dict[str, str]) -> str:
    """The twelve characters that name a run's folder, from the fingerprints of recipe, data and source."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
