"""Checkpoints of the released code of 2205.07433 (its ImageNet script's `save_checkpoint`) under this project's names.

There a file is {"state_dict", ...} of a network within DataParallel: a block's convolution is `binary_conv`, its
weights `weights`, the classifier `meta_net`. The shapes are the same, so names are all that changes.
"""

import re

NAMES = (  # pattern of the released name, ours; in this order
    (r"^module\.", ""),
    (r"^conv1\.", "trunk.stem.0."),
    (r"^bn1\.", "trunk.stem.1."),
    (r"^nonlinear\.", "trunk.stem.2."),
    (r"\.binary_conv\.weights$", ".conv.weight"),
    (r"\.bn1\.", ".norm."),
    (r"\.nonlinear\.", ".activation."),
    (r"\.downsample\.", ".shortcut."),
    (r"^meta_net\.network\.Linear(\d+)\.", r"weight_binarizer.layers.\1."),
)


def translated(state: object) -> dict | None:
    """{"network": ...} from what the released code saved; None for anything else."""
    saved = state.get("state_dict") if isinstance(state, dict) else None
    if not isinstance(saved, dict) or not any("binary_conv" in name for name in saved):
        return None
    return {"network": {_ours(name): values for name, values in saved.items()}}


def _ours(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"^layer(\d+)\.", lambda match: f"trunk.stages.{int(match[1]) - 1}.", name)
