"""Binarizing by Classification (arXiv 2205.07433), reproduced: a classifier decides between +1 and -1.

What a user types is offered here and imported when it is asked for: `binarize`, `BinaryConv2d`, `BinaryLinear`,
`get_binarizer`, `create_network`, `pack`, `load`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"
_OFFERED = {
    "BinaryConv2d": ("layers.binary", "BinaryConv2d"),
    "BinaryLinear": ("layers.binary", "BinaryLinear"),
    "binarize": ("convert", "binarize"),
    "create_network": ("networks", "create_network"),
    "get_binarizer": ("binarizers.registry", "get"),
    "load": ("run.packed", "load"),
    "pack": ("packed", "pack"),
}
__all__ = ["BinaryConv2d", "BinaryLinear", "__version__", "binarize", "create_network", "get_binarizer", "load", "pack"]


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _OFFERED[name]
    return getattr(import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return __all__
