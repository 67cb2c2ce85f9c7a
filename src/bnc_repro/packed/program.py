"""A packed network as one compiled call: a table of operations, a row each, with the addresses that they need."""

from pathlib import Path

from .compiling import STAMP, jit
from .kernels import (
    CHUNK,
    LOOKUP_OUTPUTS,
    NARROW_COUNT,
    NARROW_TILE,
    SINGLE_TILE,
    WIDE_COUNT,
    WIDE_TILE,
    copy_float,
    copy_floats,
    copy_word,
    count_narrow,
    count_wide,
    float_narrow,
    float_single,
    float_wide,
    interleave,
    load_int,
    lookup_chunk,
    lookup_finish,
    pair_codes,
    spread_codes,
    store_border,
    store_larger,
    store_mean,
    store_quarter,
    store_signs,
    sums_narrow,
    sums_wide,
    winograd_input,
    winograd_output,
)

IMAGE, FLOAT, STEM_POOL, QUARTER, COUNT, CODES, LOOKUP = range(7)
UPSAMPLE, UPSAMPLE_WORDS, MEAN, OUTPUT = range(7, 11)
COLUMNS = 21
_NARROW, _WIDE, _SINGLE = 16 * NARROW_TILE[1], 16 * WIDE_TILE[1], 16 * SINGLE_TILE[1]
_FEW, _MANY = 8 * NARROW_COUNT[1], 8 * WIDE_COUNT[1]
_WIDE_PIXELS, _NARROW_PIXELS = WIDE_TILE[0], NARROW_TILE[0]
_MANY_PIXELS, _FEW_PIXELS = WIDE_COUNT[0], NARROW_COUNT[0]


