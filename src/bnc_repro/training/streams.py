"""Independent random streams of a run, one for each name."""

import hashlib


def stream(seed: int, name: str) -> int:
    """The seed of the random stream `name` of a run: independent streams for network, order, classifier."""
    return int.from_bytes(hashlib.sha256(f"{name}/{seed}".encode()).digest()[:6], "big")
