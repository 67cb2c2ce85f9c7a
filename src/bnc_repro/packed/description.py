"""A plan as two arrays and a description in plain values, and back: what a file holds, and what torch passes around."""

import dataclasses
import json
import math
import operator
import typing
from typing import Any

import numpy as np

from .packing import BinaryBlock, Convolution, Linear, Plan, check_plan, output_shape

KINDS = {kind.__name__: kind for kind in (Convolution, BinaryBlock, Linear)}


def described(plan: Plan) -> tuple[np.ndarray, np.ndarray, str]:
    """A plan's bits (uint8, eight to a byte), its floats (float32), and the rest as JSON: steps, shapes, places."""
    bits: list[np.ndarray] = []
    floats: list[np.ndarray] = []
    steps = []
    for step in plan.steps:
        values: dict[str, Any] = {"kind": type(step).__name__}
        for key, value in vars(step).items():
            if not isinstance(value, np.ndarray):
                values[key] = value
                continue
            kept, name = (bits, "bits") if value.dtype == bool else (floats, "floats")
            values[key] = {name: list(value.shape), "at": sum(map(len, kept))}
            kept.append(np.packbits(value.ravel(), bitorder="little") if name == "bits" else value.ravel())
        steps.append(values)
    text = json.dumps(
        {
            "channels": plan.channels,
            "size": list(plan.size),
            "output": list(output_shape(plan)),
            "steps": steps,
            "layers": [list(line) for line in plan.layers],
        }
    )
    return np.concatenate(bits), np.concatenate(floats).astype(np.float32), text


def plan_from(bits: np.ndarray, floats: np.ndarray, text: str) -> Plan:
    """The plan of `described`. Raises ValueError for a description that does not fit its arrays."""
    if (bits.dtype, floats.dtype) != (np.uint8, np.float32):
        raise ValueError(f"a plan's bits and floats are uint8 and float32, got {bits.dtype} and {floats.dtype}")
    try:
        description = json.loads(text)
        steps, arrays = [], _Arrays(bits, floats)
        for written in description["steps"]:
            kind = KINDS[written["kind"]]
            values: dict[str, Any] = {key: value for key, value in written.items() if key != "kind"}
            values |= {key: arrays.next(value) for key, value in values.items() if isinstance(value, dict)}
            steps.append(kind(**values))
            _check_types(steps[-1])
        arrays.check_end()
        height, width = description["size"]
        for line in description["layers"]:
            if type(line) is not list or [type(word) for word in line] != [str, str, str]:
                raise ValueError("a layer's line is not its name, packed or float, and why")
        layers = [tuple(line) for line in description["layers"]]
        plan = Plan(description["channels"], (height, width), steps, layers)
        check_plan(plan)
        if json.dumps(output_shape(plan)) != json.dumps(description["output"]):
            raise ValueError("its steps give another output")
        return plan
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"the description does not fit the arrays ({error})") from error


def _check_types(step: object) -> None:
    """Raise ValueError for a step whose numbers and arrays are not of the types that its class says."""
    for field in dataclasses.fields(step):  # pyright: ignore[reportArgumentType]
        value = getattr(step, field.name)
        kinds = typing.get_args(field.type) or (field.type,)
        of_kind = type(value) in kinds and (type(value) is not np.ndarray or _dtype(field.name) == value.dtype)
        if not of_kind:
            raise ValueError(f"a step's {field.name} is of another type")


def _dtype(field: str) -> type:
    return np.bool_ if field == "negative" else np.float32


class _Arrays:
    """The arrays of a plan, read one after another: each begins where the one before it ends."""

    def __init__(self, bits: np.ndarray, floats: np.ndarray) -> None:
        self._whole = {"bits": bits, "floats": floats}
        self._read = {"bits": 0, "floats": 0}

    def next(self, written: dict[str, Any]) -> np.ndarray:
        """The array of a shape under `bits` or `floats`, at the place `at`. Raises ValueError for one that is not next,
        or longer than what is left."""
        (name,) = written.keys() & self._whole.keys()
        shape = tuple(map(operator.index, written[name]))
        count, at = math.prod(shape), self._read[name]
        end = at + (-(-count // 8) if name == "bits" else count)
        if written.keys() != {name, "at"} or written["at"] != at or min(shape, default=1) < 1:
            raise ValueError(f"an array of {name} is not where the one before it ends")
        if end > len(self._whole[name]):
            raise ValueError(f"{name} end before an array of {' x '.join(map(str, shape))}")
        values, self._read[name] = self._whole[name][at:end], end
        if name == "bits":
            values = np.unpackbits(values, count=count, bitorder="little").astype(bool)
        return values.reshape(shape)

    def check_end(self) -> None:
        """Raise ValueError where something is left."""
        for name, whole in self._whole.items():
            if self._read[name] != len(whole):
                raise ValueError(f"{len(whole) - self._read[name]} of {name} belong to no step")
