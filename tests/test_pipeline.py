"""The pipeline as its user meets it: stages, notebooks, published rows, the command line."""

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
import yaml

from bnc_repro import config, notebook, provenance, publish, report, run, statistics
from bnc_repro.binarizers import BINARIZERS

ROOT = Path(__file__).parent.parent
SAMPLE = {name: config.experiment_section(name, "sample") for name in config.EXPERIMENTS}
STAGE_FILES = [ROOT / "dvc.yaml", *sorted(ROOT.glob("pipelines/*/dvc.yaml"))]
PUBLISHED_ONLY = os.environ | {"BNC_REPRO_REUSE": "results"}


def command(*words, **options):
    """python -m bnc_repro WORDS in the clone."""
    words = [sys.executable, "-m", "bnc_repro", *map(str, words)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def expected_modules(name, stage):
    """The modules that a stage's command imports, those of its notebook's cells included."""
    if name in ("cells", "data"):
        return None
    found = {"__main__"}
    if page := re.match(r"python -m bnc_repro notebook (\S+)", stage["cmd"]):
        cells = json.loads((ROOT / "notebooks" / f"{page[1]}.ipynb").read_text())["cells"]
        code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
        named = re.findall(r"^from bnc_repro import (.+)", code, re.M)
        waiting = {*", ".join(named).split(", "), *re.findall(r"^from bnc_repro\.(\w+)", code, re.M), "notebook"}
        while waiting := waiting - found - {"run"}:  # of run what the experiment needs, see below
            found |= waiting
            waiting = set().union(*map(provenance.imports, waiting))
    if name == "tuning":
        found.add(name)
    trained = {"images": "imagenet_resnet", "poses": "coco_pose"}
    trained |= dict.fromkeys(("ablation", "tuning"), "linear_vs_soft")
    experiments = SAMPLE if name == "verdict" else [trained.get(name, name)]
    return found.union(*(run.modules(experiment) for experiment in experiments if experiment in SAMPLE))


def test_stages_notice_other_data(tmp_path):
    """What `data state` writes for the stages follows the pictures, and names what is not there."""
    folder, target = tmp_path / "cifar10" / "train" / "cat", tmp_path / "state.json"
    folder.mkdir(parents=True)
    found = []
    for content in (b"one", b"two"):
        (folder / "0.png").write_bytes(content)
        done = command("data", "state", "imagenet_resnet", "--profile", "small", "--target", str(target),
                       env=os.environ | {"BNC_DATA": str(tmp_path)})  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(target.read_text()))
    assert found[0].keys() == {"$BNC_DATA/cifar10", "$BNC_DATA/tiny-imagenet-40"}
    assert found[0]["$BNC_DATA/cifar10"] != found[1]["$BNC_DATA/cifar10"]
    assert found[0]["$BNC_DATA/tiny-imagenet-40"] is None


def test_every_trained_stage_depends_on_its_data():
    """In the profiles that train on a user's data."""
    for file in STAGE_FILES[1:]:
        stages = yaml.safe_load(file.read_text())["stages"]
        for name, stage in stages.items():
            if "data" in stages and (" run " in stage["cmd"] or " tune " in stage["cmd"] or name in SAMPLE):
                assert f"runs/{file.parent.name}/data/" in " ".join(stage["deps"]), f"{name} of {file}"
    assert all("data" in yaml.safe_load((ROOT / "pipelines" / profile / "dvc.yaml").read_text())["stages"]
               for profile in ("small", "gpu", "paper"))  # fmt: skip


@pytest.mark.parametrize("file", STAGE_FILES, ids=lambda file: file.parent.name)
def test_stages_depend_on_what_they_import(file):
    """Each stage's modules in dvc.yaml are its import closure, so nothing stale is kept and nothing runs in vain."""
    for name, stage in yaml.safe_load(file.read_text())["stages"].items():
        wanted = expected_modules(name, stage)
        if wanted is not None:
            listed = {Path(dep).stem for dep in stage["deps"] if dep.startswith("src/")}
            assert listed == wanted, f"stage {name} of {file}"


@pytest.mark.parametrize("file", STAGE_FILES, ids=lambda file: file.parent.name)
def test_the_matrix_is_the_arms(file):
    """A stage that trains an arm at a time names exactly the arms of its profile that are trained."""
    profile = "sample" if file.parent == ROOT else file.parent.name
    stages = yaml.safe_load(file.read_text())["stages"]
    trains = {"ablation": "linear_vs_soft", "tuning": "linear_vs_soft", "images": "imagenet_resnet",
              "poses": "coco_pose"}  # fmt: skip
    for name, experiment in trains.items():
        if name in stages:
            arms = config.experiment_section(experiment, profile)["arms"]
            trained = [arm for arm, changes in arms.items() if changes.get("network") != "mean_pose"]
            assert stages[name]["matrix"]["arm"] == trained


