"""Any network of this project by its name."""

from torch import nn

from .images.networks import CLASSIFIERS
from .names import known
from .poses.networks import POSENETS


def create_network(name: str, **options) -> nn.Module:
    """A network by its name in `python -m bnc_repro list networks`, untrained.

    Classifiers take num_classes=, pose networks num_keypoints=; all take weight_binarizer=, activation_binarizer=
    (names, instances or None for float), preset=, standardize=, channels=, and blocks=, width=, stem= for another size;
    those with a Bi-Real trunk take block="reactnet", for learnt shifts before each sign and around each PReLU.
    Raises ValueError for an unknown name, the nearest known one first, and where the number of outputs is missing.
    """
    networks = {**CLASSIFIERS, **POSENETS}
    known("network", name, networks)
    outputs = "num_classes" if name in CLASSIFIERS else "num_keypoints"
    if outputs not in options:
        raise ValueError(f"{name} needs {outputs}=, the number of its outputs")
    return networks[name](**options)
