"""Where the time of a packed network goes: step by step, beside the same steps of its float twin in torch.

A step is the stem, a block (convolution, BatchNorm, shortcut, PReLU and the signs of the next one) or the last layer.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .benchmark import float_twin, torch_threads
from .network import PackedNetwork


@dataclass(frozen=True)
class StepTime:
    """Median milliseconds of processor time: `bits` of the binary convolution, `floats` of what else the step
    computes, and `twin` of torch's float32 for the whole step. `layer` is the step's convolution or linear layer."""

    layer: str
    bits: float
    floats: float
    twin: float


def by_step(packed: PackedNetwork, network: nn.Module, rounds: int = 30) -> list[StepTime]:
    """The times of each step for one image of noise, on one thread.

    `packed` was packed from `network`. Raises ValueError for a network that was packed layer by layer: it has no steps.
    """
    if packed.plan is None:
        raise ValueError("this network was packed layer by layer; its steps are torch's own: use torch's profiler")
    images = torch.randn(1, packed.plan.channels, *packed.plan.size, generator=torch.Generator().manual_seed(0))
    shortcuts = {name for name, _, why in packed.report.layers if why.startswith("a shortcut")}
    layers = [name for name, _, _ in packed.report.layers if name not in shortcuts]
    with torch_threads(1), torch.inference_mode():
        bits, floats = _of_packed(packed, images, rounds)
        twin = _of_twin(float_twin(network), layers, images, rounds)
    return [StepTime(*values) for values in zip(layers, bits, floats, twin, strict=True)]


def _of_packed(packed: PackedNetwork, images: Tensor, rounds: int) -> tuple[list[float], list[float]]:
    from .arrangement import Weights
    from .buffers import Program

    assert packed.plan is not None
    program = Program(packed.plan, Weights(packed.plan, packed.kernel))
    result = torch.empty(1, *program.shape, dtype=torch.float32)
    x, y = images.data_ptr(), result.data_ptr()
    count = len(program.operations)
    spent = np.zeros((rounds + 1, count))
    for i in range(rounds + 1):
        for operation in range(count):
            started = time.process_time()
            program.alone(operation, x, y)
            spent[i, operation] = time.process_time() - started
    sums = np.zeros((len(packed.plan.steps), 2))
    for operation, milliseconds in enumerate(1000 * np.median(spent[1:], 0)):  # the first round does not count
        sums[program.step_of[operation], int(program.of_bits(operation))] += milliseconds
    return sums[:, 1].tolist(), sums[:, 0].tolist()


def _of_twin(twin: nn.Module, layers: list[str], images: Tensor, rounds: int) -> list[float]:
    """From the end of one step to the end of the next."""
    ends: list[float] = []
    first, *blocks, last = layers
    modules = [twin.get_submodule(name.rpartition(".")[0]) for name in (first, *blocks)] + [twin.get_submodule(last)]
    for module in modules:
        module.register_forward_hook(lambda *_: ends.append(time.process_time()))
    spent = np.zeros((rounds + 1, len(layers)))
    for i in range(rounds + 1):
        ends.clear()
        ends.append(time.process_time())
        twin(images)
        spent[i] = np.diff(ends)
    return (1000 * np.median(spent[1:], 0)).tolist()
