"""How many images a second does training take in, and what would the paper's whole run cost at that rate?

Whole training steps fed by the project's own loader: the float twin, our binary network, the same with the released
recipe's teacher, and a plain reimplementation of the released step, which evaluates its classifier weight by weight.
Contestants take turns; a turn is a few steps with a loader of its own, after one that is not timed: what others leave
in a queue is nobody's. Waiting is the time in which a step stands still for its images.

    python benchmarks/throughput.py                                     # ResNet-20 on the embedded images
    python benchmarks/throughput.py --network bireal18 --data FOLDER    # 224 px pictures, FOLDER as ImageNet's
    python benchmarks/throughput.py --network sbpn [--data FOLDER]      # 256x192 crops of people, FOLDER as COCO's
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from table import table_path
from torch import Tensor, nn
from torch.nn import functional as F

from bnc_repro.binarizers.base import Binarizer
from bnc_repro.binarizers.sign import sign
from bnc_repro.images.networks import CLASSIFIERS
from bnc_repro.images.pictures import normalise
from bnc_repro.images.sets import load
from bnc_repro.images.task import soft_cross_entropy
from bnc_repro.poses import heatmaps, task
from bnc_repro.poses.crops import CropBatches
from bnc_repro.poses.heatmaps import heatmap_loss
from bnc_repro.poses.networks import POSENETS
from bnc_repro.recipe.clone import project_root
from bnc_repro.recipe.schema import Data
from bnc_repro.run.device import device_name, peak_memory_mib
from bnc_repro.training.loader import loader

CONTESTANTS = ("float", "binary", "binary, teacher", "released, teacher")
WHOLE = {  # kind of data: items of an epoch, epochs, what that is
    "imagefolder": (1_281_167, 120, "the ImageNet run of the profile paper, ILSVRC 2012's images"),
    "coco": (149_813, 210, "the pose run of the profile paper, the people of COCO train2017"),
}
SETTINGS = {  # network: its data's kind, image size, augmentation
    "resnet20": ("fashion_mnist", (28, 28), "none"),
    "bireal18": ("imagefolder", (224, 224), "crop"),
    "bireal34": ("imagefolder", (224, 224), "crop"),
    "sbpn": ("coco", (256, 192), "pose"),
}
BATCHES = {"fashion_mnist": (64, 64), "imagefolder": (8, 256), "coco": (8, 128)}  # on a CPU, on a GPU


class Released(Binarizer):
    """The released classifier as it is used there: every weight passes 1 -> 100 -> 2, and all is kept for backward."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(1, 100, bias=False), nn.Tanh(), nn.Linear(100, 2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.network(x.reshape(-1, 1)).clamp(-1, 1)  # the gate
        soft = outputs.sum(1).view_as(x)
        return sign(x) + soft - soft.detach()


