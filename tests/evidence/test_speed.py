"""Rows of packed inference: who is compared with whom, what is kept, what the pages say."""

import pandas as pd
import pytest

from bnc_repro.evidence import speed
from bnc_repro.packed.benchmark import CHANNELS_LAST, EAGER, ONNXRUNTIME_INT8, OPENVINO_INT8, PACKED
from bnc_repro.packed.latency import StepTime

LINE = {
    "device": "a machine", "network": "bireal18", "batch": 1, "kernel": "popcount", "height": 224, "width": 224,
    "ms_lower": 1.0, "ms_upper": 2.0, "ratio_lower": 1.0, "ratio_upper": 2.0, "rounds": 3, "float_bytes": 1000,
    "packed_bytes": 100, "float_ops": 660.0, "binary_ops": 60.0, "torch": "2",
}  # fmt: skip


def rows(**ratios: float) -> pd.DataFrame:
    names = {"packed": PACKED, "torch": EAGER, "last": CHANNELS_LAST, "ort8": ONNXRUNTIME_INT8, "vino8": OPENVINO_INT8}
    return pd.DataFrame([LINE | {"contestant": names[key], "ms": 2 * r, "ratio": r} for key, r in ratios.items()])


def test_the_fastest_int8_is_the_neighbour():
    """Ratios are those of the rows, operations and bytes the float twin's over the binary network's."""
    line = speed.summary(rows(packed=1.0, torch=12.5, ort8=6.0, vino8=3.5)).iloc[0]
    assert line["fastest int8"] == "3.5 (OpenVINO)"
    assert line["torch"] == "12.5"
    assert line["channels_last"] == "–"
    assert line["fewer OPs"] == "11.0"
    assert line["fewer bytes"] == "10.0"


def test_the_balance_says_what_was_measured():
    (sentence,) = speed.balance(rows(packed=1.0, torch=12.5, ort8=6.0))
    assert sentence == (
        "bireal18: 11.0 times fewer OPs, 12.5 times as fast as its float twin in torch, 6.0 times as fast as in int8 "
        "(onnxruntime), 10.0 times smaller."
    )


def test_only_a_network_that_was_faster_is_called_cheaper():
    """The lower quartile of every ratio to torch has to be above 1."""
    measured = rows(packed=1.0, torch=12.5, last=11.0)
    slower = measured.assign(ratio_lower=[1.0, 12.0, 0.9])
    faster = measured.assign(ratio_lower=[1.0, 12.0, 10.9])
    assert speed.claim(faster)[1].startswith("cheaper than float, as measured; ")
    assert speed.claim(slower)[1].startswith("not shown to be cheaper than float, as measured; ")


def test_of_two_kernels_the_faster_one_counts():
    slow = rows(packed=1.0, torch=5.0).assign(kernel="tables", ms=[9.0, 45.0])
    both = pd.concat([slow, rows(packed=1.0, torch=12.5)])
    assert set(speed.fastest_kernel(both)["kernel"]) == {"popcount"}


def test_the_headline_is_of_the_machine_that_gains_least():
    """Of two machines that measured the most networks; one that measured fewer does not count."""
    first, second = (rows(packed=1.0, torch=ratio).assign(device=name) for name, ratio in (("a", 13.7), ("b", 10.9)))
    more = [frame.assign(network="sbpn") for frame in (first, second)]
    few = rows(packed=1.0, torch=2.0).assign(device="c")
    assert set(speed.headline(pd.concat([first, second, *more, few]))["device"]) == {"b"}


def test_newer_rows_take_the_place_of_older_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "project_root", lambda: tmp_path)
    speed.keep(rows(packed=1.0, torch=12.51234))
    speed.keep(rows(packed=1.0, torch=13.0))
    speed.keep(rows(packed=1.0).assign(device="another"))
    kept = speed.published()
    assert len(kept) == 3
    assert kept.loc[(kept["contestant"] == EAGER), "ratio"].tolist() == [13.0]


def test_amdahls_floor_is_the_float_rest():
    """Bits 1 ms, floats 3 ms, torch 24 ms: 6 times, 8 at most."""
    sentence = speed.floor([StepTime("stem", 0.0, 3.0, 6.0), StepTime("conv", 1.0, 0.0, 18.0)])
    assert "the float rest 3.00 ms (75 % of the time)" in sentence
    assert "8 times as fast as torch's float32 instead of 6.0 times" in sentence


def test_a_measurement_makes_whole_rows():
    """On this machine, two rounds: the packed network is its own measure, and the operations are the known ones."""
    frame, packed = speed.measure("resnet20", rounds=2, rivals=(EAGER,))
    assert frame["contestant"].tolist() == [PACKED, EAGER]
    assert frame.loc[0, "ratio"] == 1.0
    assert frame["float_ops"].unique() == [40_813_184]  # multiply-accumulates of ResNet-20 at 32x32, shortcuts 1x1
    assert frame["packed_bytes"].unique() == [packed.report.packed_bytes]
    assert set(frame.columns) == set(LINE) | {"contestant", "ms", "ratio"}


def test_the_published_rows_hold_the_networks_of_the_page():
    published = speed.headline(speed.published())
    assert set(published["network"]) == set(speed.NETWORKS)
    assert (published["ms"] > 0).all()


@pytest.mark.parametrize("name", speed.NETWORKS)
def test_every_network_of_the_page_is_one_that_packs(name):
    network, original = speed.networks(name)
    assert not network.training
    assert (network is original) == (name != speed.CONVERTED)
