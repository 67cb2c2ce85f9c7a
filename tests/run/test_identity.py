"""What makes two runs the same run."""

import os
import shutil
import subprocess
import sys

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


def test_code_that_changes_after_its_import_is_not_the_code_that_runs(tmp_path):
    """One module edited and another one gone before anybody asks; what an editor leaves beside them is no source."""
    package = tmp_path / "bnc_repro"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / ".#loop.py").symlink_to("nobody@nowhere")
    (package / "scratch.py").write_bytes(b"\xff")
    (package / "folder.py").mkdir()
    code = (
        "from bnc_repro.run import code\n"
        "(code.PACKAGE / 'training' / 'loop.py').write_text('edited = 1')\n"
        "(code.PACKAGE / 'images' / 'sets.py').unlink()\n"
        "print(code.source_of('linear_vs_soft'))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip() == source_of("linear_vs_soft")
