"""Weights in the kernels' order: padded, transposed into blocks of outputs, binary ones as bits or nibbles."""

import numpy as np

from . import kernels
from .kernels import aligned
from .packing import BinaryBlock, Convolution, Linear, Plan


def rounded(number: int, multiple: int = 16) -> int:
    """`number` rounded up to a multiple."""
    return -(-number // multiple) * multiple


def address(array: np.ndarray) -> int:
    """Where an array begins; the array must be kept."""
    return array.ctypes.data


def vector(values: np.ndarray, outputs: int, fill: float = 0.0) -> np.ndarray:
    """(outputs,) floats, `fill` behind the values."""
    array = aligned(outputs, np.float32)
    array[:] = fill
    array[: len(values)] = values
    return array


def float_weights(weight: np.ndarray, outputs: int, single: bool = False) -> tuple[np.ndarray, int]:
    """weight (O, n) -> (outputs / block, n, block) floats, zeros behind, and whether blocks are wide (1), narrow (0) or
    for a single pixel (2)."""
    wide = 2 if single else int(outputs % (16 * kernels.WIDE_TILE[1]) == 0)
    block = 16 * (kernels.NARROW_TILE, kernels.WIDE_TILE, kernels.SINGLE_TILE)[wide][1]
    padded = np.zeros((outputs, weight.shape[1]))
    padded[: len(weight)] = weight
    array = aligned(padded.size, np.float32)
    array[:] = padded.reshape(outputs // block, block, -1).transpose(0, 2, 1).ravel()
    return array, wide


WINOGRAD_POINTS = np.array([0, 1, -1, 2, -2, 0.5])  # infinity stands before the last one


def _filtering(taps: int, finite: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F(4, taps) at `finite` points and infinity: matrices of the inputs and of the taps, balanced by powers of 2."""

    def powers(count: int) -> np.ndarray:
        return np.insert(finite[:, None] ** np.arange(count), 5, np.eye(count)[-1], axis=0)

    matrix, kernel = np.linalg.inv(powers(len(finite) + 1)).T, powers(taps)
    balance = 2.0 ** np.round(np.log2(np.sqrt(np.abs(matrix).sum(1) / np.abs(kernel).sum(1))))
    return matrix / balance[:, None], kernel * balance[:, None]


def winograd_weights(weight: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray, int]:
    """weight (O, 3, 7, 7), stride 2 -> the arrays of `program.winograd`, its matrix (7, 7, 8), and whether tiles are
    wide.

    Filtering along the rows (Toom and Cook; Lavin and Gray, 1509.09308), even and odd columns at once: 4 sums of 4 and
    of 3 products from 7 and from 6 products, at the points 0, 1, -1, 2, -2, infinity and, for even columns alone, 1/2.
    """
    even, even_taps = _filtering(4, WINOGRAD_POINTS)
    odd, odd_taps = _filtering(3, WINOGRAD_POINTS[:-1])
    matrix = np.zeros((7, 7, 8))  # lanes: a pair of pixels, 3 channels each
    matrix[:, :, :3] = even[:, :, None]
    matrix[:6, :6, 3:6] = odd[:, :, None]
    arrays, wide = [], 0
    for point in range(7):
        products = [np.einsum("k,ocrk->orc", even_taps[point], weight[..., 0::2])]
        if point < 6:
            products.append(np.einsum("k,ocrk->orc", odd_taps[point], weight[..., 1::2]))
        array, wide = float_weights(np.concatenate(products, 2).reshape(len(weight), -1), outputs)
        arrays.append(array)
    together = np.concatenate([*arrays, np.zeros(outputs), np.ones(outputs)])
    return vector(together, together.size), vector(matrix.ravel(), matrix.size), wide


def sign_words(negative: np.ndarray) -> np.ndarray:
    """(..., C) bool -> (..., ceil(C / 64)) words, a set bit where True."""
    channels = negative.shape[-1]
    padded = np.zeros((*negative.shape[:-1], rounded(channels, 64)), bool)
    padded[..., :channels] = negative
    return np.packbits(padded, axis=-1, bitorder="little").view(np.uint64)


def word_weights(negative: np.ndarray, outputs: int) -> tuple[np.ndarray, bool]:
    """negative (O, C, k, k) -> (outputs / block, k, k D, block) words and whether blocks are wide."""
    wide = outputs % (8 * kernels.WIDE_COUNT[1]) == 0
    block = 8 * (kernels.WIDE_COUNT[1] if wide else kernels.NARROW_COUNT[1])
    words = sign_words(negative.transpose(0, 2, 3, 1))  # (O, k, k, D)
    padded = np.zeros((outputs, *words.shape[1:]), np.uint64)
    padded[: len(words)] = words
    array = aligned(padded.size, np.uint64)
    array[:] = padded.reshape(outputs // block, block, -1).transpose(0, 2, 1).ravel()
    return array, wide


def nibble_weights(negative: np.ndarray) -> np.ndarray:
    """negative (O, C, 3, 3), O by 64 and C by 4 -> (O / 64, 9 C / 4, 64) bytes, a nibble for 4 channels each; outputs
    in the order in which bytes split into 16-bit numbers."""
    outputs, channels = negative.shape[:2]
    bits = negative.transpose(0, 2, 3, 1).reshape(outputs, 9 * channels // 4, 4)
    nibbles = (bits * np.array([1, 2, 4, 8])).sum(-1).astype(np.uint8)
    lanes = np.arange(32).reshape(2, 16).T.ravel()  # byte 2 i is output i, byte 2 i + 1 output 16 + i
    ordered = nibbles.reshape(outputs // 64, 2, 32, -1)[:, :, lanes].reshape(outputs // 64, 64, -1)
    array = aligned(nibbles.size)
    array[:] = ordered.transpose(0, 2, 1).ravel()
    return array


def lookup_middle(negative: np.ndarray) -> np.ndarray:
    """(O,) int32: half of the products of a window; a code of the border counts half of its bits."""
    array = aligned(len(negative), np.int32)
    array[:] = negative[0].size // 2
    return array


def middles(negative: np.ndarray, padding: int, outputs: int) -> np.ndarray:
    """(16, outputs) int32: half of the products of a window, plus the differing bits of what hangs over the border,
    where clear bits stand. A window's place is 4 rows + columns, each 1 for over the first and 2 for over the last."""
    kernel, channels = negative.shape[2], negative.shape[1]
    below = negative.sum(1)  # (O, k, k): weights of -1
    array = aligned(16 * outputs, np.int32).reshape(16, outputs)
    for place in range(16):
        inside = np.ones((kernel, kernel), bool)
        if padding:
            for axis, over in enumerate(divmod(place, 4)):
                edge = np.moveaxis(inside, axis, 0)
                edge[0] &= not over & 1
                edge[-1] &= not over & 2
        array[place, : len(negative)] = inside.sum() * channels // 2 + (below * ~inside).sum((1, 2))
    return array


class Prepared:
    """A step's arrays in the kernels' order, shared by all programs."""

    shortcut: "Prepared | None" = None
    nibbles = False
    matrix: np.ndarray | None = None  # of Winograd's filtering

    def __init__(self, step, kernel: str) -> None:
        if isinstance(step, BinaryBlock):
            self._binary(step, kernel)
            return
        weight, single = step.weight, isinstance(step, Linear) and step.averaged
        self.outputs = rounded(len(weight), 16 * kernels.SINGLE_TILE[1] if single else 16)
        if isinstance(step, Convolution) and step.pooled and weight.shape[1:] == (3, 7, 7) and step.stride == 2:
            self.weights, self.matrix, self.wide = winograd_weights(weight, self.outputs)
        else:
            if isinstance(step, Convolution):
                weight = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
            else:
                weight = np.pad(weight, ((0, 0), (0, -weight.shape[1] % 16)))
            self.weights, self.wide = float_weights(weight, self.outputs, single)
        self.bias = vector(step.bias, self.outputs)
        self.slope = vector(step.slope if isinstance(step, Convolution) else np.ones(0), self.outputs, 1.0)

    def _binary(self, step: BinaryBlock, kernel: str) -> None:
        channels = len(step.negative)
        self.outputs = rounded(channels)
        fits = channels % 64 == 0 and step.negative[0].size < 1 << 16  # they count in 16 bits
        self.nibbles = kernel == "tables" and fits
        if self.nibbles:
            self.weights, self.wide = nibble_weights(step.negative), False
            self.middle = lookup_middle(step.negative)
        else:
            self.weights, self.wide = word_weights(step.negative, self.outputs)
            self.middle = middles(step.negative, 1, self.outputs)
        self.scale = vector(2 * step.scale, self.outputs)
        self.shift, self.slope = vector(step.shift, self.outputs), vector(step.slope, self.outputs)
        if step.shortcut is not None:
            assert step.shortcut_bias is not None
            self.shortcut = Prepared(Linear(step.shortcut, step.shortcut_bias, averaged=False), kernel)


class Weights:
    """A plan's arrays that do not change, for `kernel` "tables" or "popcount"."""

    def __init__(self, plan: Plan, kernel: str) -> None:
        self.kernel = kernel
        self.steps = [Prepared(step, kernel) for step in plan.steps]
