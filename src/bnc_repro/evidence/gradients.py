"""How wrong is an estimator's gradient? Compared with something that exists: the flip difference.

A binary weight b has no derivative, but the loss has two values. The flip difference of weight i is
(L(b_i = +1) - L(b_i = -1)) / 2, everything else held. Backpropagation gives g_i = dL/db_i, the slope of the loss as if
b_i were real; an estimator passes g_i d(x_i) on to the latent weight x_i. Both are compared over sampled weights by
their cosine, layer by layer (1: same direction, 0: none), with batch statistics frozen.
The reference is not the truth about training, which moves all weights at once; it is what one flip would really do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..binarizers.base import Binarizer
from ..binarizers.registry import get
from ..images.pictures import normalise
from ..layers.binary import BinaryConv2d, BinaryLinear
from ..recipe.build import make_recipe
from ..run.device import pick_device
from ..run.execute import run
from ..run.identity import folder_of
from ..run.judge import load_network
from ..run.tasks import task_module
from ..training import checkpoint
from ..training.streams import stream
from ..training.task import classifier_options
from .rows import by_arm

IMAGES = 256
WEIGHTS_PER_LAYER = 24


class _Held(Binarizer):
    """Gives the binary weights it holds, whatever it is asked for."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, x: Tensor, evaluator=None) -> Tensor:
        return self.values


