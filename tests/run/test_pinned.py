"""The settings of pinned runs, and that a process which starts under them computes with them."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from bnc_repro.recipe.schema import PROFILES
from bnc_repro.run import pinned

x86 = pytest.mark.skipif(not pinned.environment("sample"), reason="no x86 processor with AVX2: nothing is pinned")


@x86
def test_small_profiles_are_pinned_and_the_large_ones_are_not():
    unpinned = [profile for profile in PROFILES if not pinned.environment(profile)]
    assert unpinned == ["gpu", "paper"]
    assert all(isinstance(value, str) for value in pinned.environment("small").values())


def test_nothing_is_pinned_on_other_processors(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert pinned.environment("sample") == {}


def test_a_caller_cannot_change_the_settings_of_the_next_one():
    pinned.environment("sample")["OMP_NUM_THREADS"] = "7"
    assert pinned.environment("sample").get("OMP_NUM_THREADS") in (None, "1")


@x86
@pytest.mark.parametrize(
    ("device", "pinned_there"),
    [
        ("AMD EPYC" + pinned.PINNED_DEVICE, True),
        ("NVIDIA H100 80GB HBM3", True),
        ("AMD EPYC, 2 threads", False),
        ("AMD EPYC, 1 threads", False),
        ("AMD EPYC, 1 thread, AVX2, oneDNN avx2, MKL compatible", False),
        ("Intel(R) Xeon(R) Processor, 1 thread, AVX512, oneDNN avx512_core", False),
        ("AMD EPYC" + pinned.PINNED_DEVICE.replace("1 thread", "2 threads"), False),
    ],
)
def test_a_device_says_whether_its_run_was_pinned(device, pinned_there):
    """Rows of before the settings name fewer of them, and none is pinned for that; a GPU has none to miss."""
    assert pinned.is_pinned("sample", device) is pinned_there
    assert pinned.is_pinned("gpu", device)


@x86
def test_square_roots_take_no_approximation_of_the_processor():
    """Adam's roots, rounded as IEEE 754 asks: numpy's are the processor's exact instruction. Odd lengths have a tail,
    and a root within a larger tensor is that of the number alone. Without the setting some differ."""
    script = """
import json, numpy, torch
x = torch.rand(100003, generator=torch.Generator().manual_seed(0)) ** 4
x[:5] = torch.tensor([0.0, 1e-45, 1e-38, 3e38, float("inf")])
exact = torch.from_numpy(numpy.sqrt(x.numpy()))
alone = torch.stack([number.sqrt() for number in x[:100]])
print(json.dumps([(x.sqrt() != exact).sum().item(), (alone != exact[:100]).sum().item()]))
"""

    def wrong(settings: dict[str, str]) -> list[int]:
        words = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=True)
        return json.loads(words.stdout)

    assert wrong(os.environ | pinned.environment("sample")) == [0, 0]
    unset = {key: value for key, value in os.environ.items() if key not in pinned.AVX2}
    if torch.backends.mkl.is_available():
        assert wrong(unset)[0] > 0


@x86
def test_a_process_under_the_settings_computes_with_them():
    """torch, oneDNN and OpenMP are asked themselves, in a process that started with other settings."""
    script = """
from bnc_repro.run import pinned
import sys
pinned.pin("sample")
assert "torch" not in sys.modules
import json, torch
from bnc_repro.run.device import device_name
print(json.dumps(device_name(torch.device("cpu"))))
"""
    other = {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    words = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | other, capture_output=True, text=True, check=True
    )
    assert json.loads(words.stdout).endswith(pinned.PINNED_DEVICE)
