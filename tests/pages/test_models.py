"""Models that travel: each published packed file is of its row, and gives the number that its card prints."""

import os
from pathlib import Path

import pytest
import torch

import bnc_repro
from bnc_repro.pages import models
from bnc_repro.recipe.build import make_recipe, recipe_identity
from bnc_repro.run import packed

CPU = torch.device("cpu")
ONE_IN_A_THOUSAND = {"top1": 0.1, "AP": 0.002, "PCK": 0.002}  # a tie near zero may turn single images
NAMES = packed.published()


def test_every_binary_arm_of_the_sample_has_a_model():
    names = {f"sample/{name}" for name in models.of_rows("sample")}
    assert {"sample/fashion-mnist-binary", "sample/people-binary", "sample/fashion-mnist-ablation-ste"} <= names
    assert names == {name for name in NAMES if name.startswith("sample/")}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_and_its_card_are_of_its_row(name):
    profile, _, short = name.partition("/")
    row, file = models.of_rows(profile)[short], packed.models() / f"{name}{packed.SUFFIX}"
    network, recipe, labels, *_ = packed.load_network(file, CPU)
    assert recipe_identity(recipe) == recipe_identity(make_recipe(**row["recipe"]))
    assert len(labels) > 1
    card = models.card(name, row, _float_bytes(file.with_suffix(".md")), file.stat().st_size)
    assert file.with_suffix(".md").read_text(encoding="utf-8") == card
    height, width = recipe.data.image_size
    opened = bnc_repro.load(name)
    images = torch.randn(2, opened.plan.channels, height, width, generator=torch.Generator().manual_seed(0))
    assert torch.equal(opened(images), network(images))


def _float_bytes(card: Path) -> int:
    line = next(line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("| file |"))
    return 1000 * int(line.partition("float32 ")[2].partition(" kB")[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_model_evaluates_to_the_number_on_its_card(name):
    profile, _, short = name.partition("/")
    row, file = models.of_rows(profile)[short], packed.models() / f"{name}{packed.SUFFIX}"
    if profile != "sample" and not os.environ.get("BNC_DATA"):
        pytest.skip("BNC_DATA names no folder with CIFAR-10, Tiny-ImageNet and Leeds Sports Pose")
    metrics = packed.evaluate(file, None, CPU)
    assert abs(metrics[row["headline"]] - row["metrics"][row["headline"]]) <= ONE_IN_A_THOUSAND[row["headline"]]


def test_a_name_says_its_data_and_its_arm():
    row = {"experiment": "imagenet_resnet", "arm": "binary on Tiny-ImageNet"}
    row |= {"recipe": {"data": {"root": "$BNC_DATA/tiny-imagenet-40/"}}}
    assert packed.name_of(row) == "tiny-imagenet-40-binary"
    row |= {"experiment": "linear_vs_soft", "arm": "ste sgd"}
    assert packed.name_of(row) == "tiny-imagenet-40-ablation-ste-sgd"


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(ValueError, match="sample/people-binary"):
        bnc_repro.load("sample/people-binari")
