"""Packed files: bit-equal after a round trip, small, and refused by one sentence when they are not what was written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bnc_repro import binarize, create_network, pack
from bnc_repro.packed import files
from exact import as_if_trained, noise
from networks import BINARY

RECIPE = {"network": "resnet20", "width": 16, "blocks": [2, 2], "data": {"kind": "fashion_mnist"}, "seed": 3}
LABELS = ["bag", "Stiefelette ß", "靴"]
SKELETON = {"names": ["nose", "tail"], "limbs": [[0, 1]]}
SIZE = (20, 24)


def packed_network() -> nn.Module:
    torch.manual_seed(0)
    network = create_network("resnet20", num_classes=3, width=16, blocks=(2, 2), **BINARY)
    return pack(as_if_trained(network), SIZE, check=False)


@pytest.fixture(scope="module")
def packed():
    return packed_network()


@pytest.fixture
def file(packed, tmp_path) -> Path:
    path = tmp_path / "small.safetensors"
    files.save(packed, path, RECIPE, LABELS, SKELETON)
    return path


def test_a_round_trip_is_bit_equal(packed, file):
    loaded = files.load(file)
    images = noise(5, 3, *SIZE)
    assert torch.equal(loaded.network(images), packed(images))
    assert (loaded.recipe, loaded.labels, loaded.skeleton) == (RECIPE, LABELS, SKELETON)
    assert loaded.network.report.layers == packed.report.layers
    assert loaded.network.report.packed_bytes == packed.report.packed_bytes


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)], ids=oct)
def test_who_may_read_the_file_is_what_the_umask_says(packed, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        files.save(packed, tmp_path / "new.safetensors", RECIPE, LABELS)
    finally:
        os.umask(before)
    assert (tmp_path / "new.safetensors").stat().st_mode & 0o777 == mode


def test_a_second_round_trip_writes_the_same_bytes(file, tmp_path):
    again = tmp_path / "again.safetensors"
    files.save(*_first_and_rest(file, again))
    assert again.read_bytes() == file.read_bytes()


def _first_and_rest(file: Path, target: Path) -> tuple:
    loaded = files.load(file)
    return loaded.network, target, loaded.recipe, loaded.labels, loaded.skeleton


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        ("sbpn", {"num_keypoints": 5, "width": 16, "blocks": (1, 1)}, (32, 24)),
        ("bireal18", {"num_classes": 11, "width": 20, "blocks": (1, 2)}, (32, 40)),
        ("resnet20", {"num_classes": 4, "channels": 1, "width": 12, "blocks": (1, 1)}, (28, 28)),
    ],
)
def test_networks_of_every_kind_come_back(name, settings, size, tmp_path):
    network = as_if_trained(create_network(name, **settings, **BINARY))
    packed, path = pack(network, size, check=False), tmp_path / "packed.safetensors"
    files.save(packed, path, {"network": name}, [])
    images = noise(2, settings.get("channels", 3), *size)
    assert torch.equal(files.load(path).network(images), packed(images))


def test_a_network_of_somebodys_own_is_not_written_as_its_class_cannot_be_read_back(tmp_path):
    own = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3))
    binarize(own, **BINARY)
    path = tmp_path / "own.safetensors"
    with pytest.raises(ValueError, match="layer by layer"):
        files.save(pack(own.eval(), (12, 12), check=False), path, {"network": "own"}, [])
    assert not path.exists()


def test_the_file_is_safetensors_with_json_in_its_header(file):
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    content = json.loads(json.loads(header["__metadata__"]["bnc_repro"])["content"])
    assert content["recipe"] == RECIPE
    assert content["labels"] == LABELS


def test_the_file_is_ten_times_smaller_than_the_checkpoint(tmp_path):
    network = create_network("bireal18", num_classes=1000, **BINARY).eval()
    path, checkpoint = tmp_path / "bireal18.safetensors", tmp_path / "bireal18.pt"
    files.save(pack(network, (64, 64), check=False), path, {}, [])
    torch.save(network.state_dict(), checkpoint)
    assert checkpoint.stat().st_size / path.stat().st_size > 10


def test_is_packed_tells_packed_files_from_all_else(file, tmp_path):
    from safetensors.torch import save_file

    assert files.is_packed(file)
    assert files.is_packed(str(file))
    checkpoint, foreign, text, empty = (tmp_path / name for name in ("a.pt", "b.safetensors", "c.txt", "d"))
    torch.save({"x": torch.zeros(3)}, checkpoint)
    save_file({"x": torch.zeros(3)}, foreign)
    text.write_text("no file of ours")
    empty.touch()
    assert not any(files.is_packed(path) for path in (checkpoint, foreign, text, empty, tmp_path, tmp_path / "none"))


def refused(path: Path, word: str = "") -> None:
    with pytest.raises(ValueError, match=word) as error:
        files.load(path)
    assert path.name in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_files_cut_anywhere_are_refused(file):
    content = file.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        refused(file)


def test_longer_files_are_refused(file):
    with open(file, "ab") as stream:
        stream.write(b"\0" * 64)
    refused(file)


def test_one_bit_turned_anywhere_is_refused(file):
    """In the header's length, its metadata, its offsets, or in any array."""
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    draw = np.random.default_rng(0)
    places = [0, 3, 8, *draw.integers(8, header, 60).tolist(), *draw.integers(header, len(content), 60).tolist()]
    for place in places:
        turned = bytearray(content)
        turned[place] ^= 1 << int(draw.integers(8))
        file.write_bytes(turned)
        refused(file)


