"""Notebooks as stages, and what publishing writes."""
