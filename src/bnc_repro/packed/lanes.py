"""Vectors for numba: what the kernels need of LLVM, written so that LLVM chooses the instructions.

A kernel's innermost part is *emitted*: Python lists of LLVM values stand for a block of registers, so one text serves
every block size. Addresses are int64. `HOST` says what the processor has; only `table_lookup` names an instruction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, INTS = ir.VectorType(F32, 16), ir.VectorType(I32, 16)
WORDS, HALVES = ir.VectorType(I64, 8), ir.VectorType(I16, 16)
BYTES = ir.VectorType(I8, 32)


@dataclass(frozen=True)
class Host:
    """What the kernels choose by."""

    name: str
    avx2: bool
    wide: bool  # registers of 512 bits, 32 of them
    counts_bits: bool  # an instruction that counts the bits of eight words at once


def _host() -> Host:
    """The processor that numba compiles for: this one, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say."""
    features = {feature for feature, present in llvm.get_host_cpu_features().items() if present}
    wanted, name = getattr(config, "CPU_FEATURES", None), getattr(config, "CPU_NAME", None)
    if wanted is not None:
        features = {feature[1:] for feature in wanted.split(",") if feature.startswith("+")}
    wide = {"avx512f", "avx512vl"} <= features
    return Host(name or llvm.get_host_cpu_name(), "avx2" in features, wide, wide and "avx512vpopcntdq" in features)


HOST = _host()


class Emitter:
    """The few operations that kernels are made of, on LLVM values."""

    def __init__(self, builder) -> None:
        self.builder = builder

    def load(self, type_, address, offset=0, align: int = 4):
        """A value of `type_` at address + offset; offset is a number or an i64."""
        return self.builder.load(self._pointer(type_, address, offset), align=align)

    def store(self, value, address, offset=0, align: int = 4) -> None:
        self.builder.store(value, self._pointer(value.type, address, offset), align=align)

    def _pointer(self, type_, address, offset):
        if not (isinstance(offset, int) and offset == 0):
            address = self.builder.add(address, I64(offset) if isinstance(offset, int) else offset)
        return self.builder.inttoptr(address, type_.as_pointer())

    def splat(self, value, count: int):
        """`value` in each of `count` lanes."""
        first = self.builder.insert_element(ir.Constant(ir.VectorType(value.type, count), ir.Undefined), value, I32(0))
        return self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, count), [0] * count))

    def call(self, name: str, result, *values):
        """LLVM's function `name`."""
        function_type = ir.FunctionType(result, [value.type for value in values])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function_type, name), values)

    def fma(self, a, b, c):
        """a b + c, rounded once."""
        return self.call("llvm.fma.v16f32", FLOATS, a, b, c)

    def bit_counts(self, words):
        """Set bits of each 64-bit word."""
        return self.call("llvm.ctpop.v8i64", WORDS, words)

    def table_lookup(self, table, index):
        """table[index] in each half of 32 bytes; index below 16. AVX2's vpshufb."""
        return self.call("llvm.x86.avx2.pshuf.b", BYTES, table, index)

    def concatenated(self, low, high):
        """The lanes of `low`, then those of `high`."""
        count = low.type.count + high.type.count
        return self.builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, count), list(range(count))))

    def prelu(self, z, slope):
        """z where z >= 0, else slope z."""
        negative = self.builder.fcmp_ordered("<", z, ir.Constant(FLOATS, [0.0] * 16))
        return self.builder.select(negative, self.builder.fmul(z, slope), z)

    def larger(self, a, b):
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def signs(self, z):
        """16 bits: which lanes are below 0. -0 is not."""
        negative = self.builder.fcmp_ordered("<", z, ir.Constant(FLOATS, [0.0] * 16))
        return self.builder.bitcast(negative, I16)

    def unordered(self, a, b):
        """16 bits in an i64: in which lanes one of both is NaN."""
        return self.builder.zext(self.builder.bitcast(self.builder.fcmp_unordered("uno", a, b), I16), I64)

    def variables(self, type_, count: int) -> list:
        """So many variables; LLVM keeps them in registers."""
        return [cgutils.alloca_once(self.builder, type_) for _ in range(count)]

    def repeat(self, count):
        """A loop: `with emitter.repeat(n) as loop:`, loop.index an i64."""
        return cgutils.for_range(self.builder, count, intp=I64)

    def sum(self, *values):
        return reduce(self.builder.add, values)

    def times(self, value, factor: int):
        return self.builder.mul(value, I64(factor))


def emitted(count: int, result: types.Type = types.none) -> Callable[[Callable], Any]:
    """A function of `count` int64 for numba code out of `emit(emitter, *values)`, which writes its instructions."""

    def decorate(emit):
        def codegen(context, builder, signature, values):
            value = emit(Emitter(builder), *values)
            return context.get_dummy_value() if value is None else value

        # An intrinsic's parameters are read from its signature, so it is written out with as many as it has.
        names = ", ".join(f"a{i}" for i in range(count))
        scope = {"codegen": codegen, "result": result, "types": types, "count": count}
        text = f"def {emit.__name__}(typingctx, {names}):\n    return result(*[types.int64] * count), codegen\n"
        exec(text, scope)
        return intrinsic(scope[emit.__name__])

    return decorate
