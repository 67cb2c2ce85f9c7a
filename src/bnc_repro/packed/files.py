"""A packed network's file: bits, the float rest and a description, as safetensors. Nothing in it can run.

Header: the plan as JSON, the recipe and the labels, a version, and a checksum over all of them and every tensor, which is
compared before anything is used.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from ..training.checkpoint import atomic
from .description import plan_from
from .network import PackedNetwork

FORMAT = "bnc_repro packed network, form 1"

def _checksum(arrays: dict[str, np.ndarray], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def save(packed: PackedNetwork, path: str | Path, recipe: dict | None = None, labels: list[str] | None = None) -> int:
    """Write a packed network with the recipe and the labels of its checkpoint, atomically; its size in bytes is returned.

    Raises ValueError for a network that was packed layer by layer: its float part is a model of its own.
    """
    from safetensors.numpy import save_file

    if packed.plan is None:
        raise ValueError(
            "this network was packed layer by layer, and a file holds whole packed networks; keep it by torch.export.save"
        )
    arrays = {"bits": packed.bits.numpy(), "floats": packed.floats.numpy()}
    text = json.dumps({"plan": packed.description, "recipe": recipe or {}, "labels": labels or []})
    metadata = {"format": FORMAT, "content": text, "checksum": _checksum(arrays, text)}
    with atomic(Path(path)) as temporary:
        save_file(arrays, temporary, metadata=metadata)
    return Path(path).stat().st_size


def is_packed(path: str | Path) -> bool:
    """Whether a file begins as a safetensors file: eight bytes of length, then a JSON header."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def load(path: str | Path, kernel: str | None = None) -> tuple[PackedNetwork, dict, list[str]]:
    """The network in a packed file, its recipe and its labels; `kernel` as `pack` takes it. Raises ValueError for a file that is not there, cut short,
    changed, of another form, or of something else."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}; name a packed network, as `python -m bnc_repro pack` writes it")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is cut short or no packed network ({error}); pack its checkpoint again") from error
    if metadata.get("format") != FORMAT:
        form = metadata.get("format", "something else")
        raise ValueError(f"{path} holds {form}, this version reads {FORMAT}; pack its checkpoint again")
    text = metadata.get("content", "")
    if metadata.get("checksum") != _checksum(arrays, text):
        raise ValueError(f"{path} was changed after it was written (its checksum differs); pack its checkpoint again")
    content = json.loads(text)
    try:
        plan = plan_from(arrays["bits"], arrays["floats"], content["plan"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; pack its checkpoint again") from error
    return PackedNetwork(plan, kernel), content["recipe"], content["labels"]
