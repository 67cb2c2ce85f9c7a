"""The kernels of packed inference: sums of ±1 by counted bits, and the float rest. `tables` holds the other way to sum.

A *map* is an activation twice: floats (H, W, C') with C' = C rounded up to 16, and sign words (H + 2, W + 2, D), D
words of 64 channels a pixel, a set bit where the value is negative, with a border of clear bits.
A binary sum over n products is n - 2 d, d the number of bits in which signs and weights differ. `middle` (places, O)
holds n / 2 plus the border's own differing bits, where places are the ways in which a window can hang over the border;
so (n - 2 d) = 2 (middle - d) is exact for zero padding too.
"""

import numpy as np
from llvmlite import ir
from numba import types

from .lanes import F32, FLOATS, HOST, I32, I64, INTS, WORDS, Emitter, emitted

# A tile is a block of registers: so many pixels times so many vectors of outputs (16 floats, or 8 words).
NARROW_TILE = (14, 1) if HOST.wide else (6, 1)
WIDE_TILE = (4, 4) if HOST.wide else (4, 1)
SINGLE_TILE = (1, 4)  # for one row of a matrix
NARROW_COUNT = (8, 2) if HOST.wide else (2, 2)
WIDE_COUNT = (5, 4) if HOST.wide else (2, 2)


def aligned(size: int, dtype: type[np.generic] = np.uint8, fill: int = 0) -> np.ndarray:
    """(size,) numbers that begin at a multiple of 64 bytes, with 64 bytes of slack behind them."""
    raw = np.full(size * np.dtype(dtype).itemsize + 128, fill, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * np.dtype(dtype).itemsize].view(dtype)


def float_tile(pixels: int, vectors: int):
    """target[p] = prelu(bias + sum over rows and products of source[p] weights) for a tile, and its sign bits.

    table: three int64 a pixel, the places in source, target and words, in bytes; words 0: no bits.
    """

    def emit(e: Emitter, source, table, rows, row_bytes, products, weights, bias, slope, target, words):
        outputs = range(vectors)
        places = [e.load(I64, table, 24 * p) for p in range(pixels)]
        sums = [e.variables(FLOATS, vectors) for _ in range(pixels)]
        for p in range(pixels):
            for v in outputs:
                e.builder.store(e.load(FLOATS, bias, 64 * v), sums[p][v])
        with e.repeat(rows) as row:
            start = e.sum(source, e.builder.mul(row.index, row_bytes))
            kernel = e.sum(weights, e.times(e.builder.mul(row.index, products), 64 * vectors))
            addresses = [e.sum(start, place) for place in places]
            with e.repeat(products) as product:
                factors = [
                    e.load(FLOATS, kernel, e.sum(e.times(product.index, 64 * vectors), I64(64 * v))) for v in outputs
                ]
                for p in range(pixels):
                    value = e.splat(e.load(F32, addresses[p], e.times(product.index, 4)), 16)
                    for v in outputs:
                        e.builder.store(e.fma(value, factors[v], e.builder.load(sums[p][v])), sums[p][v])
        with_bits = e.builder.icmp_unsigned("!=", words, I64(0))
        for p in range(pixels):
            at = e.sum(target, e.load(I64, table, 24 * p + 8))
            bits = e.sum(words, e.load(I64, table, 24 * p + 16))
            for v in outputs:
                z = e.prelu(e.builder.load(sums[p][v]), e.load(FLOATS, slope, 64 * v))
                e.store(z, at, 64 * v)
                with e.builder.if_then(with_bits):
                    e.store(e.signs(z), bits, 2 * v, align=2)

    return emitted(10)(emit)


def finish(e: Emitter, differing, middle, scale, shift):
    """scale 2 (middle - differing) + shift of 16 outputs; the factor 2 is in the scale."""
    sums = e.builder.sub(e.load(INTS, middle), differing)
    return e.fma(e.load(FLOATS, scale), e.builder.sitofp(sums, FLOATS), e.load(FLOATS, shift))


def finish_block(e: Emitter, z, slope, shortcut, target, words) -> None:
    """target = prelu(z + shortcut), and its sign bits."""
    z = e.prelu(e.builder.fadd(z, e.load(FLOATS, shortcut)), e.load(FLOATS, slope))
    e.store(z, target)
    e.store(e.signs(z), words, align=2)


