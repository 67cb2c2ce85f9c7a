"""A plan as two arrays and a description in plain values, and back: what a file holds, and what torch passes around."""

import json
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
    try:
        description = json.loads(text)
        steps = []
        for written in description["steps"]:
            values = dict(written)
            kind = KINDS[values.pop("kind")]
            for key, value in values.items():
                if isinstance(value, dict):
                    values[key] = _array(bits, floats, value)
            steps.append(kind(**values))
        height, width = description["size"]
        plan = Plan(description["channels"], (height, width), steps, [tuple(line) for line in description["layers"]])
        check_plan(plan)
        if list(output_shape(plan)) != description["output"]:
            raise ValueError("its steps give another output")
        return plan
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"the description does not fit the arrays ({error})") from error


def _array(bits: np.ndarray, floats: np.ndarray, value: dict[str, Any]) -> np.ndarray:
    shape, at = value.get("bits") or value["floats"], value["at"]
    count = int(np.prod(shape))
    if "floats" in value:
        return floats[at : at + count].reshape(shape)
    return np.unpackbits(bits[at : at + -(-count // 8)], count=count, bitorder="little").astype(bool).reshape(shape)
