"""What does packing buy? One image through the packed network, its float twin, and what else runs it here.

Contestants take turns, a ratio is taken within a round: processor time, one thread, medians with quartiles.

    python benchmarks/packed.py                            # every network
    python benchmarks/packed.py --network bireal18 [--rounds 25] [--batch 8] [--kernel popcount]

The networks are as initialised: time does not depend on the weights. torchvision's ResNet-18 is converted by `binarize`
and keeps its float rest in torch (the tier of single layers); its twin is torchvision's own. A network's table goes to
benchmarks/packed.<network>.<device>.md. Whoever is not installed is named: onnxruntime is in the extra `export`,
OpenVINO in none (`pip install openvino`).
"""

import argparse
import copy

import torch
from table import table_path
from torch import nn

from bnc_repro import binarize, create_network, pack
from bnc_repro.packed.benchmark import RIVALS, compare, one_thread
from bnc_repro.run.device import device_name

BINARY = {"weight_binarizer": "ste", "activation_binarizer": "approx_sign"}
SETTINGS = {  # network: (H, W), outputs
    "bireal18": ((224, 224), {"num_classes": 1000}),
    "bireal34": ((224, 224), {"num_classes": 1000}),
    "resnet20": ((32, 32), {"num_classes": 10}),
    "sbpn": ((256, 192), {"num_keypoints": 17}),
    "torchvision-resnet18": ((224, 224), {"num_classes": 1000}),
}


def networks(name: str) -> tuple[nn.Module, nn.Module]:
    """The binary network, and the one whose float twin is the measure."""
    size, outputs = SETTINGS[name]
    torch.manual_seed(0)
    if name.startswith("torchvision"):
        from torchvision.models import resnet18

        network = resnet18(**outputs).eval()
        original = copy.deepcopy(network)
        binarize(network, **BINARY, input_size=(3, *size))
        return network.eval(), original
    network = create_network(name, **outputs, **BINARY).eval()
    return network, network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=SETTINGS, nargs="+", default=list(SETTINGS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--kernel", help="popcount or tables; the packed network's own choice if left out")
    parser.add_argument("--names", nargs="+", choices=RIVALS, default=[])
    options = parser.parse_args()
    with one_thread():
        device = device_name(torch.device("cpu"))
    for name in options.network:
        network, original = networks(name)
        size = SETTINGS[name][0]
        packed = pack(network, size, kernel=options.kernel)
        comparison = compare(
            packed, original, size, batch=options.batch, rounds=options.rounds, names=tuple(options.names)
        )
        lines = [
            f"# Packed inference of {name}, {size[0]}×{size[1]}, batch {options.batch}",
            "",
            f"{device}, torch {torch.__version__}: processor time of one thread, {options.rounds} interleaved rounds.",
            "",
            comparison.table(),
            "",
            "```",
            str(packed.report),
            "```",
        ]
        print("\n".join(lines))
        target = table_path(__file__, device, "-".join(filter(None, (name, options.kernel))))
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