def count_tile(pixels: int, vectors: int, block: bool):
    """A tile of binary sums by counted bits, 8 `vectors` outputs, with the epilogue of a block (BN, shortcut, PReLU,
    sign bits) or of a layer (scale and shift).

    table: four int64 a pixel, the places in source, target and words in bytes, and the window's row of `middle`.
    """

    def emit(e: Emitter, *values):
        source, table, rows, row_bytes, count, weights, middle, middle_bytes, *rest = values
        scale, shift, slope, shortcut, target, words = rest
        places = [e.load(I64, table, 32 * p) for p in range(pixels)]
        zero = ir.Constant(WORDS, [0] * 8)
        sums = [e.variables(WORDS, vectors) for _ in range(pixels)]
        for p in range(pixels):
            for v in range(vectors):
                e.builder.store(zero, sums[p][v])
        with e.repeat(rows) as row:
            start = e.sum(source, e.builder.mul(row.index, row_bytes))
            kernel = e.sum(weights, e.times(e.builder.mul(row.index, count), 64 * vectors))
            addresses = [e.sum(start, place) for place in places]
            with e.repeat(count) as word:
                at = e.sum(kernel, e.times(word.index, 64 * vectors))
                factors = [e.load(WORDS, at, 64 * v, align=8) for v in range(vectors)]
                for p in range(pixels):
                    bits = e.splat(e.load(I64, addresses[p], e.times(word.index, 8), align=8), 8)
                    for v in range(vectors):
                        differing = e.bit_counts(e.builder.xor(bits, factors[v]))
                        e.builder.store(e.builder.add(differing, e.builder.load(sums[p][v])), sums[p][v])
        half = ir.VectorType(I32, 8)
        for p in range(pixels):
            x = e.load(I64, table, 32 * p + 8)
            bits = e.sum(words, e.load(I64, table, 32 * p + 16))
            middle_row = e.sum(middle, e.builder.mul(e.load(I64, table, 32 * p + 24), middle_bytes))
            for v in range(0, vectors, 2):
                low, high = (e.builder.trunc(e.builder.load(sums[p][v + i]), half) for i in range(2))
                offset = I64(32 * v)
                at = [e.sum(address, offset) for address in (middle_row, scale, shift)]
                z = finish(e, e.concatenated(low, high), *at)
                to = e.sum(target, x, offset)
                if block:
                    finish_block(e, z, e.sum(slope, offset), e.sum(shortcut, x, offset), to, e.sum(bits, I64(v)))
                else:
                    e.store(z, to)

    return emitted(14)(emit)


@emitted(4)
def store_largest(e: Emitter, first, second, third, target):
    """The largest of 16 floats at three places."""
    e.store(e.larger(e.larger(e.load(FLOATS, first), e.load(FLOATS, second)), e.load(FLOATS, third)), target)


@emitted(5)
def store_pooled(e: Emitter, first, second, third, target, words):
    """The largest of 16 floats at three places, and its sign bits."""
    largest = e.larger(e.larger(e.load(FLOATS, first), e.load(FLOATS, second)), e.load(FLOATS, third))
    e.store(largest, target)
    e.store(e.signs(largest), words, align=2)


@emitted(2, result=types.int64)
def store_signs(e: Emitter, source, words):
    """The sign bits of 16 floats; a number other than 0 where NaN is among them."""
    values = e.load(FLOATS, source)
    e.store(e.signs(values), words, align=2)
    return e.unordered(values, values)


@emitted(5)
def store_quarter(e: Emitter, a, b, c, d, target):
    """A quarter of the sum of 16 floats at four places."""
    first = e.builder.fadd(e.load(FLOATS, a), e.load(FLOATS, b))
    second = e.builder.fadd(e.load(FLOATS, c), e.load(FLOATS, d))
    e.store(e.builder.fmul(e.builder.fadd(first, second), ir.Constant(FLOATS, [0.25] * 16)), target)


@emitted(4)
def store_mean(e: Emitter, source, step, count, target):
    """The mean of `count` times 16 floats, `step` bytes apart."""
    (total,) = e.variables(FLOATS, 1)
    e.builder.store(ir.Constant(FLOATS, [0.0] * 16), total)
    with e.repeat(count) as loop:
        value = e.load(FLOATS, source, e.builder.mul(loop.index, step))
        e.builder.store(e.builder.fadd(e.builder.load(total), value), total)
    number = e.splat(e.builder.sitofp(count, F32), 16)
    e.store(e.builder.fdiv(e.builder.load(total), number), target)


