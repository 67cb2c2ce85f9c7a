"""From a recipe to its row: `run` trains, or returns the row of the same run if it is finished.

What is offered here is imported when it is asked for, so that `pinned` can be used before torch is imported.
"""

from importlib import import_module
from typing import Any

_OFFERED = {
    "evaluate": "judge",
    "folder_of": "identity",
    "load_network": "judge",
    "predict": "judge",
    "run": "execute",
    "run_arms": "execute",
}
__all__ = ["evaluate", "folder_of", "load_network", "predict", "run", "run_arms"]


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_OFFERED[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
