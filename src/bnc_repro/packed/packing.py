"""From a trained network to a plan: what is computed by bits, what stays float and why. Needs no numba.

A plan is a list of steps of plain arrays. BatchNorm is folded into the step before it, in double precision. What an
activation binarizer does in evaluation is probed by values: its name says nothing about a class of somebody's own.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..binarizers.base import Binarizer
from ..images.networks import ResNet
from ..layers.backbone import Block, Trunk
from ..layers.binary import BinaryConv2d, BinaryLinear
from ..poses.networks import SBPN

# More of them above 0 than below: what shifts by the mean or the median first is told from sign.
PROBES = (-3.0, -1.0, -0.3, -1e-3, -1e-30, -0.0, 0.0, 1e-30, 1e-3, 0.3, 0.5, 0.7, 1.0, 2.0, 3.0, 5.0)


@dataclass
class Convolution:
    """A float convolution with its bias and PReLU; pooled: the 3x3/2 maximum follows. weight (O, C, k, k)."""

    weight: np.ndarray
    bias: np.ndarray
    slope: np.ndarray
    stride: int
    pooled: bool = False


@dataclass
class BinaryBlock:
    """prelu(scale (signs * bits) + shift + shortcut), 3x3 and padded by 1, at `upsampled` times the size.

    negative (O, C, 3, 3) bool: which weights are -1. Shortcut: the input itself where `shortcut` is None, else its 2x2
    mean (stride 2) times shortcut (O, C) plus shortcut_bias.
    """

    name: str
    negative: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    slope: np.ndarray
    stride: int
    upsampled: int
    shortcut: np.ndarray | None = None
    shortcut_bias: np.ndarray | None = None


@dataclass
class Linear:
    """weight (K, C) at every pixel, or at the mean of all (`averaged`)."""

    weight: np.ndarray
    bias: np.ndarray
    averaged: bool


@dataclass
class Plan:
    """A whole network: input (C, H, W), its steps, and a line for each layer: name, packed or float, why."""

    channels: int
    size: tuple[int, int]
    steps: list[Convolution | BinaryBlock | Linear] = field(default_factory=list)
    layers: list[tuple[str, str, str]] = field(default_factory=list)


def after(step, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a step's output for an input of `size`."""
    height, width = size
    if isinstance(step, Convolution):
        kernel = step.weight.shape[2]
        height, width = ((n + 2 * (kernel // 2) - kernel) // step.stride + 1 for n in size)
        return ((height - 1) // 2 + 1, (width - 1) // 2 + 1) if step.pooled else (height, width)
    if isinstance(step, BinaryBlock):
        return tuple((n * step.upsampled - 1) // step.stride + 1 for n in size)  # pyright: ignore[reportReturnType]
    return (1, 1) if step.averaged else size


def output_shape(plan: Plan) -> tuple[int, ...]:
    """(K,) logits, or (K, H', W') heatmaps."""
    size, last = plan.size, plan.steps[-1]
    for step in plan.steps:
        size = after(step, size)
    averaged = isinstance(last, Linear) and last.averaged
    return (len(last.weight),) if averaged else (len(last.weight), *size)  # pyright: ignore


def check_plan(plan: Plan) -> None:
    """Raise ValueError for a plan whose steps do not fit each other: the kernels check nothing."""
    sizes = (plan.channels, *plan.size)
    if not all(type(size) is int and 0 < size <= 1 << 16 for size in sizes) or not plan.steps:
        raise ValueError(f"an input of {sizes} and {len(plan.steps)} steps make no network")
    channels, size = plan.channels, plan.size
    for i, step in enumerate(plan.steps):
        weight = step.negative if isinstance(step, BinaryBlock) else step.weight
        outputs, window = len(weight), (3, 3)
        if isinstance(step, Convolution):
            window = (weight.shape[-1] | 1,) * 2
            vectors, strides = [step.bias, step.slope], step.stride in (1, 2)
        elif isinstance(step, BinaryBlock):
            vectors = [step.scale, step.shift, step.slope]
            strides = (step.stride, step.upsampled) in ((1, 1), (2, 1), (1, 2))
            changed = step.stride == 2 or outputs != channels
            if (step.shortcut is None) != (step.shortcut_bias is None) or (step.shortcut is None and changed):
                raise ValueError(f"step {i} lacks its shortcut")
            if step.shortcut is not None and step.shortcut.shape != (outputs, channels):
                raise ValueError(f"step {i} has a shortcut of {step.shortcut.shape}")
            vectors += [] if step.shortcut_bias is None else [step.shortcut_bias]
            strides = strides and channels % 4 == 0
        else:
            vectors, strides, window = [step.bias], i == len(plan.steps) - 1, ()
        right = weight.shape == (outputs, channels, *window) and all(v.shape == (outputs,) for v in vectors)
        if not right or not strides or (i == 0) != isinstance(step, Convolution):
            raise ValueError(f"step {i} does not fit an input of {channels} channels")
        channels, size = outputs, after(step, size)
        if min(size) < 1 or max(size) > 1 << 16:
            raise ValueError(f"step {i} makes {size[0]} x {size[1]} of its input")
    if not isinstance(plan.steps[-1], Linear):
        raise ValueError("the last step is no linear layer")


def hooked(module: nn.Module) -> bool:
    """Whether calls of `module` are more than its class says: a forward hook or pre-hook that is not this package's
    own, or a forward set on the instance."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    package = f"{__name__.partition('.')[0]}."
    return "forward" in vars(module) or any(not getattr(hook, "__module__", "").startswith(package) for hook in hooks)


OF_THE_CALL = ("__call__", "forward", "_conv_forward", "binary_input")


def why_float(layer: BinaryConv2d | BinaryLinear) -> str | None:
    """Why a binary layer cannot be computed by bits; None: it can."""
    if hooked(layer):
        return "it has a forward hook, or a forward set on the layer itself"
    base, kind = (BinaryConv2d if isinstance(layer, BinaryConv2d) else BinaryLinear), type(layer)
    if any(getattr(kind, name) is not getattr(base, name) for name in OF_THE_CALL if hasattr(base, name)):
        return f"its class {kind.__name__} computes its forward in a way of its own"
    if layer.weight_binarizer is None or layer.activation_binarizer is None:
        operand = "weights" if layer.weight_binarizer is None else "inputs"
        return f"its {operand} are float"
    if not takes_sign(layer.activation_binarizer):
        return f"{type(layer.activation_binarizer).__name__} is not sign in evaluation"
    if isinstance(layer, BinaryLinear):
        return None if layer.in_features % 4 == 0 else f"its {layer.in_features} inputs do not divide by 4"
    if layer.groups != 1:
        return f"it has {layer.groups} groups"
    if layer.dilation != (1, 1):
        return f"its dilation is {layer.dilation}"
    if layer.padding_mode != "zeros":
        return f"its padding is {layer.padding_mode!r}"
    if layer.kernel_size not in ((1, 1), (3, 3)):
        return f"its kernel is {layer.kernel_size[0]}x{layer.kernel_size[1]}, not 1x1 or 3x3"
    if layer.stride not in ((1, 1), (2, 2)):
        return f"its stride is {layer.stride}"
    if layer.padding not in ((0, 0), (1, 1)) or (layer.kernel_size == (1, 1) and layer.padding == (1, 1)):
        return f"its padding is {layer.padding}"
    if layer.in_channels % 4:
        return f"its {layer.in_channels} channels do not divide by 4"
    return None


def takes_sign(binarizer: Binarizer) -> bool:
    """Whether `binarizer` is sign, +1 at 0 and at -0, in evaluation: asked of numbers, also as channels of an image."""
    numbers = torch.tensor(PROBES, dtype=torch.float32, device="cpu")
    expected = (numbers >= 0).float() * 2 - 1
    training = binarizer.training
    binarizer.eval()
    try:
        with torch.no_grad():
            alone = binarizer(numbers)
            image = binarizer(numbers.view(1, -1, 1, 1).expand(2, -1, 3, 3).contiguous())
    except (RuntimeError, ValueError, TypeError):
        return False
    finally:
        binarizer.train(training)
    return torch.equal(alone, expected) and torch.equal(image, expected.view(1, -1, 1, 1).expand(2, -1, 3, 3))


def negative_and_scale(layer: BinaryConv2d | BinaryLinear, name: str = "this layer") -> tuple[np.ndarray, np.ndarray]:
    """Which binary weights are below 0, in the weight's shape, and their size (O,), in double precision. Raises
    ValueError, with the layer's `name`, where weights are not finite, and where a channel has other values than one
    number and its negative."""
    with torch.no_grad():
        weight = layer.binary_weight().double().flatten(1)
    if not weight.isfinite().all():
        raise ValueError(f"{name} has weights that are not finite: train it again, or take an earlier checkpoint")
    size = weight.abs().amax(1)
    if not torch.equal(weight.abs(), size[:, None].expand_as(weight)):
        raise ValueError(
            f"{name} has more than two values of binary weights per output channel: its weight binarizer is no sign, "
            "keep the layer float"
        )
    return (weight < 0).view(layer.weight.shape).numpy(), size.numpy()


def foldable(norm: nn.Module) -> bool:
    """Whether a module is torch's BatchNorm2d itself, and its evaluation takes running statistics."""
    return type(norm) is nn.BatchNorm2d and norm.running_mean is not None and norm.running_var is not None


def fold(norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift (C,) of a `foldable` norm in evaluation, double precision."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with np.errstate(invalid="ignore", divide="ignore"):  # the comparison tells of what is not finite
        scale = (1.0 if norm.weight is None else _double(norm.weight)) / np.sqrt(_double(norm.running_var) + norm.eps)
    return scale, (0.0 if norm.bias is None else _double(norm.bias)) - _double(norm.running_mean) * scale


def _double(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


def _slope(activation: nn.Module, channels: int) -> np.ndarray:
    assert isinstance(activation, nn.PReLU)
    return np.broadcast_to(_double(activation.weight), (channels,)).copy()


def plan_of(network: nn.Module, size: tuple[int, int]) -> Plan | None:
    """The plan of a ResNet classifier or an SBPN of Bi-Real blocks whose binary layers can all be packed; None for
    anything else, as for one whose modules were hooked or replaced."""
    if not isinstance(network, (ResNet, SBPN)) or not _of_the_registry(network):
        return None
    trunk: Any = network.trunk
    names = {module: name for name, module in network.named_modules()}
    plan = Plan(trunk.stem[0].in_channels, size)
    _stem(plan, trunk, names)
    for stage in trunk.stages:
        for block in stage:
            _block(plan, block, names, 1)
    if isinstance(network, SBPN):
        upsampled = 1
        for module in network.head:
            if isinstance(module, Block):
                _block(plan, module, names, upsampled)
            upsampled = 1 if isinstance(module, Block) else 2
        last, weight = network.heatmaps, network.heatmaps.weight[:, :, 0, 0]
    else:
        last, weight = network.fc, network.fc.weight
    outputs = len(weight)
    bias = np.zeros(outputs) if last.bias is None else _double(last.bias)
    plan.steps.append(Linear(_double(weight), bias, isinstance(network, ResNet)))
    plan.layers.append((names[last], "float", "the last layer"))
    for step in plan.steps:  # what is computed is what a file holds
        for key, value in vars(step).items():
            if isinstance(value, np.ndarray) and value.dtype == np.float64:
                setattr(step, key, value.astype(np.float32))
    return plan


def _is(module: Any, kind: type[nn.Module], **settings) -> bool:
    """Whether a module is of this very class with these settings."""
    return type(module) is kind and all(getattr(module, name) == value for name, value in settings.items())


POINTWISE = {"kernel_size": (1, 1), "stride": (1, 1), "padding": (0, 0), "groups": 1}


def _of_the_registry(network: Any) -> bool:
    """Whether a ResNet or SBPN is still what its class makes: what the steps of a plan say, and nothing else."""
    modules = list(network.modules())
    if any(map(hooked, modules)) or not _is(network.trunk, Trunk):
        return False
    if not all(foldable(module) or not isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
        return False
    stages = network.trunk.stages
    if not _is(stages, nn.ModuleList) or not all(_is(stage, nn.Sequential) for stage in stages):
        return False
    blocks = [block for stage in stages for block in stage]
    if _is(network, SBPN):
        head = list(network.head)
        blocks += head[1::2]
        steps = all(_is(step, nn.Upsample, size=None, scale_factor=2, mode="nearest") for step in head[::2])
        last = steps and _is(network.head, nn.Sequential) and len(head) % 2 == 0
        last = last and _is(network.heatmaps, nn.Conv2d, **POINTWISE)
    else:
        last = _is(network, ResNet) and _is(network.pool, nn.AdaptiveAvgPool2d) and _is(network.fc, nn.Linear)
        last = last and network.pool.output_size in (1, (1, 1))
    return last and _is_stem(network.trunk.stem) and all(map(_is_block, blocks))


def _is_stem(stem: Any) -> bool:
    if not _is(stem, nn.Sequential) or len(stem) not in (3, 4):
        return False
    conv, norm, activation, *rest = stem
    if not _is(conv, nn.Conv2d, bias=None, dilation=(1, 1), groups=1, padding_mode="zeros"):
        return False
    size, stride = conv.kernel_size[0], conv.stride[0]
    square = size % 2 == 1 and conv.kernel_size == (size, size) and conv.padding == (size // 2, size // 2)
    return (
        square
        and conv.stride == (stride, stride)
        and _is(norm, nn.BatchNorm2d)
        and _is(activation, nn.PReLU)
        and all(_is(p, nn.MaxPool2d, kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False) for p in rest)
    )


def _is_block(block: Any) -> bool:
    if not _is(block, Block) or not _is(block.shift, nn.Identity) or why_float(block.conv):
        return False
    if block.conv.kernel_size != (3, 3) or block.conv.padding != (1, 1):
        return False
    if not _is(block.norm, nn.BatchNorm2d) or not _is(block.activation, nn.PReLU):
        return False
    if _is(block.shortcut, nn.Identity):
        return block.conv.stride == (1, 1)
    if not _is(block.shortcut, nn.Sequential) or len(block.shortcut) != 3:
        return False
    pool, pointwise, norm = block.shortcut
    mean = {"kernel_size": 2, "stride": 2, "padding": 0, "ceil_mode": True, "divisor_override": None}
    same = _is(pool, nn.Identity) if block.conv.stride == (1, 1) else _is(pool, nn.AvgPool2d, **mean)
    return same and _is(pointwise, nn.Conv2d, bias=None, **POINTWISE) and _is(norm, nn.BatchNorm2d)


def _stem(plan: Plan, trunk: Any, names: dict) -> None:
    conv, norm, activation, *rest = trunk.stem
    scale, shift = fold(norm)
    weight = _double(conv.weight) * scale[:, None, None, None]
    slope = _slope(activation, conv.out_channels)
    plan.steps.append(Convolution(weight, shift, slope, conv.stride[0], pooled=bool(rest)))
    plan.layers.append((names[conv], "float", "the first layer"))


def _block(plan: Plan, block: Any, names: dict, upsampled: int) -> None:
    conv = block.conv
    negative, size = negative_and_scale(conv, names[conv])
    scale, shift = fold(block.norm)
    if conv.bias is not None:
        shift = shift + scale * _double(conv.bias)
    slope = _slope(block.activation, conv.out_channels)
    step = BinaryBlock(names[conv], negative, size * scale, shift, slope, conv.stride[0], upsampled)
    plan.layers.append((names[conv], "packed", ""))
    if isinstance(block.shortcut, nn.Sequential):
        parts: Any = block.shortcut
        _, pointwise, norm = parts
        scale, shift = fold(norm)
        step.shortcut, step.shortcut_bias = _double(pointwise.weight)[:, :, 0, 0] * scale[:, None], shift
        plan.layers.append((names[pointwise], "float", "a shortcut, 1x1"))
    plan.steps.append(step)