@pytest.mark.parametrize("profile", config.PROFILES)
def test_every_profile_makes_recipes(profile):
    """Every arm of every experiment of every profile is a valid recipe."""
    for experiment in config.experiments(profile):
        for arm in config.experiment_section(experiment, profile)["arms"]:
            assert config.recipe(experiment, profile, arm).profile == profile


@pytest.mark.parametrize("name", notebook.STAGES)
def test_notebook_defaults_are_the_sample(name):
    """A notebook's parameters cell holds the very values of params.yaml."""
    declared = notebook.declared_parameters(ROOT / "notebooks" / f"{name}.ipynb")
    given = notebook.parameters(name, "sample")
    assert {key: declared[key] for key in given} == given


def test_an_undeclared_parameter_stops_the_stage(monkeypatch):
    """A parameter the notebook does not declare is named, before anything runs."""
    monkeypatch.setattr(notebook, "parameters", lambda name, profile: {"profile": profile, "sedes": [0]})
    with pytest.raises(ValueError, match="does not declare the parameter sedes"):
        notebook.execute("04-verdict", "sample")


@pytest.mark.parametrize("experiment", SAMPLE)
def test_published_rows_are_of_this_code(experiment):
    """results/sample holds the row of every arm and seed, made by the code, data and recipe of this tree.

    After a change: `make repro`, then `make publish`.
    """
    folder = ROOT / "results" / "sample" / experiment
    wanted = {
        run.folder_of(config.recipe(experiment, "sample", arm, seed=seed)).name
        for arm in SAMPLE[experiment]["arms"] for seed in SAMPLE[experiment]["seeds"]
    }  # fmt: skip
    assert {path.stem for path in folder.glob("*.json")} == wanted


def test_published_studies_are_of_this_code():
    """Rows of the presets study, where there are any, were made by the code, data and recipes of this tree."""
    section = config.experiment_section("linear_vs_soft", "presets")
    known = {
        run.folder_of(config.recipe("linear_vs_soft", "presets", arm, seed=seed)).name
        for arm in section["arms"] for seed in section["seeds"]
    }  # fmt: skip
    assert {path.stem for path in (ROOT / "results" / "presets" / "linear_vs_soft").glob("*.json")} <= known


@pytest.mark.parametrize("arm", ["linear-fixed", "mlp-fixed"])
def test_the_preset_fixed_is_reliable_over_twenty_seeds(arm):
    """In the published study no seed collapses, turns round or closes its gates, and none loses to straight-through."""
    rows = report.published("presets", "linear_vs_soft")
    own = [row for row in rows if row["arm"] == arm]
    assert len(own) == 20
    for row in own:
        assert row["metrics"]["top1"] > 10 + 10  # chance, and ten points
        assert row["metrics"]["slope_at_0"] > 0
        assert row["metrics"]["open_share"] >= 0.05
    values = report.by_arm(rows)
    assert statistics.paired(values[arm], values["ste"]).low > -0.5


def test_the_reliability_table_counts_collapse_and_reversal():
    """Runs near chance and diverged ones collapse, a slope of 0 or below is reversed, pairs are taken by seed."""
    def row(arm, seed, top1, slope=None):
        state = {} if slope is None else {"slope_at_0": slope, "open_share": 0.5}
        return {"arm": arm, "seed": seed, "status": "finished" if top1 else "diverged", "headline": "top1",
                "metrics": {"top1": top1, **state} if top1 else {}}  # fmt: skip

    rows = [row("ste", seed, 80.0 + seed) for seed in range(3)]
    rows += [row("good", seed, 81.0 + seed, 1.0) for seed in range(3)]
    rows += [row("bad", 0, 12.0, -0.5), row("bad", 1, 79.0, 0.2), row("bad", 2, None)]
    table = report.reliability(rows, reference="ste", chance=10)
    assert table.loc["bad", ["runs", "collapsed", "reversed"]].tolist() == [3, 2, 1]
    assert table.loc["good", ["runs", "collapsed", "reversed", "least open"]].tolist() == [3, 0, 0, "0.50"]
    assert table.loc["good", "minus ste"] == "+1.00 [+1.00, +1.00]"


def test_readme_tables_are_current():
    """The README's tables are what the published rows say."""
    text = (ROOT / "README.md").read_text()
    assert publish.with_results(text) == text, "run `make publish`"


