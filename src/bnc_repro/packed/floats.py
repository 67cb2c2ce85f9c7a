"""The float part of a packed network: the image, the stem, products, and means of windows."""

from .compiling import jit
from .kernels import (
    NARROW_TILE,
    SINGLE_TILE,
    WIDE_TILE,
    copy_float,
    copy_floats,
    float_narrow,
    float_single,
    float_wide,
    interleave,
    store_largest,
    store_pooled,
    store_quarter,
    winograd_input,
    winograd_output,
)

STEM_ROWS = 8  # so many rows of the stem from transformed ones that are held at a time
_NARROW, _WIDE, _SINGLE = 16 * NARROW_TILE[1], 16 * WIDE_TILE[1], 16 * SINGLE_TILE[1]
_WIDE_PIXELS, _NARROW_PIXELS = WIDE_TILE[0], NARROW_TILE[0]


@jit
def image(source, target, channels, height, width, row_bytes):
    """(channels, height, width) floats -> pixels of `channels` floats, rows `row_bytes` apart; a number other than 0
    where one is not finite."""
    plane = height * width * 4
    nan = 0
    for y in range(height):
        at, to = source + y * width * 4, target + y * row_bytes
        first = 0
        if channels == 3:
            while first + 16 <= width:
                nan |= interleave(at + 4 * first, at + plane + 4 * first, at + 2 * plane + 4 * first, to + 12 * first)
                first += 16
        for x in range(first, width):
            for c in range(channels):
                nan |= copy_float(at + c * plane + 4 * x, to + 4 * (x * channels + c))
    return nan


@jit
def float_product(source, table, tiles, rows, row_bytes, products, weights, bias, slope, outputs, target, words, wide):
    """A convolution with bias and PReLU: see `kernels.float_tile`; weights (outputs / block, rows, products, block).

    wide: 1 for wide tiles, 0 for narrow ones, 2 for one pixel alone.
    """
    if wide == 2:
        for block in range(outputs // _SINGLE):
            o = block * _SINGLE
            float_single(
                source, table, rows, row_bytes, products,
                weights + o * rows * products * 4, bias + 4 * o, slope + 4 * o, target + 4 * o, 0,
            )  # fmt: skip
    elif wide:
        for block in range(outputs // _WIDE):
            o = block * _WIDE
            bits = words + o // 8 if words else 0
            kernel = weights + o * rows * products * 4
            for t in range(tiles):
                float_wide(
                    source, table + t * _WIDE_PIXELS * 24, rows, row_bytes, products,
                    kernel, bias + 4 * o, slope + 4 * o, target + 4 * o, bits,
                )  # fmt: skip
    else:
        for block in range(outputs // _NARROW):
            o = block * _NARROW
            bits = words + o // 8 if words else 0
            kernel = weights + o * rows * products * 4
            for t in range(tiles):
                float_narrow(
                    source, table + t * _NARROW_PIXELS * 24, rows, row_bytes, products,
                    kernel, bias + 4 * o, slope + 4 * o, target + 4 * o, bits,
                )  # fmt: skip


@jit
def winograd(source, table, tiles, tiles_a_row, weights, bias, slope, outputs, sums, target, wide):
    """A row of a 7x7/2 convolution of 3 channels, 4 pixels a tile, from its seven transformed input rows.

    weights: 7 points of (outputs / block, 7, 6, block), 3 in place of 6 at the last, then `outputs` zeros and ones.
    """
    step = tiles_a_row * 24 + 8
    zeros = weights + (6 * 42 + 21) * outputs * 4
    for point in range(7):
        float_product(
            source + point * step, table, tiles, 7, 7 * step, 6 if point < 6 else 3, weights + point * outputs * 42 * 4,
            zeros, zeros + 4 * outputs, outputs, sums + point * (tiles_a_row + 1) * outputs * 4, 0, wide,
        )  # fmt: skip
    for t in range(tiles_a_row):
        for o in range(0, outputs * 4, 64):
            winograd_output(
                sums + t * outputs * 4 + o, (tiles_a_row + 1) * outputs * 4, bias + o, slope + o,
                target + 4 * t * outputs * 4 + o, outputs * 4,
            )  # fmt: skip


@jit
def stem_pool(
    source, table, tiles, rows, row_bytes, products, weights, bias, slope, outputs, wide, stride,
    height, width, target, words, word_bytes, ring, matrix, points,
):  # fmt: skip
    """The float stem, rows of (width + 1, outputs) in a ring of three, and the 3x3/2 maximum of them: map of half the
    size. The pixel more is for tiles that are not full. With a `matrix` the rows are made by Winograd's filtering.

    A window that hangs over the border is cut: its rows and columns are clamped, which repeats what it has.
    """
    tiles_a_row = (width + 3) // 4
    length = (max(width, 4 * tiles_a_row) + 1) * outputs * 4
    sums = points
    step = tiles_a_row * 24 + 8  # a tile writes two floats more
    transformed = 7 * step
    if matrix:
        sums = points + (2 * STEM_ROWS + 5) * transformed + 64
    columns = ring + 3 * length
    ready = 0
    half = (width - 1) // 2 + 1
    for q in range((height - 1) // 2 + 1):
        last = min(2 * q + 1, height - 1)
        while ready <= last:
            to = ring + (ready % 3) * length
            if matrix:
                row = ready % STEM_ROWS
                if row == 0:
                    held = 0
                    if ready:  # windows overlap by five rows
                        held = 5
                        for i in range(0, 5 * transformed, 64):
                            copy_floats(points + 2 * STEM_ROWS * transformed + i, points + i)
                    for y in range(held, min(2 * STEM_ROWS, 2 * (height - ready)) + 5):
                        at = source + (2 * ready + y) * row_bytes
                        for t in range(tiles_a_row):
                            winograd_input(at + 96 * t, matrix, points + y * transformed + 24 * t, step)
                start = points + 2 * row * transformed
                winograd(start, table, tiles, tiles_a_row, weights, bias, slope, outputs, sums, to, wide)
            else:
                at = source + ready * stride * row_bytes
                float_product(at, table, tiles, rows, row_bytes, products, weights, bias, slope, outputs, to, 0, wide)
            ready += 1
        above, middle, below = max(2 * q - 1, 0) % 3 * length, (2 * q) % 3 * length, last % 3 * length
        for i in range(0, length, 64):
            store_largest(ring + above + i, ring + middle + i, ring + below + i, columns + i)
        for x in range(half):
            left, right = max(2 * x - 1, 0), min(2 * x + 1, width - 1)
            for o in range(0, outputs * 4, 64):
                at = columns + o
                store_pooled(
                    at + left * outputs * 4, at + 2 * x * outputs * 4, at + right * outputs * 4,
                    target + (q * half + x) * outputs * 4 + o,
                    words + ((q + 1) * (half + 2) + x + 1) * word_bytes + o // 32,
                )  # fmt: skip


@jit
def quarter(source, target, height, width, pixel_bytes):
    """The 2x2 mean, a window at the border that of what it has: (height, width) -> half of both, rounded up."""
    half = (width + 1) // 2
    for y in range((height + 1) // 2):
        for x in range(half):
            a = source + (2 * y * width + 2 * x) * pixel_bytes
            right = pixel_bytes if 2 * x + 1 < width else 0
            down = width * pixel_bytes if 2 * y + 1 < height else 0
            to = target + (y * half + x) * pixel_bytes
            for o in range(0, pixel_bytes, 64):
                store_quarter(a + o, a + right + o, a + down + o, a + down + right + o, to + o)
