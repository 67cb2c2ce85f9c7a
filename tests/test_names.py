"""Names that are meant, and the command that brings what is not installed."""

import pytest
from packaging.requirements import Requirement

from bnc_repro.names import install_line, known


def test_an_unknown_name_lists_the_nearest_first():
    assert known("arm", "ste", {"ste": 1}) == "ste"
    with pytest.raises(ValueError, match=r"^unknown arm 'stee'; known, nearest first: ste, linear$"):
        known("arm", "stee", ["linear", "ste"])


def test_the_command_to_install_names_versions_and_extras():
    """Of the package's own metadata, so that it works whatever index the package itself is on."""
    command = install_line("numba", "onnx.helper")
    assert command.endswith(" (extras `export`, `packed`)")
    words = [Requirement(word.strip("'")) for word in command.split() if word.startswith("'")]
    assert [word.name for word in words] == ["numba", "onnx"]
    assert all(word.specifier for word in words)
    with pytest.raises(ValueError, match="no extra of bnc_repro brings antigravity"):
        install_line("numba", "antigravity")


def test_an_unknown_name_of_nothing_says_that_there_is_none():
    with pytest.raises(ValueError, match=r"^unknown constant of approx_sign 'clip'; there is none$"):
        known("constant of approx_sign", "clip", {})
