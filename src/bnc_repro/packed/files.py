"""A packed network's file: bits, the float rest and a description, as safetensors. Nothing in it can run.

Header: the plan as JSON, the recipe, the labels and the skeleton, a version, and a checksum over all of them and every
tensor, which is compared before anything is used.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..training.checkpoint import atomic
from .description import plan_from
from .network import PackedNetwork
from .packing import Plan, output_shape

FORMAT = "bnc_repro packed network, form 1"
KEY = "bnc_repro"  # of the metadata
CONTENT = {"plan": str, "recipe": dict, "labels": list, "skeleton": (dict, type(None))}  # of the header, with types
LONGEST_HEADER = 100_000_000  # bytes, as in safetensors


@dataclass(frozen=True)
class Loaded:
    """What a file holds: the network, its recipe in plain values ({}: none), the names of its classes or keypoints, and
    for keypoints the skeleton."""

    network: PackedNetwork
    recipe: dict
    labels: list[str]
    skeleton: dict | None


def _checksum(arrays: dict[str, np.ndarray], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def save(
    packed: PackedNetwork,
    path: str | Path,
    recipe: dict | None = None,
    labels: list[str] | None = None,
    skeleton: dict | None = None,
) -> int:
    """Write a packed network with its checkpoint's recipe, labels and skeleton, atomically; the file's size in bytes is
    returned.

    Raises ValueError for a network that was packed layer by layer, whose float part is a model of its own, and for a
    recipe, labels or a skeleton that could not be read back.
    """
    from safetensors.numpy import save as as_bytes

    if packed.plan is None:
        raise ValueError(
            "this network was packed layer by layer, a file holds whole packed networks; keep it by torch.export.save"
        )
    arrays = {"bits": packed.bits.numpy(), "floats": packed.floats.numpy()}
    content = {"plan": packed.description, "recipe": recipe or {}, "labels": list(labels or []), "skeleton": skeleton}
    try:
        text = json.dumps(content)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a packed file takes plain values, and its recipe or skeleton is more: {error}") from error
    if json.loads(text) != content:
        raise ValueError("a packed file takes plain values: names as keys, lists in place of tuples, no NaN")
    _check_form(content)
    _check_labels(content["labels"], plan_from(arrays["bits"], arrays["floats"], packed.description))
    header = {"format": FORMAT, "checksum": _checksum(arrays, text), "content": text}
    with atomic(Path(path)) as temporary:  # one entry: safetensors writes several in any order
        temporary.write_bytes(as_bytes(arrays, metadata={KEY: json.dumps(header)}))  # its save_file: for the owner only
    return Path(path).stat().st_size


def is_file(path: Path) -> bool:
    """Whether a file is there; no for a name that the system does not take."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_packed(path: str | Path) -> bool:
    """Whether a file says in its header that it is a packed network, of this form or another. Reads no more of it."""
    if not is_file(Path(path)):  # of a pipe one would wait for the first word
        return False
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length < LONGEST_HEADER else b""
        told = json.loads(json.loads(header)["__metadata__"][KEY])
        return str(told["format"]).startswith(FORMAT.rpartition(" ")[0])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def load(path: str | Path, kernel: str | None = None) -> Loaded:
    """What a packed file holds; `kernel` as `pack` takes it.

    Raises ValueError for a file that is not there, cut short, changed, of another form, or of something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not is_file(path):
        raise ValueError(f"there is no file {path}; name a packed network, as `python -m bnc_repro pack` writes it")
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is cut short or no packed network ({error}); pack its checkpoint again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        form = header.get("format", "something else") if isinstance(header, dict) else "something else"
        raise ValueError(f"{path} holds {form}, this version reads {FORMAT}; pack its checkpoint again")
    text = str(header.get("content"))
    if header.get("checksum") != _checksum(arrays, text):
        raise ValueError(f"{path} was changed after it was written (its checksum differs); pack its checkpoint again")
    try:
        content = json.loads(text)
        if arrays.keys() != {"bits", "floats"}:
            raise ValueError(f"its arrays are {', '.join(sorted(arrays))}, not bits and floats")
        _check_form(content)
        plan = plan_from(_array(arrays, "bits", "uint8"), _array(arrays, "floats", "float32"), content["plan"])
        _check_labels(content["labels"], plan)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}; pack its checkpoint again") from error
    return Loaded(PackedNetwork(plan, kernel), content["recipe"], content["labels"], content["skeleton"])


def _check_form(content: object) -> None:
    if not isinstance(content, dict) or content.keys() != CONTENT.keys():
        raise ValueError(f"its content is not {', '.join(CONTENT)}")
    for key, kinds in CONTENT.items():
        if not isinstance(content[key], kinds):
            raise ValueError(f"its {key} is of another form")


def _check_labels(labels: list, plan: Plan) -> None:
    """Raise ValueError for labels that are not a name for each output of `plan`, if there are any."""
    outputs = output_shape(plan)[0]
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise ValueError("its labels are not names, each another")
    if labels and len(labels) != outputs:
        raise ValueError(f"it has {len(labels)} labels and {outputs} outputs")


def _array(arrays: dict[str, np.ndarray], name: str, dtype: str) -> np.ndarray:
    array = arrays[name]
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"its {name} are not there, or of another form")
    if not np.isfinite(array).all():
        raise ValueError(f"its {name} are not finite: its run diverged")
    return array