def test_a_published_row_takes_the_place_of_its_recipes_older_one(tmp_path):
    """The older row of the same recipe goes, rows of other recipes stay, and publishing again changes nothing."""
    first, second = report.published("sample", "linear_vs_soft")[:2]
    results = tmp_path / "results"
    results.mkdir()
    for name, row in (("old", first), ("other", second)):
        (results / f"{name}.json").write_text(json.dumps(row))
    (tmp_path / "new").mkdir()
    source = tmp_path / "new" / "row.json"
    source.write_text(json.dumps(first | {"finished_at": "later"}))
    for _ in range(2):
        assert publish._copied([source], results) == [results / "new.json"]
        assert {path.name for path in results.glob("*")} == {"new.json", "other.json"}
    assert json.loads((results / "new.json").read_text())["finished_at"] == "later"


def test_floors_are_passed():
    """On the sample, over three seeds: networks beat a linear classifier, pose networks the mean pose, by far."""
    imagenet, coco, _ = ({arm: list(v.values()) for arm, v in report.by_arm(rows).items()}
                         for rows in publish.published_rows())  # fmt: skip
    values = imagenet | {f"pose {arm}": own for arm, own in coco.items()}
    mean = {arm: sum(own) / len(own) for arm, own in values.items()}
    assert all(len(values) == 3 for values in (*imagenet.values(), *coco.values()))
    assert mean["float"] >= mean["linear classifier"] + 3
    assert mean["binary"] >= mean["linear classifier"] + 1
    assert mean["pose float"] > 0.5
    assert mean["pose binary"] > 0.35
    assert min(mean["pose float"], mean["pose binary"]) >= mean["pose mean pose"] + 0.25


def test_small_networks_stand_above_the_linear_classifier():
    """On CIFAR-10 and Tiny-ImageNet every seed of every arm but the released rule beats every seed of the floor; every
    arm and seed of the profile is published, finished and binary where it says so."""
    section = config.experiment_section("imagenet_resnet", "small")
    rows = report.published("small", "imagenet_resnet")
    assert len(rows) == len(section["arms"]) * len(section["seeds"])
    assert {row["status"] for row in rows} == {"finished"}
    assert len(report.sets(rows)) == 2
    for own in report.sets(rows):
        values = {arm: list(seeds.values()) for arm, seeds in report.by_arm(own).items()}
        floor, *arms = values
        for arm in arms:
            assert arm == "official" or min(values[arm]) > max(values[floor]) + 3
    for row in rows:
        assert bool(row["binary_layers"]) == (row["recipe"]["weight_binarizer"] is not None)
        assert all(layer["weight values per channel"] == 2 for layer in row["binary_layers"])


@pytest.mark.parametrize("experiment", SAMPLE)
def test_binary_rows_were_seen_binary(experiment):
    """In every published binary run two values entered each binary layer and two per channel multiplied them."""
    for row in report.published("sample", experiment):
        binary = row["recipe"]["weight_binarizer"] is not None
        assert bool(row["binary_layers"]) == binary
        for layer in row["binary_layers"]:
            assert set(layer["input values"]) == {-1.0, 1.0}
            assert layer["weight values per channel"] == 2


def test_rows_of_this_machine_are_newer_than_the_clone():
    """What lies in runs/sample was trained here: `make repro` in a clone brings no rows along."""
    born = min(path.stat().st_mtime for path in (ROOT / ".git").iterdir())  # what git wrote first and left alone
    for path in (ROOT / "runs" / "sample").glob("*/*/row.json"):
        finished = datetime.datetime.fromisoformat(json.loads(path.read_text())["finished_at"]).timestamp()
        assert finished >= born - 1, path


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "arm"), [("imagenet_resnet", "linear classifier"),
                                                 ("linear_vs_soft", "ste"), ("coco_pose", "float")])  # fmt: skip
def test_a_published_run_comes_out_again(experiment, arm, tmp_path):
    """One run of each experiment, really trained again: the same digits as the row this machine made, if it made
    one; within 2 points of accuracy or 0.05 AP of the published row, whose machine may have been another."""
    published = next(r for r in report.published("sample", experiment) if (r["arm"], r["seed"]) == (arm, 0))
    recipe = config.recipe(experiment, "sample", arm, seed=0)
    again, own = run.run(recipe, tmp_path), run.folder_of(recipe) / "row.json"
    headline = published["headline"]
    if own.is_file():
        assert again["metrics"] == json.loads(own.read_text())["metrics"]
    tolerance = {"top1": 2.0, "AP": 0.05}[headline]
    assert again["metrics"][headline] == pytest.approx(published["metrics"][headline], abs=tolerance)


