"""Binarizing by Classification (arXiv 2205.07433), reproduced: a classifier decides between +1 and -1."""

__version__ = "0.1.0"