@emitted(2, result=types.int64)
def copy_float(e: Emitter, source, target):
    """A float; 1 where it is not finite."""
    value = e.load(F32, source)
    e.store(value, target)
    nothing = e.builder.fsub(value, value)
    return e.builder.zext(e.builder.fcmp_unordered("uno", nothing, nothing), I64)


@emitted(2)
def copy_floats(e: Emitter, source, target):
    """16 floats."""
    e.store(e.load(FLOATS, source), target)


@emitted(2)
def copy_word(e: Emitter, source, target):
    """A word of sign bits."""
    e.store(e.load(I64, source, align=8), target, align=8)


@emitted(1, result=types.int64)
def load_int(e: Emitter, source):
    """An int64."""
    return e.load(I64, source, align=8)


@emitted(4, result=types.int64)
def interleave(e: Emitter, red, green, blue, target):
    """16 floats of three planes -> 16 pixels of 3; a number other than 0 where one is not finite."""
    lanes = ir.VectorType(I32, 16)
    first, second, third = (e.load(FLOATS, plane) for plane in (red, green, blue))
    two = e.concatenated(first, second)
    all_three = e.concatenated(two, e.concatenated(third, third))
    for i in range(3):
        order = [16 * (k % 3) + k // 3 for k in range(16 * i, 16 * i + 16)]
        undefined = ir.Constant(all_three.type, ir.Undefined)
        e.store(e.builder.shuffle_vector(all_three, undefined, ir.Constant(lanes, order)), target, 64 * i)
    red, green, blue = (e.builder.fsub(values, values) for values in (first, second, third))
    return e.builder.or_(e.unordered(red, green), e.unordered(blue, blue))


@emitted(4)
def winograd_input(e: Emitter, source, matrix, target, step):
    """One tile of a row, 14 pixels of 3: matrix (7, 7, 8) times its 7 pairs of pixels (6 floats) -> 7 points of 6
    floats, `step` bytes apart. Reads and writes two floats more each."""
    short = ir.VectorType(F32, 8)
    pairs = [e.load(short, source, 24 * j) for j in range(7)]
    for point in range(7):
        total = None
        for j, pair in enumerate(pairs):
            factor = e.load(short, matrix, 32 * (7 * point + j))
            total = (
                e.builder.fmul(factor, pair) if total is None else e.call("llvm.fma.v8f32", short, factor, pair, total)
            )
        e.store(total, e.sum(target, e.builder.mul(step, I64(point))))


@emitted(6)
def winograd_output(e: Emitter, points, step, bias, slope, target, pixel_bytes):
    """16 outputs at 7 points, `step` bytes apart -> prelu(sums + bias) at 4 pixels."""
    b = e.builder
    m = [e.load(FLOATS, points, b.mul(step, I64(point))) for point in range(7)]
    start, negative = e.load(FLOATS, bias), e.load(FLOATS, slope)
    even1, odd1, even2, odd2 = b.fadd(m[1], m[2]), b.fsub(m[1], m[2]), b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    for i in range(4):
        ones, twos = (even1, even2) if i % 2 == 0 else (odd1, odd2)
        total = b.fadd(ones, start)
        total = e.fma(ir.Constant(FLOATS, [float(2**i)] * 16), twos, total)
        total = e.fma(ir.Constant(FLOATS, [0.5**i] * 16), m[6], total)
        if i == 0:
            total = b.fadd(total, m[0])
        if i == 3:
            total = b.fadd(total, m[5])
        e.store(e.prelu(total, negative), target, b.mul(pixel_bytes, I64(i)))


float_narrow, float_wide, float_single = float_tile(*NARROW_TILE), float_tile(*WIDE_TILE), float_tile(*SINGLE_TILE)
count_narrow, count_wide = (count_tile(*tile, block=True) for tile in (NARROW_COUNT, WIDE_COUNT))
sums_narrow, sums_wide = (count_tile(*tile, block=False) for tile in (NARROW_COUNT, WIDE_COUNT))
