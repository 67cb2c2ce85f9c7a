"""Times by step: every operation belongs to a step, binary convolutions and the float rest are told apart."""

import numpy as np
import pytest

from bnc_repro import binarize, create_network, pack
from bnc_repro.packed.arrangement import Weights
from bnc_repro.packed.buffers import Program
from bnc_repro.packed.latency import by_step
from exact import noise
from networks import BINARY

KERNELS = ("popcount", "tables")


@pytest.fixture(scope="module")
def network():
    return create_network("sbpn", num_keypoints=5, width=64, blocks=(1, 2), **BINARY).eval()


@pytest.mark.parametrize("kernel", KERNELS)
def test_operations_in_turn_are_the_whole_program(network, kernel):
    """One after the other they write what the whole program writes, and their steps do not go back."""
    packed = pack(network, (64, 48), kernel=kernel, check=False)
    program = Program(packed.plan, Weights(packed.plan, kernel))
    images = noise(1, 3, 64, 48)
    results = np.zeros((2, *program.shape), np.float32)
    program(images.data_ptr(), results[0].ctypes.data)
    for operation in range(len(program.operations)):
        program.alone(operation, images.data_ptr(), results[1].ctypes.data)
    assert np.array_equal(results[0], results[1])
    assert results[0].any()
    assert len(program.step_of) == len(program.operations)
    assert sorted(set(program.step_of)) == list(range(len(packed.plan.steps)))
    assert program.step_of == sorted(program.step_of)


@pytest.mark.parametrize("kernel", KERNELS)
def test_float_steps_have_no_bits_and_blocks_have(network, kernel):
    packed = pack(network, (64, 48), kernel=kernel, check=False)
    stem, *blocks, heatmaps = by_step(packed, network, rounds=2)
    for step in (stem, heatmaps):
        assert step.bits == 0
        assert step.floats > 0
    assert all(step.bits > 0 for step in blocks)
    shortcuts = {name.removesuffix(".shortcut.1") for name, _, why in packed.report.layers if "shortcut" in why}
    assert shortcuts
    assert all(step.floats > 0 for step in blocks if step.layer.removesuffix(".conv") in shortcuts)
    assert all(step.twin > 0 for step in (stem, *blocks, heatmaps))
    assert [stem.layer, heatmaps.layer] == ["trunk.stem.0", "heatmaps"]


def test_a_network_packed_by_layers_has_no_steps():
    from torch import nn

    own = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3))
    binarize(own, **BINARY)
    packed = pack(own.eval(), (12, 12), check=False)
    with pytest.raises(ValueError, match="layer by layer"):
        by_step(packed, own)
