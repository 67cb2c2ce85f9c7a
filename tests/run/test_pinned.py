"""The settings of pinned runs, and that a process which starts under them computes with them."""

import json
import os
import platform
import subprocess
import sys

import pytest

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