def contestant(name: str, network: str, data, device: torch.device):
    """One training step as a function of a batch."""
    torch.manual_seed(0)
    weights = {"float": None, "binary": "mlp", "released": Released()}[name.partition(",")[0]]
    binary = {"weight_binarizer": weights, "activation_binarizer": weights and "approx_sign"}
    kind, size, _ = SETTINGS[network]
    if kind == "coco":
        model = POSENETS[network](num_keypoints=len(data.skeleton.names), **binary)
    else:
        model = CLASSIFIERS[network](num_classes=data.num_classes, channels=data.channels, **binary)
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=device.type == "cuda")
    teacher = None
    if name.endswith("teacher"):
        from torchvision.models import resnet34

        teacher = resnet34(num_classes=data.num_classes).to(device, memory_format=torch.channels_last).eval()

    def pose_loss(batch: dict) -> Tensor:
        maps = tuple(side // 4 for side in size)
        targets = heatmaps.encode(batch["joints"], batch["visible"], size, maps, 2.0)
        return heatmap_loss(model(normalise(batch["image"], kind)), *targets)

    def image_loss(batch: dict) -> Tensor:
        x = normalise(batch["image"], kind, batch.get("light"))
        logits = model(x)
        loss = F.cross_entropy(logits, batch["label"])
        if teacher is not None:
            with torch.no_grad():
                wanted = teacher(x)
            loss = 0.1 * loss + 0.9 * soft_cross_entropy(logits, wanted)
        return loss

    def step(batch: dict) -> None:
        with torch.autocast(device.type, torch.bfloat16, device.type == "cuda"):
            loss = (pose_loss if kind == "coco" else image_loss)(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def fed(dataset, batches: int, batch_size: int, workers: int, device: torch.device):
    """So many shuffled batches from one loader, as in a long epoch: a small set is gone through again and again."""
    dataset.set_epoch(0, 0)
    draw, wanted = torch.Generator().manual_seed(0), batches * batch_size
    passes = range(-(-wanted // len(dataset)))
    order = torch.cat([torch.randperm(len(dataset), generator=draw) for _ in passes])[:wanted]
    return loader(dataset, order.tolist(), batch_size, workers, device)


def measure(names: list[str], options: argparse.Namespace, device: torch.device) -> dict[str, list]:
    """(seconds a step, seconds of it waited) of each turn, by contestant."""
    data = training_set(options, device)
    steps = {name: contestant(name, options.network, data, device) for name in names}
    found = {name: [] for name in names}
    for turn in range(options.turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            count = 1 if name.startswith("released") else options.steps  # it waits for nothing, and takes long
            batches = fed(data, 1 + count, options.batch_size, options.workers, device)
            steps[name](next(batches))
            if device.type == "cuda":
                torch.cuda.synchronize()
            waited, started = 0.0, time.perf_counter()
            for _ in range(count):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                steps[name](batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            found[name].append(((time.perf_counter() - started) / count, waited / count))
    return found


def training_set(options: argparse.Namespace, device: torch.device):
    """The training images."""
    kind, size, augment = SETTINGS[options.network]
    if kind == "imagefolder" and options.data is None:
        raise SystemExit(f"{options.network} is fed with pictures: name a folder as ImageNet's with --data")
    root = options.data or project_root() / "data" / ("people" if kind == "coco" else "fashion-mnist")
    if kind == "coco":
        return CropBatches(root, task.TRAIN, size, augment=True)
    lighting = 0.1 if augment == "crop" else 0.0
    data = Data(root=str(root), kind=kind, image_size=size, augment=augment, lighting=lighting)
    made = load(data, train=True)
    made.to(device)
    return made


def memory(name: str, options: argparse.Namespace, device: torch.device) -> float:
    """Peak memory in MiB of two steps, of this process on a CPU, of torch's allocator on a GPU."""
    data = training_set(options, device)
    step = contestant(name, options.network, data, device)
    batches = fed(data, 2, options.batch_size, 0, device)
    step(next(batches))
    step(next(batches))
    return peak_memory_mib(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=SETTINGS, default="resnet20")
    parser.add_argument("--data", type=Path, help="a folder with train/<class>/ and val/<class>/")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, help="a turn")
    parser.add_argument("--names", nargs="+", choices=CONTESTANTS)
    parser.add_argument("--memory", metavar="NAME", help="print the peak memory of one contestant in MiB")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = SETTINGS[options.network][0]
    pictures = kind == "imagefolder"
    options.batch_size = options.batch_size or BATCHES[kind][device.type == "cuda"]
    options.workers = (0 if kind == "fashion_mnist" else 1) if options.workers is None else options.workers
    options.steps = options.steps or (10 if kind == "fashion_mnist" else 5)
    names = options.names or list(CONTESTANTS if pictures else CONTESTANTS[:2])
    if options.memory:
        print(memory(options.memory, options, device))
        return
    peaks = {}
    for name in names:
        words = [sys.executable, __file__, *sys.argv[1:], "--memory", name]
        peaks[name] = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    found = measure(names, options, device)
    name_of_device = device_name(device)
    each, epochs, said = WHOLE.get(kind, (0, 0, ""))
    lines = [
        f"# Training throughput of {options.network}, batch {options.batch_size}",
        "",
        f"{name_of_device}, torch {torch.__version__}: median of {options.turns} turns of {options.steps} steps "
        "(lowest, "
        f"highest), {options.workers} loading processes. "
        + (
            f"The last two columns are {said} ({each:,} x {epochs} epochs) at this rate on this device." if each else ""
        ),
        "",
        "| network | images/s | waiting for data | peak memory, MiB |" + (" days | device-hours |" if each else ""),
        "| --- | --- | --- | --- |" + (" --- | --- |" if each else ""),
    ]
    for name in names:
        rates = [options.batch_size / seconds for seconds, _ in found[name]]
        rate = statistics.median(rates)
        waiting = sum(waited for _, waited in found[name]) / sum(seconds for seconds, _ in found[name])
        hours = each * epochs / rate / 3600
        line = f"| {name} | {rate:.1f} ({min(rates):.1f}, {max(rates):.1f}) | {100 * waiting:.1f} % "
        line += f"| {peaks[name]:.0f} |"
        lines.append(line + (f" {hours / 24:,.1f} | {hours:,.0f} |" if each else ""))
    print("\n".join(lines))
    target = table_path(__file__, name_of_device, options.network)
    target.write_text("\n".join(lines) + "\n")
    print(target)


if __name__ == "__main__":
    main()