def nbval(*files):
    """nbval over notebooks that read published rows."""
    options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(ROOT / "tests" / "nbval.cfg")]
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *map(str, files)],
                          cwd=ROOT, env=PUBLISHED_ONLY, capture_output=True, text=True, check=False)  # fmt: skip


@pytest.mark.slow
def test_notebooks_give_their_outputs():
    """Every cell of every notebook gives the output that is committed, from the published rows."""
    done = nbval(*sorted((ROOT / "notebooks").glob("*.ipynb")))
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.slow
def test_a_changed_output_is_noticed():
    """A committed number that is not what the cell gives makes nbval fail."""
    book = nbformat.read(ROOT / "notebooks" / "03-linear-vs-soft.ipynb", 4)
    cell = next(cell for cell in book.cells if cell.get("id") == "answer")
    text = cell.outputs[0].data["text/markdown"]
    cell.outputs[0].data["text/markdown"] = text.replace("over 3 seeds", "over 99 seeds")
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as folder:  # inside the clone, where notebooks find it
        changed = Path(folder) / "changed.ipynb"
        nbformat.write(book, changed)
        done = nbval(changed)
    assert done.returncode == 1
    assert "1 failed" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "imagenet_resnet", "--set", "epochz=3"], "unknown recipe key epochz; known, nearest first: epochs"),
        (["run", "imagenet_resnet", "--set", "epochs=-1"], "recipe key epochs must be finite and at least 0"),
        (["run", "imagenet_resnet", "--set", "epochs=0"], "epochs is 0, which only judges the file that init_from"),
        (["run", "imagenet_resnet", "--set", "learning_rate=-1"], "recipe key learning_rate must be above 0"),
        (["run", "imagenet_resnet", "--set", "batch_size=99999"], "there are 10000 training items"),
        (["run", "imagenet_resnet", "--set", "weight_binarizer=stee"], "unknown binarizer 'stee'; known, nearest"),
        (["run", "imagenet_resnet", "--set", "data.root=/nowhere"], "finds no data in /nowhere"),
        (["run", "coco_pose", "--set", "data.root=/nowhere"], "person_keypoints_{train,val}2017.json"),
        (["run", "imagenet_resnet", "--profile", "small"], "Name the folder with"),
        (["run", "linear_vs_sofd"], "unknown experiment 'linear_vs_sofd'; known, nearest first: linear_vs_soft"),
        (["evaluate", "no.pt"], "there is no checkpoint no.pt"),
        (["predict", "README.md", "x.png"], "cannot be read as a checkpoint"),
        (["notebook", "05-verdict"], "unknown notebook '05-verdict'; known, nearest first: 04-verdict"),
    ],
    ids=lambda value: " ".join(value[1:4]) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence(words, sentence, tmp_path):
    """A user's mistake ends with status 1 and one sentence that names the thing, not with a traceback."""
    where = ["--runs", tmp_path] if words[0] == "run" else []
    done = command(*words, *where, env={**os.environ, "BNC_DATA": "/nowhere"})
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("row.json"))


def test_a_run_then_evaluate_and_predict(tmp_path):
    """`run` prints its row's path last; its checkpoint is judged the same again and names a picture's class."""
    done = command("run", "linear_vs_soft", "--arm", "mlp", "--seed", 1, "--runs", tmp_path, "--set", "epochs=1",
                   "--set", "data.train_limit=640", "--set", "width=8")  # fmt: skip
    path = Path(done.stdout.strip().splitlines()[-1])
    row = json.loads(path.read_text())
    again = command("evaluate", path.parent / "checkpoint.pt")
    assert json.loads(again.stdout)["top1"] == row["metrics"]["top1"]
    picture = next((ROOT / "data/people/val2017").glob("*.jpg"))
    guess = json.loads(command("predict", path.parent / "checkpoint.pt", picture).stdout)
    assert len(guess["classes"]) == 5
    assert sum(guess["classes"].values()) + 1e-3 > 0.99 or max(guess["classes"].values()) <= 1


def test_list_binarizers():
    """Every binarizer stands in the list with its source."""
    head, *lines, left_out = command("list", "binarizers").stdout.splitlines()
    assert left_out.startswith("left out: MetaQuant: ")
    assert head.split() == ["name", "parameters", "domain", "source"]
    assert [line.split()[0] for line in lines] == list(BINARIZERS)
    assert all(re.search(r"\d{4}\.\d{4,5}|spikingjelly|CVPR|bitorch", line) for line in lines)
