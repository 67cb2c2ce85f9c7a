"""The kernels of packed inference: sums of ±1 by counted bits or by tables, and the float rest.

A *map* is an activation twice: floats (H, W, C') with C' = C rounded up to 16, and sign words (H + 2, W + 2, D), D
words of 64 channels a pixel, a set bit where the value is negative, with a border of clear bits.
A binary sum over n products is n - 2 d, d the number of bits in which signs and weights differ. `middle` (places, O)
holds n / 2 plus the border's own differing bits, where places are the ways in which a window can hang over the border;
so (n - 2 d) = 2 (middle - d) is exact for zero padding too.
Two ways to count: XOR and bit count of words, on any processor; or, for AVX2, tables: the signs of 4 channels choose a
table of 16 bytes, "differing bits against each of 16 weights", and one lookup serves 32 outputs. A seventeenth table, 2
everywhere, is zero padding. A byte holds two pixels' counts, p + 16 q, so 17 x 17 tables; three lookups fit a nibble.
Source: the tables are T-MAC's idea (2407.00088) with constant tables; the rest is ours.
"""

import numpy as np
from llvmlite import ir
from numba import types

from .lanes import BYTES, F32, FLOATS, HALVES, HOST, I8, I16, I32, I64, INTS, WORDS, Emitter, emitted

# A tile is a block of registers: so many pixels times so many vectors of outputs (16 floats, or 8 words).
NARROW_TILE = (14, 1) if HOST.wide else (6, 1)
WIDE_TILE = (4, 4) if HOST.wide else (6, 1)
SINGLE_TILE = (1, 4)  # for one row of a matrix
NARROW_COUNT = (8, 2) if HOST.wide else (2, 2)
WIDE_COUNT = (5, 4) if HOST.wide else (2, 2)
LOOKUP_OUTPUTS = 64
CHUNK = 16  # so many triples of lookups until bytes would overflow
TABLES = 289 * 16


def aligned(size: int, dtype: type[np.generic] = np.uint8, fill: int = 0) -> np.ndarray:
    """(size,) numbers that begin at a multiple of 64 bytes, with 64 bytes of slack behind them."""
    raw = np.full(size * np.dtype(dtype).itemsize + 128, fill, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * np.dtype(dtype).itemsize].view(dtype)


def lookup_tables() -> np.ndarray:
    """(289 * 16,) bytes: for two pixels' codes c and d, at (c + 17 d) 16, the counts against 16 weights as p + 16 q."""
    nibbles = np.arange(16)
    differ = np.bitwise_count(nibbles[:, None] ^ nibbles).astype(np.uint8)
    differ = np.concatenate((differ, np.full((1, 16), 2, np.uint8)))
    tables = aligned(TABLES)
    tables[:] = (differ[None, :] + 16 * differ[:, None]).ravel()
    return tables


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


def _finish(e: Emitter, differing, middle, scale, shift):
    """scale 2 (middle - differing) + shift of 16 outputs; the factor 2 is in the scale."""
    sums = e.builder.sub(e.load(INTS, middle), differing)
    return e.fma(e.load(FLOATS, scale), e.builder.sitofp(sums, FLOATS), e.load(FLOATS, shift))


def _block(e: Emitter, z, slope, shortcut, target, words) -> None:
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
                z = _finish(e, e.concatenated(low, high), *at)
                to = e.sum(target, x, offset)
                if block:
                    _block(e, z, e.sum(slope, offset), e.sum(shortcut, x, offset), to, e.sum(bits, I64(v)))
                else:
                    e.store(z, to)

    return emitted(14)(emit)


