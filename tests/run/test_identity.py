"""What makes two runs the same run."""

import shutil

from bnc_repro.recipe.schema import EXPERIMENTS
from bnc_repro.run import identity
from bnc_repro.run.code import PACKAGE, modules, source_fingerprint, source_of
from bnc_repro.run.identity import folder_of


def test_a_fingerprint_covers_the_source_that_is_imported(recipe, tmp_path, monkeypatch):
    """Another number in the loop makes every run another one; in the pose networks it leaves the image runs alone."""
    assert "poses.networks" not in modules("imagenet_resnet")
    assert "images.networks" not in modules("coco_pose")
    every = {"run", "run.execute", "training.loop", "binarizers.registry", "layers.latent", "recipe.schema", "run.code"}
    for experiment in EXPERIMENTS:
        assert every <= set(modules(experiment))
    copy = tmp_path / "copy"
    shutil.copytree(PACKAGE, copy)

    def now() -> dict:
        return {name: source_fingerprint(modules(name, copy), copy) for name in EXPERIMENTS}

    before, folder = now(), folder_of(recipe(), tmp_path)
    assert before == {name: source_of(name) for name in EXPERIMENTS}
    with open(copy / "poses" / "networks.py", "a") as file:
        file.write("TOUCHED = 1\n")
    after = now()
    assert [name for name in before if before[name] != after[name]] == ["coco_pose"]
    with open(copy / "training" / "loop.py", "a") as file:
        file.write("TOUCHED = 1\n")
    assert all(after[name] != value for name, value in now().items())
    assert folder_of(recipe(), tmp_path) == folder, "code edited after it was imported is not the code that runs"
    monkeypatch.setattr(identity, "source_of", now().get)
    assert folder_of(recipe(), tmp_path) != folder


def test_a_fingerprint_covers_data_and_recipe_but_not_their_place(recipe, data, tmp_path):
    """Moved data is the same run; one other byte, or one other key, is another."""
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    here, there = folder_of(recipe(), tmp_path), folder_of(recipe(data={"root": str(moved)}), tmp_path)
    assert here == there
    assert folder_of(recipe(momentum=0.8), tmp_path) != here
    path = moved / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert folder_of(recipe(data={"root": str(moved)}), tmp_path) != here
