"""Networks for `torch.hub.load(clone, name, source="local", ...)`: binary and untrained, or packed and published.

torch.hub.load(clone, "binary_resnet20", source="local", num_classes=10)
torch.hub.load(clone, "packed", source="local", name="sample/fashion-mnist-binary")
"""

import sys
from pathlib import Path

dependencies = ["torch", "torchvision", "numpy", "PIL", "yaml", "filelock"]
_CLONE = Path(__file__).resolve().parent
sys.path.insert(0, str(_CLONE / "src"))  # the hub takes it away again, when what is imported here has been


import bnc_repro.images.networks  # noqa: E402
import bnc_repro.networks  # noqa: E402
import bnc_repro.packed  # noqa: E402
import bnc_repro.poses.networks  # noqa: E402
import bnc_repro.run.packed  # noqa: E402

_BINARY = {"weight_binarizer": "mlp", "activation_binarizer": "approx_sign"}


def _entry(network: str):
    def create(**options):
        return bnc_repro.networks.create_network(network, **(_BINARY | options))

    create.__doc__ = f"""{network}, binary by the learnt classifier unless weight_binarizer= and activation_binarizer=
    say otherwise, untrained. Options as `bnc_repro.create_network` takes them, the number of outputs among them."""
    return create


binary_resnet20 = _entry("resnet20")
binary_bireal18 = _entry("bireal18")
binary_bireal34 = _entry("bireal34")
binary_sbpn = _entry("sbpn")
binary_bhrnet = _entry("bhrnet")


def packed(name: str):
    """A published packed network of the clone by its name in results/models, such as "sample/fashion-mnist-binary"."""
    file = _CLONE / "results" / "models" / f"{name}{bnc_repro.run.packed.SUFFIX}"
    if not file.is_file():
        known = sorted(str(path.relative_to(file.parents[1]).with_suffix("")) for path in file.parents[1].glob("*/*s"))
        raise ValueError(f"there is no packed network {name}; known: {', '.join(known)}")
    return bnc_repro.run.packed.load(file)