def _lookup_chunk():
    """Adds the differing bits of 3 `triples` nibbles, two pairs of pixels and 64 outputs, to int16 (4, 64)."""

    def emit(e: Emitter, tables, weights, first, second, triples, counts):
        b = e.builder
        nibble, zero = ir.Constant(BYTES, [15] * 32), ir.Constant(BYTES, [0] * 32)
        totals, highs = e.variables(BYTES, 4), e.variables(BYTES, 4)
        for variable in (*totals, *highs):
            b.store(zero, variable)
        doubled = ir.Constant(ir.VectorType(I32, 32), list(range(16)) * 2)
        with e.repeat(triples) as loop:
            partial: list = [None] * 4
            for i in range(3):
                at = e.sum(weights, e.times(loop.index, 192), I64(64 * i))
                factors = [e.load(BYTES, at, 32 * h, align=32) for h in range(2)]
                for pair, codes in enumerate((first, second)):
                    code = b.zext(e.load(I16, codes, e.sum(e.times(loop.index, 6), I64(2 * i)), align=2), I64)
                    table = e.load(ir.VectorType(I8, 16), tables, e.times(code, 2), align=16)
                    table = b.shuffle_vector(table, table, doubled)
                    for h in range(2):
                        counts_ = e.table_lookup(table, factors[h])
                        j = 2 * pair + h
                        partial[j] = counts_ if i == 0 else b.add(partial[j], counts_)
            for j in range(4):
                b.store(b.add(b.load(totals[j]), partial[j]), totals[j])
                shifted = b.bitcast(b.lshr(b.bitcast(partial[j], HALVES), ir.Constant(HALVES, [4] * 16)), BYTES)
                b.store(b.add(b.load(highs[j]), b.and_(shifted, nibble)), highs[j])
        byte = ir.Constant(HALVES, [255] * 16)
        for pair in range(2):
            for h in range(2):
                high = b.load(highs[2 * pair + h])
                sixteen = b.shl(b.bitcast(b.and_(high, nibble), HALVES), ir.Constant(HALVES, [4] * 16))
                low = b.sub(b.load(totals[2 * pair + h]), b.bitcast(sixteen, BYTES))  # modulo 256
                for pixel, values in enumerate((low, high)):
                    at = 128 * (2 * pair + pixel) + 64 * h
                    split = b.bitcast(values, HALVES)
                    for i, part in enumerate((b.and_(split, byte), b.lshr(split, ir.Constant(HALVES, [8] * 16)))):
                        e.store(
                            b.add(e.load(HALVES, counts, at + 32 * i, align=32), part), counts, at + 32 * i, align=32
                        )

    return emitted(6)(emit)


def _lookup_finish():
    """The epilogue of a block for one pixel and 64 outputs, from int16 (64,) at counts, which are cleared."""

    def emit(e: Emitter, counts, middle, scale, shift, slope, shortcut, target, words):
        for i in range(4):
            differing = e.builder.zext(e.load(HALVES, counts, 32 * i, align=32), INTS)
            offset = I64(64 * i)
            places = [e.sum(address, offset) for address in (middle, scale, shift, slope, shortcut, target)]
            z = _finish(e, differing, places[0], places[1], places[2])
            _block(e, z, places[3], places[4], places[5], e.sum(words, I64(2 * i)))
            e.store(ir.Constant(HALVES, [0] * 16), counts, 32 * i, align=32)

    return emitted(8)(emit)


@emitted(2)
def spread_codes(e: Emitter, words, codes):
    """A word of 16 nibbles -> 16 bytes, 8 times a nibble each."""
    octets = e.load(ir.VectorType(I8, 8), words, align=1)
    low = e.builder.and_(octets, ir.Constant(octets.type, [15] * 8))
    high = e.builder.lshr(octets, ir.Constant(octets.type, [4] * 8))
    order = [i for lane in range(8) for i in (lane, 8 + lane)]
    both = e.builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, 16), order))
    e.store(e.builder.shl(both, ir.Constant(both.type, [3] * 16)), codes, align=1)


@emitted(3)
def pair_codes(e: Emitter, first, second, pairs):
    """16 bytes c at first and d at second -> 16 numbers c + 17 d."""
    c, d = (e.builder.zext(e.load(ir.VectorType(I8, 16), codes, align=1), HALVES) for codes in (first, second))
    sixteen = e.builder.shl(d, ir.Constant(HALVES, [4] * 16))
    e.store(e.sum(c, d, sixteen), pairs, align=2)


@emitted(1)
def store_border(e: Emitter, codes):
    """16 codes of the border."""
    e.store(ir.Constant(ir.VectorType(I8, 16), [128] * 16), codes, align=1)


@emitted(3)
def store_larger(e: Emitter, first, second, target):
    """The larger of 16 floats each."""
    e.store(e.larger(e.load(FLOATS, first), e.load(FLOATS, second)), target)


@emitted(2)
def store_signs(e: Emitter, source, words):
    """The sign bits of 16 floats."""
    e.store(e.signs(e.load(FLOATS, source)), words, align=2)


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


@emitted(2)
def copy_float(e: Emitter, source, target):
    """A float."""
    e.store(e.load(F32, source), target)


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


@emitted(4)
def interleave(e: Emitter, red, green, blue, target):
    """16 floats of three planes -> 16 pixels of 3."""
    lanes = ir.VectorType(I32, 16)
    two = e.concatenated(e.load(FLOATS, red), e.load(FLOATS, green))
    third = e.load(FLOATS, blue)
    all_three = e.concatenated(two, e.concatenated(third, third))
    for i in range(3):
        order = [16 * (k % 3) + k // 3 for k in range(16 * i, 16 * i + 16)]
        undefined = ir.Constant(all_three.type, ir.Undefined)
        e.store(e.builder.shuffle_vector(all_three, undefined, ir.Constant(lanes, order)), target, 64 * i)


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
lookup_chunk, lookup_finish = _lookup_chunk(), _lookup_finish()
