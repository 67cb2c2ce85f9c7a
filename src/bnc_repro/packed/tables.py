"""Sums of ±1 by tables, for AVX2.

The signs of 4 channels choose a table of 16 bytes, "differing bits against each of 16 weights", and one lookup serves
32 outputs. A seventeenth table, 2 everywhere, is zero padding. A byte holds two pixels' counts, p + 16 q, so 17 x 17
tables; three lookups fit a nibble. Source: the tables are T-MAC's idea (2407.00088) with constant tables; the rest is
ours.
"""

from functools import cache

import numpy as np
from llvmlite import ir

from .kernels import aligned, finish, finish_block
from .lanes import BYTES, HALVES, I8, I16, I32, I64, INTS, Emitter, emitted

LOOKUP_OUTPUTS = 64
CHUNK = 16  # so many triples of lookups until bytes would overflow
TABLES = 289 * 16


@cache
def lookup_tables() -> np.ndarray:
    """(289 * 16,) bytes: for two pixels' codes c and d, at (c + 17 d) 16, the counts against 16 weights as p + 16 q."""
    nibbles = np.arange(16)
    differ = np.bitwise_count(nibbles[:, None] ^ nibbles).astype(np.uint8)
    differ = np.concatenate((differ, np.full((1, 16), 2, np.uint8)))
    tables = aligned(TABLES)
    tables[:] = (differ[None, :] + 16 * differ[:, None]).ravel()
    return tables


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


def _lookup_finish(block: bool):
    """The epilogue of a block, or scale and shift of a layer, for one pixel and 64 outputs, from int16 (64,) at counts,
    which are cleared."""

    def emit(e: Emitter, counts, middle, scale, shift, slope, shortcut, target, words):
        for i in range(4):
            differing = e.builder.zext(e.load(HALVES, counts, 32 * i, align=32), INTS)
            offset = I64(64 * i)
            places = [e.sum(address, offset) for address in (middle, scale, shift, slope, shortcut, target)]
            z = finish(e, differing, places[0], places[1], places[2])
            if block:
                finish_block(e, z, places[3], places[4], places[5], e.sum(words, I64(2 * i)))
            else:
                e.store(z, places[5])
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


lookup_chunk = _lookup_chunk()
lookup_block, lookup_sums = _lookup_finish(block=True), _lookup_finish(block=False)
