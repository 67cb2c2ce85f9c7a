"""1-bit inference on a CPU: a trained binary network packed into bits, its files, and what it is measured against."""

from .network import PackedNetwork, Report, pack

__all__ = ["PackedNetwork", "Report", "pack"]
