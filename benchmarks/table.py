"""Where a benchmark's table lies: beside its script, named after the device it was measured on."""

import re
from pathlib import Path


def table_path(script: str, device: str, network: str = "") -> Path:
    """SCRIPT.[network.]device.md, the device in small letters, digits and dashes."""
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return Path(script).with_suffix(f".{network}.{slug}.md" if network else f".{slug}.md")