@jit
def image(source, target, channels, height, width, row_bytes):
    """(channels, height, width) floats -> pixels of `channels` floats, rows `row_bytes` apart."""
    plane = height * width * 4
    for y in range(height):
        at, to = source + y * width * 4, target + y * row_bytes
        first = 0
        if channels == 3:
            while first + 16 <= width:
                interleave(at + 4 * first, at + plane + 4 * first, at + 2 * plane + 4 * first, to + 12 * first)
                first += 16
        for x in range(first, width):
            for c in range(channels):
                copy_float(at + c * plane + 4 * x, to + 4 * (x * channels + c))


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
    if matrix:
        step = tiles_a_row * 24 + 8  # a tile writes two floats more
        transformed = 7 * step
        for y in range(2 * height + 5):
            for t in range(tiles_a_row):
                winograd_input(source + y * row_bytes + 96 * t, matrix, points + y * transformed + 24 * t, step)
        sums = points + (2 * height + 5) * transformed + 64
    columns = ring + 3 * length
    ready = 0
    half = (width - 1) // 2 + 1
    for q in range((height - 1) // 2 + 1):
        last = min(2 * q + 1, height - 1)
        while ready <= last:
            to = ring + (ready % 3) * length
            if matrix:
                start = points + 2 * ready * transformed
                winograd(start, table, tiles, tiles_a_row, weights, bias, slope, outputs, sums, to, wide)
            else:
                at = source + ready * stride * row_bytes
                float_product(at, table, tiles, rows, row_bytes, products, weights, bias, slope, outputs, to, 0, wide)
            ready += 1
        above, middle, below = max(2 * q - 1, 0) % 3 * length, (2 * q) % 3 * length, last % 3 * length
        for i in range(0, length, 64):
            store_larger(ring + above + i, ring + middle + i, columns + i)
            store_larger(columns + i, ring + below + i, columns + i)
        for x in range(half):
            left, right = max(2 * x - 1, 0), min(2 * x + 1, width - 1)
            for o in range(0, outputs * 4, 64):
                to = target + (q * half + x) * outputs * 4 + o
                store_larger(columns + left * outputs * 4 + o, columns + 2 * x * outputs * 4 + o, to)
                store_larger(to, columns + right * outputs * 4 + o, to)
                store_signs(to, words + ((q + 1) * (half + 2) + x + 1) * word_bytes + o // 32)


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


@jit
def count(
    source, table, tiles, rows, row_bytes, words_a_row, weights, middle, scale, shift, slope, outputs,
    shortcut, target, words, wide, block,
):  # fmt: skip
    """A binary convolution by counted bits: see `kernels.count_tile`; weights (outputs / b, rows, words_a_row, b)."""
    many = _MANY if wide else _FEW
    for part in range(outputs // many):
        o = part * many
        kernel = weights + o * rows * words_a_row * 8
        f = 4 * o
        for t in range(tiles):
            if wide and block:
                count_wide(
                    source, table + t * _MANY_PIXELS * 32, rows, row_bytes, words_a_row, kernel, middle + f,
                    4 * outputs, scale + f, shift + f, slope + f, shortcut + f, target + f, words + o // 8,
                )  # fmt: skip
            elif wide:
                sums_wide(
                    source, table + t * _MANY_PIXELS * 32, rows, row_bytes, words_a_row, kernel, middle + f,
                    4 * outputs, scale + f, shift + f, slope + f, shortcut + f, target + f, words + o // 8,
                )  # fmt: skip
            elif block:
                count_narrow(
                    source, table + t * _FEW_PIXELS * 32, rows, row_bytes, words_a_row, kernel, middle + f,
                    4 * outputs, scale + f, shift + f, slope + f, shortcut + f, target + f, words + o // 8,
                )  # fmt: skip
            else:
                sums_narrow(
                    source, table + t * _FEW_PIXELS * 32, rows, row_bytes, words_a_row, kernel, middle + f,
                    4 * outputs, scale + f, shift + f, slope + f, shortcut + f, target + f, words + o // 8,
                )  # fmt: skip


@jit
def codes(words, target, height, width, words_a_pixel, nibbles, step, pairs, down, pairs_down):
    """Sign words (height + 2, width + 2, D) -> codes of 4 channels (..., nibbles), 8 times the nibble and 128 in the
    border, and those of pairs `step` apart; with `down` above 0 also of pairs so far apart."""
    for y in range(height):
        first = (y + 1) * (width + 2) + 1
        for pixel in range(first, first + width):
            for d in range(0, nibbles, 16):
                spread_codes(words + pixel * words_a_pixel * 8 + d // 2, target + pixel * nibbles + d)
        store_border(target + (first + width) * nibbles)  # a last word's unused nibbles end here
    for i in range(0, (height + 2) * (width + 2) * nibbles, 16):
        pair_codes(target + i, target + i + step, pairs + 2 * i)
        if down:
            pair_codes(target + i, target + i + down, pairs_down + 2 * i)


@jit
def lookup(
    tables, pairs, table, tiles, row_bytes, triples, weights, middle, scale, shift, slope, outputs, shortcut,
    target, words, counts,
):  # fmt: skip
    """A binary 3x3 convolution of a block by tables: see `kernels`. weights (outputs / 64, 9 triples, 64) bytes.

    table: ten int64 a tile, the places of two pairs, then of four pixels in target and in words.
    """
    for part in range(outputs // LOOKUP_OUTPUTS):
        o = part * LOOKUP_OUTPUTS
        f = 4 * o
        for t in range(tiles):
            tile = table + t * 80
            kernel = weights + part * triples * 9 * LOOKUP_OUTPUTS
            for row in range(3):
                first = pairs + load_int(tile) + row * row_bytes
                second = pairs + load_int(tile + 8) + row * row_bytes
                left = triples
                while left > 0:
                    n = min(left, CHUNK)
                    lookup_chunk(tables, kernel, first, second, n, counts)
                    kernel += 192 * n
                    first += 6 * n
                    second += 6 * n
                    left -= n
            for i in range(4):
                x = load_int(tile + 16 + 16 * i)
                bits = words + load_int(tile + 24 + 16 * i) + o // 8
                lookup_finish(
                    counts + 128 * i, middle + f, scale + f, shift + f, slope + f, shortcut + x + f, target + x + f,
                    bits,
                )  # fmt: skip


@jit
def upsample(source, target, height, width, pixel_bytes):
    """Each pixel of floats four times: (height, width) -> (2 height, 2 width)."""
    for y in range(2 * height):
        for x in range(2 * width):
            at = source + ((y // 2) * width + x // 2) * pixel_bytes
            to = target + (y * 2 * width + x) * pixel_bytes
            for o in range(0, pixel_bytes, 64):
                copy_floats(at + o, to + o)


@jit
def upsample_words(source, target, height, width, words_a_pixel):
    """The same of sign words with their border."""
    for y in range(2 * height):
        for x in range(2 * width):
            at = source + ((y // 2 + 1) * (width + 2) + x // 2 + 1) * words_a_pixel * 8
            to = target + ((y + 1) * (2 * width + 2) + x + 1) * words_a_pixel * 8
            for d in range(words_a_pixel):
                copy_word(at + 8 * d, to + 8 * d)


@jit
def mean(source, target, pixels, outputs):
    """The mean over all pixels."""
    for o in range(0, 4 * outputs, 64):
        store_mean(source + o, 4 * outputs, pixels, target + o)


@jit
def output(source, target, pixels, outputs, channels):
    """(pixels, outputs) floats -> (channels, pixels)."""
    for c in range(channels):
        for p in range(pixels):
            copy_float(source + 4 * (p * outputs + c), target + 4 * (c * pixels + p))


@jit
def signs(source, words, height, width, outputs, words_a_pixel):
    """The sign bits of (height, width, outputs) floats, into words with a border."""
    for y in range(height):
        for x in range(width):
            at = source + (y * width + x) * outputs * 4
            to = words + ((y + 1) * (width + 2) + x + 1) * words_a_pixel * 8
            for o in range(0, outputs, 16):
                store_signs(at + 4 * o, to + o // 8)


@jit
def run(operations, x, y):
    """Each operation in turn; x and y are the addresses of an image and of its output."""
    for row in operations:
        kind = row[0]
        a, b, c, d = row[1], row[2], row[3], row[4]
        e, f, g, h = row[5], row[6], row[7], row[8]
        i, j, k, l = row[9], row[10], row[11], row[12]  # noqa: E741
        m, n, o, p = row[13], row[14], row[15], row[16]
        if kind == IMAGE:
            image(x, a, b, c, d, e)
        elif kind == FLOAT:
            float_product(a, b, c, d, e, f, g, h, i, j, k, l, m)
        elif kind == STEM_POOL:
            stem_pool(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, row[17], row[18], row[19], row[20])
        elif kind == QUARTER:
            quarter(a, b, c, d, e)
        elif kind == COUNT:
            count(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, True)
        elif kind == CODES:
            codes(a, b, c, d, e, f, g, h, i, j)
        elif kind == LOOKUP:
            lookup(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
        elif kind == UPSAMPLE:
            upsample(a, b, c, d, e)
        elif kind == UPSAMPLE_WORDS:
            upsample_words(a, b, c, d, e)
        elif kind == MEAN:
            mean(a, b, c, d)
        elif kind == OUTPUT:
            output(a, y, b, c, d)


def kept_on_disk() -> bool:
    """Whether an earlier process compiled `run` for this machine, and numba kept it."""
    folder = run._cache.cache_path  # numba says no other way where it keeps a function
    return any(Path(folder).glob(f"*{STAMP}*"))
