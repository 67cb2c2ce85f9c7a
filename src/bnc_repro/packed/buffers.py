"""The maps that a plan runs on, the windows into them, and the table of operations."""

from functools import cached_property
from typing import Any

import numpy as np

from . import kernels, program
from .arrangement import Prepared, Weights, address, rounded
from .floats import STEM_ROWS
from .kernels import aligned
from .packing import BinaryBlock, Convolution, Linear, Plan, after, output_shape
from .tables import LOOKUP_OUTPUTS, lookup_tables

BINARY = (program.COUNT, program.CODES, program.LOOKUP, program.UPSAMPLE_WORDS)  # operations on bits


class Map:
    """An activation (H, W, C): floats, and sign words twice, as a convolution reads one copy and writes the other."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.height, self.width, self.channels = height, width, channels
        self.outputs, self.depth = rounded(channels), rounded(channels, 64) // 64
        self._words = [aligned(((height + 2) * (width + 2) + 1) * self.depth, np.uint64) for _ in range(2)]
        self._codes: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    @cached_property
    def floats(self) -> np.ndarray:
        """(H W + 1, outputs): a pixel more, for tiles that are not full."""
        return aligned((self.height * self.width + 1) * self.outputs, np.float32)

    @property
    def words(self) -> np.ndarray:
        """The sign words that are read; `turned` those that are written."""
        return self._words[0]

    @property
    def turned(self) -> np.ndarray:
        return self._words[1]

    def turn(self) -> None:
        """What was written is read from now on."""
        self._words.reverse()

    def codes(self, step: int, down: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes of 4 channels with border, and of pairs `step` and `down` apart."""
        if (step, down) not in self._codes:
            number = self._number + 64
            pairs = aligned(2 * number, np.uint16)
            self._codes[step, down] = aligned(number + max(step, down), fill=128), pairs[:number], pairs[number:]
        return self._codes[step, down]

    @property
    def _number(self) -> int:
        """Codes with border."""
        return (self.height + 2) * (self.width + 2) * (self.channels // 4)

    @property
    def pairs_apart(self) -> int:
        """From pairs side by side to those one below the other, in bytes."""
        return 2 * (self._number + 64)

    def pixel(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places of pixels in the floats and in the words, in bytes."""
        return (y * self.width + x) * self.outputs * 4, ((y + 1) * (self.width + 2) + x + 1) * self.depth * 8

    @property
    def nowhere(self) -> tuple[int, int]:
        """The place of a pixel that nobody reads."""
        return self.height * self.width * self.outputs * 4, (self.height + 2) * (self.width + 2) * self.depth * 8


def _tiles(columns: list[np.ndarray], nowhere: list[int], pixels: int) -> np.ndarray:
    """Columns of pixels as rows of a table, filled up to whole tiles."""
    rows = np.stack(columns, 1)
    missing = -len(rows) % pixels
    return np.ascontiguousarray(np.concatenate((rows, np.tile(nowhere, (missing, 1)))).astype(np.int64))


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.divmod(np.arange(height * width), width)
    return y, x


def windows(
    height: int, width: int, depth: int, target: Map, kernel: int, stride: int, padding: int, pixels: int
) -> np.ndarray:
    """The table of `kernels.count_tile` for words (height + 2, width + 2, depth)."""
    y, x = _grid(target.height, target.width)
    top, left = y * stride + 1 - padding, x * stride + 1 - padding
    rows, columns = ((at == 0) + 2 * (at + kernel - 1 == size + 1) for at, size in ((top, height), (left, width)))
    floats, words = target.pixel(y, x)
    source = (top * (width + 2) + left) * depth * 8
    return _tiles([source, floats, words, 4 * rows + columns], [0, *target.nowhere, 0], pixels)


def lookup_steps(source: Map, target: Map, stride: int) -> tuple[int, int, int, int]:
    """Nibbles of a pixel and of a row with border, and from a pair's first code to its second, side by side and one
    below the other (0: nowhere)."""
    nibbles = source.channels // 4
    row = (source.width + 2) * nibbles
    return nibbles, row, stride * nibbles, stride * row if target.width % 2 else 0


def pairs_table(source: Map, target: Map, stride: int) -> np.ndarray:
    """The table of `program.lookup`: pairs side by side, and one below the other in an odd last column."""
    nibbles = source.channels // 4
    row = (source.width + 2) * nibbles
    down = source.pairs_apart

    def place(y: int, x: int) -> int:
        return 2 * (y * stride * row + x * stride * nibbles)

    height, width = target.height, target.width
    pairs_of: list[tuple[int, Any, Any]] = [
        (place(y, x), (y, x), (y, x + 1)) for y in range(height) for x in range(0, width - 1, 2)
    ]
    if width % 2:
        last = width - 1
        pairs_of += [(place(y, last) + down, (y, last), (y + 1, last)) for y in range(0, height - 1, 2)]
        if height % 2:
            pairs_of.append((place(height - 1, last), (height - 1, last), None))
    if len(pairs_of) % 2:
        pairs_of.append((0, None, None))

    def goal(pixel: tuple[int, int] | None) -> tuple[int, int]:
        if pixel is None:
            return target.nowhere
        floats, words = target.pixel(np.array(pixel[0]), np.array(pixel[1]))
        return int(floats), int(words)

    rows = [
        (first[0], second[0], *goal(first[1]), *goal(first[2]), *goal(second[1]), *goal(second[2]))
        for first, second in zip(pairs_of[::2], pairs_of[1::2])
    ]
    return np.array(rows, np.int64)


def operations(rows: list[tuple]) -> np.ndarray:
    """The table that `program.run` goes through."""
    table = np.zeros((len(rows), program.COLUMNS), np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


class Program:
    """A plan's arrays for one image at a time: `program(x, y)` with the addresses of image and output, which says
    whether the image holds NaN. Not for two threads at once."""

    def __init__(self, plan: Plan, weights: Weights) -> None:
        self.kept: list = [weights]
        self._operations: list[tuple] = []
        self._maps: dict[tuple[int, int, int], Map] = {}
        self._counts = aligned(4 * LOOKUP_OUTPUTS, np.int16)
        self.step_of: list[int] = []  # of each operation
        current: Any = None
        for i, (step, prepared) in enumerate(zip(plan.steps, weights.steps)):
            if isinstance(step, Convolution):
                current = self._convolution(step, prepared, plan)
            elif isinstance(step, BinaryBlock):
                current = self._block(step, prepared, current)
            else:
                self._linear(step, prepared, current)
            self.step_of += [i] * (len(self._operations) - len(self.step_of))
        self.shape = output_shape(plan)
        self.operations = operations(self._operations)

    def __call__(self, x: int, y: int) -> bool:
        return program.run(self.operations, x, y) != 0

    def alone(self, operation: int, x: int, y: int) -> None:
        """One operation, for whoever takes its time."""
        program.run(self.operations[operation : operation + 1], x, y)

    def of_bits(self, operation: int) -> bool:
        """Whether an operation is of a binary convolution, and no float one."""
        return self.operations[operation, 0] in BINARY

    def _keep(self, array: np.ndarray) -> int:
        self.kept.append(array)
        return address(array)

    def _map(self, height: int, width: int, channels: int) -> Map:
        key = (height, width, channels)
        if key not in self._maps:
            self._maps[key] = Map(*key)
        return self._maps[key]

    def _add(self, kind: int, *values: int) -> None:
        self._operations.append((kind, *map(int, values)))

    def _convolution(self, step: Convolution, prepared: Prepared, plan: Plan) -> Map:
        (height, width), channels = plan.size, plan.channels
        kernel = step.weight.shape[2]
        row = (width + 2 * (kernel // 2)) * channels
        padded = aligned((height + 2 * (kernel // 2)) * row + 64 + 8 * channels, np.float32)
        inside = self._keep(padded) + (kernel // 2 * row + kernel // 2 * channels) * 4
        self._add(program.IMAGE, inside, channels, height, width, 4 * row)
        outputs = prepared.outputs
        high, wide = ((n + 2 * (kernel // 2) - kernel) // step.stride + 1 for n in plan.size)
        size = after(step, plan.size)
        target = self._map(*size, len(step.weight))
        arrays = [address(array) for array in (prepared.weights, prepared.bias, prepared.slope)]
        pixels = kernels.WIDE_TILE[0] if prepared.wide else kernels.NARROW_TILE[0]
        if step.pooled:
            across = -(-wide // 4)  # Winograd's tiles in a row
            x, apart = np.arange(wide), step.stride * channels * 4
            if prepared.matrix is not None:
                x, apart = np.arange(across), 24
            nowhere = [0, len(x) * outputs * 4, 0]
            table = _tiles([x * apart, x * outputs * 4, 0 * x], nowhere, pixels)
            ring, matrix, points = aligned(4 * (4 * across + 1) * outputs, np.float32), 0, 0
            if prepared.matrix is not None:
                transformed = (2 * STEM_ROWS + 5) * 7 * (across * 6 + 2) + 16
                matrix = address(prepared.matrix)
                points = self._keep(aligned(transformed + 7 * (across + 1) * outputs, np.float32))
            self._add(
                program.STEM_POOL, address(padded), self._keep(table), len(table) // pixels, kernel, 4 * row,
                kernel * channels, *arrays, outputs, prepared.wide, step.stride, high, wide, address(target.floats),
                address(target.words), target.depth * 8, self._keep(ring), matrix, points,
            )  # fmt: skip
            return target
        y, x = _grid(high, wide)
        floats, words = target.pixel(y, x)
        table = _tiles([(y * row + x * channels) * step.stride * 4, floats, words], [0, *target.nowhere], pixels)
        self._add(
            program.FLOAT, address(padded), self._keep(table), len(table) // pixels, kernel, 4 * row, kernel * channels,
            *arrays, outputs, address(target.floats), address(target.words), prepared.wide,
        )  # fmt: skip
        return target

    def _products(self, prepared: Prepared, source: np.ndarray, pixels: int, channels: int, target: int) -> None:
        """A matrix product at every pixel: (pixels, channels) -> (pixels, outputs)."""
        block = (kernels.NARROW_TILE, kernels.WIDE_TILE, kernels.SINGLE_TILE)[prepared.wide][0]
        p = np.arange(pixels)
        nowhere = [0, pixels * prepared.outputs * 4, 0]
        table = _tiles([p * channels * 4, p * prepared.outputs * 4, 0 * p], nowhere, block)
        arrays = [address(array) for array in (prepared.weights, prepared.bias, prepared.slope)]
        self._add(
            program.FLOAT, address(source), self._keep(table), len(table) // block, 1, 0, channels, *arrays,
            prepared.outputs, target, 0, prepared.wide,
        )  # fmt: skip

    def _block(self, step: BinaryBlock, prepared: Prepared, source: Map) -> Map:
        channels = len(step.negative)
        height, width = after(step, (source.height, source.width))
        target = self._map(height, width, channels)
        shortcut = source.floats
        if step.shortcut is not None:
            shortcut = target.floats
            pooled, size = source.floats, (source.height, source.width)
            if step.stride == 2:
                size = tuple((n + 1) // 2 for n in size)
                pooled = aligned(size[0] * size[1] * source.outputs, np.float32)
                shape = source.height, source.width, source.outputs * 4
                self._add(program.QUARTER, address(source.floats), self._keep(pooled), *shape)
            product = target.floats
            if step.upsampled == 2:
                product = aligned((size[0] * size[1] + 1) * target.outputs, np.float32)
                self.kept.append(product)
            assert prepared.shortcut is not None
            self._products(prepared.shortcut, pooled, size[0] * size[1], source.outputs, address(product))
            if step.upsampled == 2:
                self._add(program.UPSAMPLE, address(product), address(target.floats), *size, target.outputs * 4)
        elif step.upsampled == 2:
            shortcut = target.floats
            shape = source.height, source.width, target.outputs * 4
            self._add(program.UPSAMPLE, address(source.floats), address(target.floats), *shape)
        signs = source
        if step.upsampled == 2:
            signs = self._map(2 * source.height, 2 * source.width, source.channels)
            into = signs.turned if signs is target else signs.words
            self._add(
                program.UPSAMPLE_WORDS, address(source.words), address(into), source.height, source.width, source.depth
            )  # fmt: skip
            if signs is target:
                signs.turn()
        arrays = [address(array) for array in (prepared.middle, prepared.scale, prepared.shift, prepared.slope)]
        into = target.turned if signs is target else target.words
        ends = prepared.outputs, address(shortcut), address(target.floats), address(into)
        if prepared.nibbles:
            self._lookup(step, prepared, signs, target, arrays, ends)
        else:
            pixels = kernels.WIDE_COUNT[0] if prepared.wide else kernels.NARROW_COUNT[0]
            table = windows(signs.height, signs.width, signs.depth, target, 3, step.stride, 1, pixels)
            self._add(
                program.COUNT, address(signs.words), self._keep(table), len(table) // pixels, 3,
                (signs.width + 2) * signs.depth * 8, 3 * signs.depth, address(prepared.weights), *arrays, *ends,
                prepared.wide,
            )  # fmt: skip
        if signs is target:
            target.turn()
        return target

    def _lookup(
        self, step: BinaryBlock, prepared: Prepared, signs: Map, target: Map, arrays: list, ends: tuple
    ) -> None:
        nibbles, row, across, down = lookup_steps(signs, target, step.stride)
        codes, pairs, pairs_down = signs.codes(across, down)
        self.kept += [codes, pairs, pairs_down]
        self._add(
            program.CODES, address(signs.words), address(codes), signs.height, signs.width, signs.depth, nibbles,
            across, address(pairs), down, address(pairs_down),
        )  # fmt: skip
        table = pairs_table(signs, target, step.stride)
        self._add(
            program.LOOKUP, address(lookup_tables()), address(pairs), self._keep(table), len(table), 2 * row,
            nibbles, address(prepared.weights), *arrays, *ends, address(self._counts),
        )  # fmt: skip

    def _linear(self, step: Linear, prepared: Prepared, source: Map) -> None:
        pixels, values = source.height * source.width, source.floats
        if step.averaged:
            values = aligned(source.outputs, np.float32)
            self._add(program.MEAN, address(source.floats), self._keep(values), pixels, source.outputs)
            pixels = 1
        result = aligned((pixels + 1) * prepared.outputs, np.float32)
        self._products(prepared, values, pixels, source.outputs, self._keep(result))
        self._add(program.OUTPUT, address(result), pixels, prepared.outputs, len(step.weight))
