"""The paper: sign, the soft functions that stand in for its derivative, and the classifier that learns its own.

A binarizer maps x (any shape) to -1 and +1 (+1 at ties) and never scales: centring, standardisation and the
scale belong to the layer. `get("mlp")` and `BINARIZERS` are the way in; `None` means "stay float".
"""

from .base import Binarizer, set_progress
from .classifier import Classifier
from .registry import BINARIZERS, LEARNT, PRESETS, get
from .sign import sign
from .surrogates import SURROGATES

__all__ = ["BINARIZERS", "LEARNT", "PRESETS", "SURROGATES", "Binarizer", "Classifier", "get", "set_progress", "sign"]
