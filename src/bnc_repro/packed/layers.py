"""Binary layers by bits: each packs the signs of its input, sums by counted bits or by tables, and scales.

One operator of torch serves both, in channels_last, where a pixel's channels lie side by side.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..layers.binary import BinaryConv2d, BinaryLinear
from .engine import (
    Kept,
    as_operator,
    chosen,
    kernels_at_hand,
    not_finite,
    refuse_converted,
    refuse_transformed,
    shared_out,
)
from .packing import fold, negative_and_scale, why_float

if TYPE_CHECKING:  # numba is imported where it is used
    from .buffers import Map


class _PackedLayer(nn.Module):
    """Bits (uint8) of which weights are below 0, and scale and shift (O,) of the sums. `kernel`: "popcount", "tables",
    or empty for what serves the processor best."""

    bits: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, layer: BinaryConv2d | BinaryLinear, name: str, kernel: str | None) -> None:
        super().__init__()
        kernels_at_hand()
        self.kernel = kernel or ""
        why = why_float(layer)
        if why:
            raise ValueError(f"{name} cannot be computed by bits: {why}")
        negative, scale = negative_and_scale(layer, name)
        self.out_features = len(negative)
        self.register_buffer("bits", torch.from_numpy(np.packbits(negative.ravel(), bitorder="little")))
        self.register_buffer("scale", torch.from_numpy(scale).float())
        no_bias = torch.zeros(len(negative), dtype=torch.float32, device="cpu")
        self.register_buffer("shift", no_bias if layer.bias is None else layer.bias.detach().clone())
        self.eval()

    @torch.no_grad()
    def fold(self, norm: nn.BatchNorm2d) -> None:
        """Take a BatchNorm that follows into scale and shift."""
        scale, shift = map(torch.from_numpy, fold(norm))
        self.shift.copy_(self.shift.double() * scale + shift)
        self.scale.copy_(self.scale.double() * scale)

    def _check(self, x: Tensor) -> None:
        """Raise ValueError for an input that asks for a gradient, or that is not float32 on the CPU, as the layer's own
        numbers must be: the kernels read any memory as that."""
        refuse_transformed(x)
        if x.dtype != torch.float32 or x.device.type not in ("cpu", "meta"):
            raise ValueError(
                f"a packed layer takes float32 on the CPU, got {x.dtype} on {x.device}: call .float().cpu() on its "
                "input, outside autocast"
            )
        refuse_converted(x, self.bits, self.scale, self.shift)

    def train(self, mode: bool = True):
        """Raises ValueError for True."""
        if mode:
            raise ValueError("a packed layer cannot be trained: train the network it was packed from, and pack again")
        return super().train(False)


class PackedConv2d(_PackedLayer):
    """A binary convolution in evaluation: x (N, C, H, W) float32 on the CPU -> (N, O, H', W'). Kernel 3x3 or 1x1,
    stride 1 or 2, zero padding 0 or 1, C by 4. Raises ValueError for a layer that bits cannot compute, and says why."""

    def __init__(self, layer: BinaryConv2d, name: str = "this layer", kernel: str | None = None) -> None:
        super().__init__(layer, name, kernel)
        self.in_channels, self.kernel_size = layer.in_channels, layer.kernel_size[0]
        self.stride, self.padding = layer.stride[0], int(layer.padding[0])

    def forward(self, input: Tensor) -> Tensor:  # torch's name: it may be called by it
        self._check(input)
        if input.dim() != 4 or input.shape[1] != self.in_channels:
            raise ValueError(f"a packed layer of {self.in_channels} channels got {tuple(input.shape)}")
        if min(input.shape[2:]) + 2 * self.padding < self.kernel_size:
            size, kernel = " x ".join(map(str, input.shape[2:])), self.kernel_size
            raise ValueError(f"a packed layer of {kernel}x{kernel} windows got an input of {size}, which is smaller")
        geometry = [self.kernel_size, self.stride, self.padding]
        return packed_conv2d(input, self.bits, self.scale, self.shift, geometry, self.kernel)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_features}, {self.kernel_size}, stride={self.stride}, padding={self.padding}"
        )


class PackedLinear(_PackedLayer):
    """A binary linear layer in evaluation: x (N, ..., I) float32 on the CPU -> (N, ..., O). I by 4. Raises ValueError
    as `PackedConv2d` does."""

    def __init__(self, layer: BinaryLinear, name: str = "this layer", kernel: str | None = None) -> None:
        super().__init__(layer, name, kernel)
        self.in_features = layer.in_features

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise ValueError(f"a packed layer of {self.in_features} inputs got {tuple(input.shape)}")
        rows = input[None].flatten(0, -2)[None, :, None].permute(0, 3, 1, 2)  # a row of the matrix as a pixel
        y = packed_conv2d(rows, self.bits, self.scale, self.shift, [1, 1, 0], self.kernel)
        return y.permute(0, 2, 3, 1).reshape(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


_layers = Kept(512)


@as_operator(
    'packed_conv2d(Tensor x, Tensor bits, Tensor scale, Tensor shift, int[] geometry, str kernel="") -> Tensor'
)
def packed_conv2d(
    x: Tensor, bits: Tensor, scale: Tensor, shift: Tensor, geometry: list[int], kernel: str = ""
) -> Tensor:
    """scale (signs of x * weights) + shift: x (N, C, H, W) -> (N, O, H', W') in channels_last; geometry: window,
    stride, padding; kernel: the processor's best where it is empty. Raises ValueError for an input that holds NaN, and
    for bits, scale and shift that do not fit it."""
    if not x.numel():
        return _empty(x, scale, geometry)
    key = (*geometry, x.dtype, *x.shape[1:], kernel)
    return _layers((bits, scale, shift), key, lambda: _Layer(x, bits, scale, shift, geometry, kernel))(x)


@torch.library.register_fake(packed_conv2d)
def _(x: Tensor, bits: Tensor, scale: Tensor, shift: Tensor, geometry: list[int], kernel: str = "") -> Tensor:
    return _empty(x, scale, geometry)


def _empty(x: Tensor, scale: Tensor, geometry: list[int]) -> Tensor:
    """An output's memory, not yet written."""
    kernel, stride, padding = geometry
    height, width = ((n + 2 * padding - kernel) // stride + 1 for n in x.shape[2:])
    return x.new_empty(x.shape[0], height, width, scale.shape[0]).permute(0, 3, 1, 2)


class _Layer:
    """A layer's arrays in the order of a kernel, for inputs of one size, and the programs that run on them."""

    def __init__(self, x: Tensor, bits: Tensor, scale: Tensor, shift: Tensor, geometry: list[int], kernel: str) -> None:
        from . import kernels
        from .arrangement import address, lookup_middle, middles, nibble_weights, rounded, vector, word_weights
        from .buffers import Map, lookup_steps, pairs_table, windows

        self.window, stride, padding = geometry
        _, channels, self.height, self.width = x.shape
        outputs = len(scale)
        needed = -(-outputs * channels * self.window**2 // 8)
        types = x.dtype, scale.dtype, shift.dtype, bits.dtype
        if types != (*[torch.float32] * 3, torch.uint8):
            raise ValueError(f"a packed layer takes float32, and bits of uint8, got {', '.join(map(str, types))}")
        if shift.shape != scale.shape or bits.numel() != needed or channels % 4:
            raise ValueError(
                f"a packed layer's bits {tuple(bits.shape)}, scale {tuple(scale.shape)} and shift {tuple(shift.shape)} "
                f"do not fit an input of {channels} channels: pack the network again"
            )
        height, width = ((n + 2 * padding - self.window) // stride + 1 for n in x.shape[2:])
        self.size, self.number = (height, width), height * width
        self.channels, self.outputs, self.rows = rounded(channels), rounded(outputs), outputs
        shape = (outputs, channels, self.window, self.window)
        negative = np.unpackbits(bits.numpy(), count=int(np.prod(shape)), bitorder="little").astype(bool).reshape(shape)
        self.map = lambda: Map(self.height, self.width, channels)
        signs, target = self.map(), Map(height, width, outputs)
        fits = (self.window, padding, outputs % 64) == (3, 1, 0) and 9 * channels < 1 << 16  # they count in 16 bits
        self.tables = chosen(kernel or None)[0] == "tables" and fits
        if self.tables:
            self.wide, self.steps = False, lookup_steps(signs, target, stride)
            weights, middle = nibble_weights(negative), lookup_middle(negative)
            places = pairs_table(signs, target, stride)
            self.tiles = len(places)
        else:
            weights, self.wide = word_weights(negative, self.outputs)
            middle = middles(negative, padding, self.outputs)
            pixels = kernels.WIDE_COUNT[0] if self.wide else kernels.NARROW_COUNT[0]
            places = windows(self.height, self.width, signs.depth, target, self.window, stride, padding, pixels)
            self.tiles = len(places) // pixels
        scaled = vector(2 * scale.double().numpy(), self.outputs), vector(shift.numpy(), self.outputs)
        self._arrays = places, weights, middle, *scaled
        self.places, *self.addresses = map(address, self._arrays)
        self._idle = [_Program(self, signs)]  # a list's pop and append are one step each, whatever other threads do

    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x = x.detach()
        if self.channels != x.shape[1]:
            x = nn.functional.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))
        x, count, (height, width) = x.contiguous(memory_format=torch.channels_last), x.shape[0], self.size
        # A pixel more behind each image, for a tile that is not full.
        result = x.new_empty(count * (self.number + 1) * self.outputs)
        step = (self.number + 1) * self.outputs
        source, target = x.data_ptr(), result.data_ptr()
        across = self.height * self.width * self.channels
        if any(shared_out(self._image, [(source + 4 * i * across, target + 4 * i * step) for i in range(count)])):
            raise not_finite(x, "how it was read, and at what is computed before this packed layer")
        images = result.as_strided((count, self.rows, height, width), (step, 1, width * self.outputs, self.outputs))
        return (
            images if count == 1 and self.rows == self.outputs else images.contiguous(memory_format=torch.channels_last)
        )

    def _image(self, source: int, target: int) -> int:
        try:
            program = self._idle.pop()
        except IndexError:
            program = _Program(self, self.map())
        wrong = program(source, target)
        self._idle.append(program)
        return wrong


class _Program:
    """A layer's operations on memory of their own: `program(x, y)` with the addresses of (H, W, C') and (H', W', O')
    floats -> a number other than 0 where x holds NaN. Not for two threads at once."""

    def __init__(self, layer: _Layer, signs: "Map") -> None:
        from . import program
        from .arrangement import address
        from .buffers import operations
        from .kernels import aligned
        from .tables import LOOKUP_OUTPUTS, lookup_tables

        words, size = address(signs.words), (signs.height, signs.width)
        rows: list[tuple] = [(program.SIGNS, words, *size, layer.channels, signs.depth)]
        ends = *layer.addresses, layer.outputs
        if layer.tables:
            nibbles, row, across, down = layer.steps
            codes, pairs, pairs_down = map(address, signs.codes(across, down))
            counts = aligned(4 * LOOKUP_OUTPUTS, np.int16)
            tables, sums = address(lookup_tables()), address(counts)
            rows += [
                (program.CODES, words, codes, *size, signs.depth, nibbles, across, pairs, down, pairs_down),
                (program.LOOKUP_SUMS, tables, pairs, layer.places, layer.tiles, 2 * row, nibbles, *ends, sums),
            ]
            self._kept = signs, counts
        else:
            steps = layer.window, (signs.width + 2) * signs.depth * 8, layer.window * signs.depth
            rows.append((program.COUNT_SUMS, words, layer.places, layer.tiles, *steps, *ends, layer.wide))
            self._kept = signs
        self._run, self._operations = program.run, operations(rows)

    def __call__(self, x: int, y: int) -> int:
        return self._run(self._operations, x, y)
