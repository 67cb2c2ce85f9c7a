"""A packed network as one compiled call: a table of operations, a row each, with the addresses that they need."""

from pathlib import Path

from .compiling import STAMP, jit
from .floats import float_product, image, quarter, stem_pool
from .kernels import (
    NARROW_COUNT,
    WIDE_COUNT,
    copy_float,
    copy_floats,
    copy_word,
    count_narrow,
    count_wide,
    load_int,
    store_mean,
    store_signs,
    sums_narrow,
    sums_wide,
)
from .tables import (
    CHUNK,
    LOOKUP_OUTPUTS,
    lookup_block,
    lookup_chunk,
    lookup_sums,
    pair_codes,
    spread_codes,
    store_border,
)

IMAGE, FLOAT, STEM_POOL, QUARTER, COUNT, CODES, LOOKUP = range(7)
UPSAMPLE, UPSAMPLE_WORDS, MEAN, OUTPUT = range(7, 11)
SIGNS, COUNT_SUMS, LOOKUP_SUMS = range(11, 14)  # of a layer alone, from x and to y
COLUMNS = 21
_FEW, _MANY = 8 * NARROW_COUNT[1], 8 * WIDE_COUNT[1]
_MANY_PIXELS, _FEW_PIXELS = WIDE_COUNT[0], NARROW_COUNT[0]


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
    row = (width + 2) * nibbles
    for y in range(height + 2):
        if 0 < y <= height:
            first = y * (width + 2) + 1
            for pixel in range(first, first + width):
                for d in range(0, nibbles, 16):
                    spread_codes(words + pixel * words_a_pixel * 8 + d // 2, target + pixel * nibbles + d)
            store_border(target + (first + width) * nibbles)  # a last word's unused nibbles end here
        for i in range(y * row, (y + 1) * row, 16):
            pair_codes(target + i, target + i + step, pairs + 2 * i)
    if down:
        for i in range(0, (height + 2) * row, 16):
            pair_codes(target + i, target + i + down, pairs_down + 2 * i)


@jit
def lookup(
    tables, pairs, table, tiles, row_bytes, triples, weights, middle, scale, shift, slope, outputs, shortcut,
    target, words, counts, block,
):  # fmt: skip
    """A binary 3x3 convolution by tables: see `tables`. weights (outputs / 64, 9 triples, 64) bytes.

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
                if block:
                    lookup_block(
                        counts + 128 * i, middle + f, scale + f, shift + f, slope + f, shortcut + x + f, target + x + f,
                        bits,
                    )  # fmt: skip
                else:
                    lookup_sums(
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
    """The sign bits of (height, width, outputs) floats, into words with a border; a number other than 0 where NaN is
    among them."""
    nan = 0
    for y in range(height):
        for x in range(width):
            at = source + (y * width + x) * outputs * 4
            to = words + ((y + 1) * (width + 2) + x + 1) * words_a_pixel * 8
            for o in range(0, outputs, 16):
                nan |= store_signs(at + 4 * o, to + o // 8)
    return nan


@jit
def run(operations, x, y):
    """Each operation in turn; x and y are the addresses of an image and of its output. A number other than 0 where the
    image is not finite, or a layer's input holds NaN."""
    nan = 0
    for row in operations:
        kind = row[0]
        a, b, c, d = row[1], row[2], row[3], row[4]
        e, f, g, h = row[5], row[6], row[7], row[8]
        i, j, k, l = row[9], row[10], row[11], row[12]  # noqa: E741
        m, n, o, p = row[13], row[14], row[15], row[16]
        if kind == IMAGE:
            nan = image(x, a, b, c, d, e)
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
            lookup(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, True)
        elif kind == UPSAMPLE:
            upsample(a, b, c, d, e)
        elif kind == UPSAMPLE_WORDS:
            upsample_words(a, b, c, d, e)
        elif kind == MEAN:
            mean(a, b, c, d)
        elif kind == OUTPUT:
            output(a, y, b, c, d)
        elif kind == SIGNS:
            nan = signs(x, a, b, c, d, e)
        elif kind == COUNT_SUMS:
            count(a, b, c, d, e, f, g, h, i, j, 0, k, 0, y, 0, l, False)
        elif kind == LOOKUP_SUMS:
            lookup(a, b, c, d, e, f, g, h, i, j, 0, k, 0, y, 0, l, False)
    return nan


def kept_on_disk() -> bool:
    """Whether an earlier process compiled `run` for this machine, and numba kept it."""
    folder = run._cache.cache_path  # numba says no other way where it keeps a function
    return any(Path(folder).glob(f"*{STAMP}*"))
