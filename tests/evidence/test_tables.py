"""Rows against the published ones: digits, and the device that made them."""

import copy

import pytest

from bnc_repro.evidence import tables
from bnc_repro.evidence.rows import published

XEON = "Intel(R) Xeon(R) Processor, 1 thread, AVX2, oneDNN avx2, MKL compatible"
EPYC = "AMD EPYC, 1 thread, AVX2, oneDNN avx2, MKL compatible"


def row(seed: int, **changes) -> dict:
    """A finished row of two epochs."""
    curve = [{"epoch": 1, "loss": 0.5, "seconds": 1.0}, {"epoch": 2, "loss": 0.25, "seconds": 2.0, "top1": 80.0 + seed}]
    return {
        "experiment": "imagenet_resnet",
        "arm": "float",
        "seed": seed,
        "status": "finished",
        "headline": "top1",
        "metrics": {"top1": 80.0 + seed},
        "device": EPYC,
        "curve": curve,
    } | changes


@pytest.fixture
def compared(monkeypatch):
    """The one line of the comparison of two lists of rows."""

    def line(here: list[dict], known: list[dict]):
        monkeypatch.setattr(
            tables, "published", lambda *names: [copy.deepcopy(row) | {"current": True} for row in known]
        )
        return tables.against_published([here], "sample").iloc[0]

    return line


def test_a_digit_of_the_curve_counts(compared):
    """The headline may agree where a loss does not."""
    other = row(1)
    other["curve"][0]["loss"] = 0.5 + 2**-20
    line = compared([row(0), row(1)], [row(0), other])
    assert (line["here"], line["published"], line["same digits"]) == (80.5, 80.5, "1 of 2")


def test_seconds_are_no_digits(compared):
    other = row(0)
    other["curve"][1]["seconds"] = 9.0
    assert compared([row(0)], [other])["same digits"] == "1 of 1"


def test_rows_of_another_device_are_shown_as_such(compared):
    """The device is named where any row has another, and takes no column where none has."""
    assert compared([row(0), row(1)], [row(0), row(1, device=XEON)])["published on"] == XEON
    assert compared([row(0)], [row(0, device="AMD EPYC, 2 threads")])["published on"] == "AMD EPYC, 2 threads"
    assert "published on" not in compared([row(0)], [row(0)])


def test_rows_that_are_not_published_or_diverged(compared):
    assert compared([row(0)], [])["published"] == "none"
    diverged = row(0, status="diverged", metrics={})
    assert compared([row(0)], [diverged])["published"] == "none"


def test_one_run_has_no_deviation():
    """Its place in the table is empty."""
    (row, *_) = published("sample", "linear_vs_soft")
    shown = tables.table([row])
    assert shown["sd"].tolist() == [""]
    assert shown["mean (%)"].tolist() == [f"{row['metrics']['top1']:.1f}"]
