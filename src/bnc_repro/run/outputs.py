"""What a command writes for its user takes no other file's place."""

import json
from importlib.util import find_spec
from os.path import realpath  # unlike Path.resolve it takes links in a circle
from pathlib import Path
from typing import Any

from PIL import Image

from ..packed import files

PNG_MARK = {"Software": "bnc_repro"}  # of every drawing
RESULT_KEYS = {"image_id", "category_id", "keypoints", "score"}
ONNX_MARK = "bnc_repro"  # the producer of every network written as ONNX


def check(file: Path, suffix: str, *inputs: Path | None) -> None:
    """Whether `file` may be written: its name ends in `suffix`, which says what it will hold (.json results, .png a
    drawing, .safetensors a packed network, .onnx a network), its folder is there, it is none of `inputs`, and where it
    exists it is a file of that kind made here. Raises ValueError otherwise; called before anything is computed."""
    made_here = {".json": _is_results, ".png": _is_drawing, ".safetensors": files.is_packed, ".onnx": _is_exported}[
        suffix
    ]
    if file.suffix != suffix:
        raise ValueError(f"{file} must end in {suffix}, which says what will be in it")
    try:
        file.stat()
    except FileNotFoundError:
        pass  # it is new, or a link to what is not there yet
    except (OSError, ValueError) as error:  # links in a circle, a name that is too long
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{file} cannot be written ({why}): name another file") from error
    if not file.resolve().parent.is_dir():
        raise ValueError(f"{file} is to lie in a folder that is not there: make {file.resolve().parent}")
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name a file")
    if any(path is not None and realpath(file) == realpath(path) for path in inputs):
        raise ValueError(f"{file} is what is read: name another file to write")
    if file.exists() and not (file.is_file() and made_here(file)):
        raise ValueError(f"{file} is there and was not made by this command: name another file, or remove it")


def save_drawing(figure: Any, file: Path) -> None:
    """A matplotlib figure as a PNG that `check` knows again."""
    figure.savefig(file, dpi=120, metadata=PNG_MARK)


def _is_results(file: Path) -> bool:
    """Whether a file holds results as `coco_eval.to_results` makes them, with these keys alone, or none."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, list) and all(isinstance(entry, dict) and entry.keys() == RESULT_KEYS for entry in value)


def _is_exported(file: Path) -> bool:
    if find_spec("onnx") is None:
        return False
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(file, load_external_data=False).producer_name == ONNX_MARK
    except (OSError, DecodeError):
        return False


def _is_drawing(file: Path) -> bool:
    try:
        with Image.open(file) as picture:
            return picture.info.get("Software") == PNG_MARK["Software"]
    except (OSError, SyntaxError, ValueError):
        return False