def test_edited_metadata_is_refused(file):
    content = file.read_bytes()
    assert content.count(b"fashion_mnist") == 1
    file.write_bytes(content.replace(b"fashion_mnist", b"fashion_mnits"))
    refused(file)


def rewritten(file: Path, edit) -> None:
    """The file again, through safetensors, after `edit(tensors, metadata)`."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, "pt") as source:
        tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
        metadata = json.loads(source.metadata()["bnc_repro"])
    edit(tensors, metadata)
    save_file(tensors, file, {"bnc_repro": json.dumps(metadata)})


def test_an_array_less_is_refused(file):
    rewritten(file, lambda tensors, _: tensors.popitem())
    refused(file)


def test_an_array_more_is_refused(file):
    rewritten(file, lambda tensors, _: tensors.update(more=torch.zeros(2)))
    refused(file)


def test_another_version_is_refused_by_its_number(file):
    def newer(_, metadata: dict) -> None:
        assert metadata["format"].endswith("form 1")
        metadata["format"] = "bnc_repro packed network, form 987"

    rewritten(file, newer)
    refused(file, "987")


def test_foreign_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    foreign, checkpoint = tmp_path / "foreign.safetensors", tmp_path / "checkpoint.pt"
    save_file({"x": torch.zeros(3)}, foreign)
    torch.save({"x": torch.zeros(3)}, checkpoint)
    refused(foreign, "pack")
    refused(checkpoint, "pack")


def test_a_file_that_is_not_there_is_named(tmp_path):
    refused(tmp_path / "none.safetensors")


def test_what_was_written_before_stays_when_writing_fails(packed, file, monkeypatch):
    before = file.read_bytes()

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises((OSError, ValueError), match=r"space|disk"):
        files.save(packed, file, {"other": 1}, [])
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_no_file_runs_code(file, monkeypatch):
    import pickle

    def never(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, never)
    files.load(file)


def signed(file: Path, content: str, **arrays: torch.Tensor) -> None:
    """The file with other content or arrays and the checksum that is theirs."""

    def edit(tensors, header) -> None:
        tensors.update(arrays)
        header["content"] = content
        header["checksum"] = files._checksum({name: tensor.numpy() for name, tensor in tensors.items()}, content)

    rewritten(file, edit)


def content_of(file: Path) -> dict:
    from safetensors import safe_open

    with safe_open(file, "pt") as source:
        return json.loads(json.loads(source.metadata()["bnc_repro"])["content"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"recipe": [1]}, "its recipe is of another form"),
        ({"labels": 5}, "its labels is of another form"),
        ({"labels": [1, 2]}, "its labels are not names, each another"),
        ({"labels": ["a", "a"]}, "its labels are not names, each another"),
        ({"plan": {}}, "its plan is of another form"),
        ({"more": 1}, "its content is not plan, recipe, labels, skeleton"),
    ],
)
def test_content_of_another_form_is_refused_though_the_checksum_is_right(file, change, word):
    signed(file, json.dumps(content_of(file) | change))
    refused(file, word)


@pytest.mark.parametrize("text", ["[1]", "hello", "[" * 200_000, '{"plan": "x"}'], ids=len)
def test_content_that_is_none_is_refused_though_the_checksum_is_right(file, text):
    signed(file, text)
    refused(file, "pack its checkpoint again")


def test_numbers_that_are_not_finite_are_refused_though_the_checksum_is_right(file):
    from safetensors.torch import load_file

    floats = load_file(file)["floats"]
    floats[3] = float("nan")
    signed(file, json.dumps(content_of(file)), floats=floats)
    refused(file, "its floats are not finite")


def test_a_pipe_and_a_header_without_end_are_no_packed_files(tmp_path):
    """Neither waits for a writer nor runs out of stack."""
    os.mkfifo(tmp_path / "pipe")
    deep = b'{"__metadata__": ' + b"[" * 200_000
    (tmp_path / "deep").write_bytes(len(deep).to_bytes(8, "little") + deep)
    assert not files.is_packed(tmp_path / "pipe")
    assert not files.is_packed(tmp_path / "deep")


@pytest.mark.parametrize(
    ("step", "key", "value"),
    [(1, "upsampled", 3), (1, "stride", 2), (1, "negative", {"bits": [64, 4, 3, 3], "at": 0}), (0, "stride", 7)],
)
def test_steps_that_do_not_fit_each_other_are_refused_though_the_checksum_is_right(file, step, key, value):
    """The kernels check nothing: a description that would lead them out of their arrays must not reach them."""
    from bnc_repro.packed import files

    def edit(tensors, header) -> None:
        content = json.loads(header["content"])
        plan = json.loads(content["plan"])
        plan["steps"][step][key] = value
        header["content"] = json.dumps(content | {"plan": json.dumps(plan)})
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        header["checksum"] = files._checksum(arrays, header["content"])

    rewritten(file, edit)
    refused(file)


def changed_plan(file: Path, change, **arrays: torch.Tensor) -> None:
    """The file with another description, or arrays, and the checksum that is theirs."""
    content = content_of(file)
    plan = json.loads(content["plan"])
    change(plan)
    signed(file, json.dumps(content | {"plan": json.dumps(plan)}), **arrays)


def at(*path, value):
    def change(plan) -> None:
        place = plan
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (at("steps", 1, "negative", "at", value=-8), "bits is not where the one before it ends"),
        (at("steps", 1, "negative", "at", value=10**9), "bits is not where the one before it ends"),
        (at("steps", 1, "scale", "at", value=-50), "floats is not where the one before it ends"),
        (at("steps", 2, "scale", "at", value=0), "floats is not where the one before it ends"),
        (at("steps", 1, "negative", "bits", value=[10**11]), "bits end before an array of 100000000000"),
        (at("steps", 1, "negative", "bits", value=[2**62, 4]), "bits end before"),
        (at("steps", 1, "negative", "bits", value=[10**30]), "bits end before"),
        (at("steps", 1, "negative", "bits", value=[-16, -16, 3, 3]), "is not where the one before it ends"),
        (at("steps", 1, "name", value={"bits": [10**11], "at": 0}), "bits is not|bits end before"),
        (at("steps", 1, "stride", value=1.0), "stride is of another type"),
        (at("steps", 1, "stride", value=True), "stride is of another type"),
        (at("steps", 0, "stride", value=1.0), "stride is of another type"),
        (at("steps", 0, "pooled", value="no"), "pooled is of another type"),
        (at("steps", -1, "averaged", value=1), "averaged is of another type"),
        (at("steps", 1, "name", value=None), "name is of another type"),
        (at("size", value=[True, 24]), "make no network"),
        (at("output", value=[3.0]), "its steps give another output"),
        (at("layers", value=["abc"]), "a layer's line is not its name"),
        (at("layers", value=[[1, 2, 3]]), "a layer's line is not its name"),
        (at("layers", value=[["a"]]), "a layer's line is not its name"),
    ],
)
def test_a_description_that_is_not_what_was_written_is_refused_though_the_checksum_is_right(file, change, word):
    changed_plan(file, change)
    refused(file, word)


def test_bits_and_floats_that_lack_or_exceed_the_plan_are_refused_though_the_checksum_is_right(file):
    """Missing bits would be read as +1."""
    from safetensors.torch import load_file

    arrays, whole = load_file(file), file.read_bytes()
    for name, array, word in (
        ("bits", arrays["bits"][:-1], "bits end before"),
        ("bits", arrays["bits"][:0], "bits end before"),
        ("floats", arrays["floats"][:-1], "floats end before"),
        ("bits", torch.cat([arrays["bits"], arrays["bits"][:3]]), "3 of bits belong to no step"),
        ("floats", torch.cat([arrays["floats"], arrays["floats"][:1]]), "1 of floats belong to no step"),
        ("more", arrays["floats"], "its arrays are bits, floats, more, not bits and floats"),
    ):
        file.write_bytes(whole)
        changed_plan(file, lambda plan: None, **{name: array.clone()})
        refused(file, word)


def test_tensors_of_types_that_numpy_lacks_are_refused(tmp_path):
    """Unless another library has taught it some, as onnx's does: then the file is none of ours by its header."""
    from safetensors.torch import save_file

    for kind in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        save_file({"bits": torch.zeros(4).to(kind)}, tmp_path / "odd.safetensors")
        refused(tmp_path / "odd.safetensors", "no packed network|holds something else")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"labels": [0, 1, 2]}, "its labels are not names, each another"),
        ({"labels": ["a", "a", "b"]}, "its labels are not names, each another"),
        ({"labels": ["a"]}, "it has 1 labels and 3 outputs"),
        ({"labels": ["a", "b", torch.tensor(1)]}, "takes plain values"),
        ({"recipe": {"root": Path("x")}}, "takes plain values"),
        ({"recipe": {1: "a"}}, "takes plain values"),
        ({"recipe": {"size": (1, 2)}}, "takes plain values"),
        ({"skeleton": {"sigmas": [float("nan")]}}, "takes plain values"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(packed, tmp_path, content, word):
    with pytest.raises(ValueError, match=word):
        files.save(packed, tmp_path / "new.safetensors", **content)
    assert not (tmp_path / "new.safetensors").exists()


def test_labels_of_another_number_than_outputs_are_refused_though_the_checksum_is_right(file):
    signed(file, json.dumps(content_of(file) | {"labels": ["a", "b"]}))
    refused(file, "it has 2 labels and 3 outputs")


def test_a_link_goes_on_leading_to_the_file_that_is_written(packed, file, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    file.unlink()
    files.save(packed, link, RECIPE)
    assert link.is_symlink()
    assert files.load(file).recipe == RECIPE


def test_a_name_that_no_system_takes_is_no_file():
    from bnc_repro import load

    for name in ("a" * 5000, "a/" * 3000, "a\0b"):
        assert not files.is_packed(name)
        refused(Path(name), "there is no file")
        with pytest.raises(ValueError, match="packed network"):
            load(name)


def test_a_block_that_would_be_upsampled_and_strided_at_once_is_refused(tmp_path):
    """The program writes it at twice the size, where an odd one is rounded up: beyond its memory."""
    from bnc_repro.packed.packing import BinaryBlock, Convolution, Linear, Plan, check_plan

    def plan(stride: int, upsampled: int) -> Plan:
        ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
        stem = Convolution(np.zeros((4, 3, 3, 3), np.float32), zeros, ones, 1)
        block = BinaryBlock(
            "b", np.zeros((4, 4, 3, 3), bool), ones, zeros, ones, stride, upsampled, np.eye(4, dtype=np.float32), zeros
        )
        return Plan(3, (9, 9), [stem, block, Linear(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), True)])

    for stride, upsampled in ((1, 1), (2, 1), (1, 2)):
        check_plan(plan(stride, upsampled))
    with pytest.raises(ValueError, match="step 1 does not fit"):
        check_plan(plan(2, 2))
    many = plan(1, 2)
    many.steps[1:2] = many.steps[1:2] * 30
    with pytest.raises(ValueError, match=r"makes \d+ x \d+ of its input"):
        check_plan(many)
