"""Binary operands: layers that binarize before they multiply, and what networks are built from them."""

from .binary import BinaryConv2d, BinaryLinear
from .inspect import evaluating, watch

__all__ = ["BinaryConv2d", "BinaryLinear", "evaluating", "watch"]
