"""A dry run of the paper profile: its own recipe, in small, on a folder in ImageNet's layout."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from bnc_repro.images import manifest
from bnc_repro.images.check import check_images
from bnc_repro.recipe.profiles import recipe_of
from bnc_repro.run import execute
from bnc_repro.run.execute import run
from bnc_repro.run.identity import folder_of
from bnc_repro.training import checkpoint

SMALL = {"width": 4, "blocks": [1, 1, 1, 1], "epochs": 2}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """1,000 class folders with two training pictures and a validation picture each, which are links to eight files a
    split."""
    root = tmp_path_factory.mktemp("paper")
    draw = np.random.default_rng(0)
    for i in range(16):
        pixels = np.kron(draw.integers(0, 256, (6, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.JPEG")
    for i in range(1000):
        for split, count in (("train", 2), ("val", 1)):
            folder = root / "imagenet" / split / f"n{i:08d}"
            folder.mkdir(parents=True)
            for number in range(count):
                picture = (i + number) % 8 + (8 if split == "val" else 0)
                os.link(root / f"{picture}.JPEG", folder / f"{number}.JPEG")
    return root


@pytest.mark.slow
def test_the_paper_profile_goes_through_all_its_phases(imagenet, tmp_path, monkeypatch):
    """Check and manifest, the teacher, two epochs of distillation with lighting in half precision, evaluation, the row;
    and the two stages."""
    monkeypatch.setenv("BNC_DATA", str(imagenet))
    monkeypatch.setattr(execute, "pick_device", lambda recipe: torch.device("cpu"))  # which the profile itself refuses
    for kind in (torch.cuda, torch.xpu, torch.mtia):  # each would note the stack of every picture's seed
        monkeypatch.setattr(kind, "manual_seed_all", lambda seed: None)
    small_data = {"image_size": [32, 32], "workers": 2, "train_limit": 512}
    notes, readable = [], []
    assert check_images(imagenet / "imagenet", notes, readable) == []
    assert "1000 classes as ImageNet-1k, but 2,000 training and 1,000 validation pictures" in notes[0]
    manifest.write(imagenet / "imagenet", readable)

    teacher = recipe_of("imagenet_resnet", "paper", "float", **SMALL, data=small_data)
    run(teacher, tmp_path)
    file = str(folder_of(teacher, tmp_path) / checkpoint.NAMES[0])
    distilled = recipe_of("imagenet_resnet", "paper", "official", **SMALL, teacher=file, data=small_data)
    row = run(distilled, tmp_path)
    assert row["status"] == "finished"
    assert [epoch["epoch"] for epoch in row["curve"]] == [1, 2]
    assert all(np.isfinite(epoch["loss"]) for epoch in row["curve"])
    assert row["recipe"]["distillation"] == 0.9
    assert row["recipe"]["data"]["lighting"] == 0.1
    assert {"top1", "top5", "slope_at_0", "flip_share"} <= row["metrics"].keys()
    assert all(len(layer["input values"]) == 2 for layer in row["binary_layers"])
    staged = recipe_of("imagenet_resnet", "paper", "two_stage", **SMALL, teacher=file, data=small_data)
    assert run(staged, tmp_path)["status"] == "finished"


def test_the_teacher_that_cannot_be_had_is_one_sentence(imagenet, tmp_path, monkeypatch):
    """Without torchvision's server: what is missing, and where a local file goes."""
    monkeypatch.setenv("BNC_DATA", str(imagenet))
    monkeypatch.setattr(execute, "pick_device", lambda recipe: torch.device("cpu"))

    def offline(*arguments, **options):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"teacher torchvision/resnet34 cannot be had .*TORCH_HOME/hub/checkpoints"):
        run(recipe_of("imagenet_resnet", "paper", "official", **SMALL), tmp_path)


def test_the_paper_profile_needs_cuda(imagenet, tmp_path, monkeypatch):
    """Days on a CPU are refused at once."""
    monkeypatch.setenv("BNC_DATA", str(imagenet))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="the paper profile needs a CUDA device"):
        run(recipe_of("imagenet_resnet", "paper", "official", **SMALL), tmp_path)