def flips(network: nn.Module, x: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
    """For each binary layer all its weights' `latent` x and `slope` g, in the layer's shape, the places of those that
    were sampled, `chosen` (n,), and their flip differences `flip` (n,).

    x (N, C, H, W) normalised, labels (N,). The network is left in evaluation with its weights held: give it a copy.
    """
    network.eval()
    held = []
    for layer in network.modules():
        if isinstance(layer, (BinaryConv2d, BinaryLinear)) and layer.weight_binarizer is not None:
            with torch.no_grad():
                latent = layer.latent_weight().contiguous(memory_format=torch.contiguous_format)
                values = layer.weight_binarizer.hard(latent)
            layer.__dict__.pop("weight_binarizer", None)
            layer.weight_binarizer = _Held(values)
            held.append((layer, latent, layer.weight_binarizer.values))
    F.cross_entropy(network(x), labels).backward()
    draw = torch.Generator().manual_seed(stream(0, "sampled weights"))
    layers = []
    with torch.no_grad():
        calls, outputs = _calls(network, x)
        unflipped = F.cross_entropy(outputs.double(), labels)  # the loss with each weight as it is, one of its two
        for layer, latent, values in held:
            chosen = torch.randperm(values.numel(), generator=draw)[:WEIGHTS_PER_LAYER]
            flat, differences = values.view(-1), []
            with _fixed_before(layer, calls):
                for i in chosen.tolist():
                    sign = flat[i].item()
                    flat[i] = -sign
                    flipped = F.cross_entropy(network(x).double(), labels)
                    flat[i] = sign
                    differences.append(sign * (unflipped - flipped) / 2)
            layers.append(
                {
                    "latent": latent,
                    "slope": values.grad.contiguous(),
                    "chosen": chosen,
                    "flip": torch.stack(differences),
                }
            )
    return layers


def _calls(network: nn.Module, x: Tensor) -> tuple[list[tuple[nn.Module, Tensor | None]], Tensor]:
    """Of one forward pass the calls of binary layers and of modules without children, in order, each with its output,
    None for one that something else changed in place; and the network's output."""
    binary = [module for module in network.modules() if isinstance(module, (BinaryConv2d, BinaryLinear))]
    inner = {part for layer in binary for part in layer.modules() if part is not layer}
    leaves = [m for m in network.modules() if m in binary or (m not in inner and not any(True for _ in m.children()))]
    seen: list[tuple[nn.Module, Tensor, int]] = []
    handles = [
        leaf.register_forward_hook(lambda module, _, output: seen.append((module, output, output._version)))
        for leaf in leaves
    ]
    outputs = network(x)
    for handle in handles:
        handle.remove()
    return [(module, output if output._version == version else None) for module, output, version in seen], outputs


@contextmanager
def _fixed_before(layer: nn.Module, calls: list[tuple[nn.Module, Tensor | None]]) -> Iterator[None]:
    """Whatever was called once, and before `layer`, gives the output that it gave: no weight of `layer` changes it."""
    called = [module for module, _ in calls]
    first = called.index(layer) if layer in called else 0
    fixed = [(module, output) for module, output in calls[:first] if output is not None and called.count(module) == 1]
    for module, output in fixed:
        module.forward = lambda *_, output=output: output
    try:
        yield
    finally:
        for module, _ in fixed:
            del module.forward


def agreement(layers: list[dict[str, Tensor]], rule: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Mean over the layers of the cosine between what `rule(slope, latent)` passes on and the flip differences, over
    the sampled weights; a layer in which it passes nothing counts as 0."""
    cosines = []
    for layer in layers:
        passed = rule(layer["slope"], layer["latent"]).reshape(-1)[layer["chosen"]].double()
        cosines.append(F.cosine_similarity(passed, layer["flip"], dim=0).item() if passed.any() else 0.0)
    return float(np.mean(cosines))


def study(rows: list[dict]) -> pd.DataFrame:
    """Every estimator's agreement with the flip differences on one network, at its start and at its end, beside its
    mean headline. The network is the first arm's under the first seed; it is trained here if its checkpoint is not.

    A learnt estimator at the end is the one that its own run of that seed has learnt. An estimator whose run of that
    seed diverged is left out.
    """
    first = rows[0]
    recipe = make_recipe(**first["recipe"])
    device = pick_device(recipe)
    task = task_module(recipe.experiment).build(recipe, device)
    draw = torch.Generator().manual_seed(stream(recipe.seed, "sampled images"))
    batch = task.train_set.__getitems__(torch.randperm(len(task.train_set), generator=draw)[:IMAGES].tolist())
    x, labels = normalise(batch["image"].to(device), recipe.data.kind), batch["label"].to(device)
    for module in task.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of this one batch
    with torch.no_grad():
        task.network.train()(x)
    start = flips(task.network, x, labels)
    run(recipe, reuse_published=False)
    file = folder_of(recipe) / checkpoint.NAMES[0]
    end = flips(load_network(file, device, (recipe.weight_binarizer, recipe.activation_binarizer))[0], x, labels)
    means, lines = by_arm(rows), []
    for row in rows:
        if row["seed"] == first["seed"] and row["status"] == "finished":
            lines.append(
                {
                    "estimator": row["arm"],
                    "at the start": agreement(start, _rule(row, 0.0, device)),
                    "at the end": agreement(end, _rule(row, 1.0, device)),
                    "mean": float(np.mean(list(means[row["arm"]].values()))),
                }
            )
    return pd.DataFrame(lines)


def _rule(row: dict, progress: float, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """What a run's estimator made of (slope, latent) at its start (0) or end (1)."""
    learnt = row["curve"][-1].get("estimator")
    if progress and learnt:
        nodes, values = np.linspace(*learnt["range"], len(learnt["derivative"])), learnt["derivative"]
        return lambda grad, x: grad * torch.from_numpy(np.interp(x.cpu(), nodes, values)).to(grad)
    recipe = make_recipe(**row["recipe"])
    with torch.random.fork_rng():
        torch.manual_seed(stream(recipe.seed, "classifier"))
        options = classifier_options(recipe, recipe.weight_binarizer)
        binarizer = get(recipe.weight_binarizer, preset=recipe.preset, **options).to(device)
    binarizer.progress = progress
    if learnt:
        return lambda grad, x: grad * binarizer.derivative(x).detach()
    return lambda grad, x: binarizer.rule(grad, x).detach()
