"""The pipeline as its user meets it: stages, notebooks, published rows, the command line."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from bnc_repro.__main__ import main
from bnc_repro.binarizers.registry import BINARIZERS
from bnc_repro.evidence import same_digits, statistics, tables
from bnc_repro.evidence.rows import by_arm, published, sets
from bnc_repro.pages import notebook, publish, stages
from bnc_repro.recipe.build import make_recipe, recipe_identity
from bnc_repro.recipe.profiles import experiment_section, experiments, recipe_of, seeds_of
from bnc_repro.recipe.schema import EXPERIMENTS, PROFILES
from bnc_repro.run import ledger
from bnc_repro.run.code import PACKAGE, TASK_MODULES, file_of, module_fingerprints, modules, versions
from bnc_repro.run.device import device_name, pick_device
from bnc_repro.run.execute import run
from bnc_repro.run.identity import data_fingerprint, folder_of, recipe_fingerprint
from bnc_repro.run.pinned import PINNED_DEVICE
from bnc_repro.training import checkpoint

ROOT = Path(__file__).parents[2]
SAMPLE = {name: experiment_section(name, "sample") for name in EXPERIMENTS}
STAGE_FILES = [ROOT / "dvc.yaml", *sorted(ROOT.glob("pipelines/*/dvc.yaml"))]


def command(*words, **options):
    """python -m bnc_repro WORDS in the clone."""
    words = [sys.executable, "-m", "bnc_repro", *map(str, words)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def in_process(monkeypatch):
    """Calls the command line with WORDS in this process, where the process is not what is tested."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["bnc_repro", *map(str, words)])
        main()

    return call


def test_stages_notice_other_data(tmp_path, monkeypatch):
    """What `data state` writes for the stages follows the pictures, and names what is not there."""
    folder, target = tmp_path / "cifar10" / "train" / "cat", tmp_path / "state.json"
    folder.mkdir(parents=True)
    monkeypatch.setenv("BNC_DATA", str(tmp_path))
    said, found = in_process(monkeypatch), []
    for content in (b"one", b"two"):
        (folder / "0.png").write_bytes(content)
        said("data", "state", "imagenet_resnet", "--profile", "small", "--target", target)
        found.append(json.loads(target.read_text()))
    assert found[0].keys() == {"$BNC_DATA/cifar10", "$BNC_DATA/tiny-imagenet-40"}
    assert found[0]["$BNC_DATA/cifar10"] != found[1]["$BNC_DATA/cifar10"]
    assert found[0]["$BNC_DATA/tiny-imagenet-40"] is None
    target.write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"state\.json is there and holds no state of data folders: name another file"):
        stages.write_state("imagenet_resnet", "sample", str(target))
    assert target.read_text() == '{"mine": 1}'


def stages_of(file):
    """The stages of a pipeline by name, as DVC resolves them."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    written, found = yaml.safe_load(file.read_text())["stages"], {}
    for name in (line.rpartition(":")[2] for line in done.stdout.split()):
        group, _, key = name.partition("@")
        stage = written[group]
        if key:
            item = stage["foreach"][key] if isinstance(stage["foreach"], dict) else key
            text = json.dumps(stage["do"]).replace("${key}", key).replace("${item}", item)
            stage = json.loads(text)
        found[name] = stage
    return found


@pytest.mark.parametrize("file", STAGE_FILES, ids=lambda file: file.parent.name)
def test_stages_depend_on_what_they_run(file):
    """A stage that trains depends on its data, its parameters and its code; one that reads on the rows, on its notebook
    and on the code that it runs."""
    profile = "sample" if file.parent == ROOT else file.parent.name
    trained = set(experiments(profile))
    for name, stage in stages_of(file).items():
        deps, words = stage.get("deps", []), stage["cmd"].split()[3:]
        if words[0] in ("run", "sweep"):
            experiment = words[1]
            trained.discard(experiment)
            root = recipe_of(experiment, profile).data.root
            assert {f"runs/{profile}/data/{experiment}.json", root} & set(deps), f"{name} of {file}"
            assert f"runs/{profile}/code/{experiment}.json" in deps, f"{name} of {file}"
            assert experiment in str(stage["params"])
        elif words[0] == "notebook":
            assert f"runs/{profile}/code/{words[1]}.json" in deps, f"{name} of {file}"
            experiment = notebook.STAGES[words[1]]
            assert not experiment or f"runs/{profile}/rows/{experiment}" in deps, f"{name} of {file}"
    assert not trained, f"{file} trains no {trained}"


def really_imported(*names):
    """Modules of the package that are really imported with those, by a fresh Python."""
    code = f"import sys, {', '.join(f'bnc_repro.{name}' for name in names)}"
    code += "; print(*(n for n in sys.modules if n.startswith('bnc_repro.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[2] for name in done.stdout.split()}


@pytest.mark.parametrize("task", sorted(set(TASK_MODULES.values())))
def test_the_code_of_a_run_is_what_it_imports(task):
    """The closure that is read from the text holds every module that Python loads for a run."""
    imported = really_imported("run.execute", task)
    for experiment in (name for name, own in TASK_MODULES.items() if own == task):
        assert imported <= set(modules(experiment))


def test_the_code_of_a_notebook_is_what_its_cells_name(tmp_path):
    """The file of a stage lists the modules that the cells name, those of its experiment, and the cells themselves; a
    module that nothing of it imports is not there."""
    written = {path.stem: json.loads(path.read_text()) for path in stages.write_code(tmp_path, "sample")}
    assert written.keys() == {*notebook.STAGES, *EXPERIMENTS}
    page = written["02-coco-pose"]
    read = {"evidence.drawing", "cost", "poses.networks", "evidence.hypotheses", "training.loop", "poses.task"}
    assert read | {"notebooks/02-coco-pose.ipynb"} <= page.keys()
    assert not {"convert", "images.networks", "images.task"} & page.keys()
    assert {"images.task", "poses.task"} <= written["04-verdict"].keys()
    assert written["linear_vs_soft"] == module_fingerprints(modules("linear_vs_soft"))


def edited(copy, module, old, new):
    """Change a module's text in a copy of the clone, once."""
    path = copy / "src" / "bnc_repro" / file_of(module).relative_to(PACKAGE)
    text = path.read_text()
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1))


@pytest.mark.slow
def test_words_leave_the_stages_alone_and_code_does_not(tmp_path):
    """A comment, a docstring and a reformatted line in the loop change no fingerprint and no file that a stage depends
    on, nor what `dvc status` says; a changed number in the pose networks makes what depends on it, and nothing else,
    stale; a changed `+` in the loop all that trains."""
    copy = tmp_path / "clone"
    shutil.copytree(
        ROOT,
        copy,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            ".venv", "runs", "data", "data-store", "cache", "tmp", ".git", "small", "presets", "__pycache__"
        ),
    )
    environment = os.environ | {"PYTHONPATH": str(copy / "src")}

    def run_there(*words):
        return subprocess.run(
            [sys.executable, "-m", *words], cwd=copy, env=environment, capture_output=True, text=True, check=True
        ).stdout

    def code():
        run_there("bnc_repro", "code")
        return {path.name: path.read_text() for path in (copy / "runs/sample/code").iterdir()}

    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)
    before, status = code(), run_there("dvc", "status", "code")
    edited(copy, "training.loop", '"""', '"""Another word. ')
    edited(copy, "training.loop", "    return curve\n", "    return (\n        curve\n    )  # a comment\n\n\n")
    assert code() == before
    assert run_there("dvc", "status", "code") == status
    edited(copy, "poses.networks", "before = head", "before = head + 0")
    after = code()
    stale = {name for name in before if before[name] != after[name]}
    assert stale == {"coco_pose.json", "02-coco-pose.json", "04-verdict.json", "07-what-binary-buys.json"}
    edited(copy, "training.loop", "epoch + 1", "epoch - -1")
    last = code()
    stale = {name for name in after if after[name] != last[name]}
    without_runs = {"00-binarizing-by-classification.json", "06-the-answer-on-cifar10.json"}  # they read rows alone
    assert stale == {f"{name}.json" for name in (*EXPERIMENTS, *notebook.STAGES)} - without_runs


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_makes_recipes(profile):
    """Every arm of every experiment of every profile is a valid recipe."""
    for experiment in experiments(profile):
        for arm in experiment_section(experiment, profile)["arms"]:
            assert recipe_of(experiment, profile, arm).profile == profile


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


@pytest.mark.parametrize(
    ("profile", "experiment"),
    [(profile, experiment) for profile in same_digits.PROFILES for experiment in experiments(profile)],
)
def test_published_rows_are_current(profile, experiment):
    """results/ holds the row of every arm and seed, made by today's code or by code that the ledger joins to it, from
    the data of this tree.

    After an edit that is meant to change no number: `make same-digits`. After one that does: train, `make publish`.
    """
    section, rows = experiment_section(experiment, profile), published(profile, experiment)
    assert {(row["arm"], row["seed"]) for row in rows} == {
        (arm, seed) for arm, changes in section["arms"].items() for seed in seeds_of(changes, section["seeds"])
    }
    assert len(ledger.rows(profile, experiment)) == len({row["fingerprint"] for row in rows}), "rows of no arm"
    stale = {row["fingerprints"]["source"] for row in rows if not row["current"]}
    assert not stale, "run `make same-digits`, or train and publish anew"
    for row in rows:
        recipe = make_recipe(**row["recipe"])
        assert row["fingerprints"]["recipe"] == recipe_fingerprint(recipe_identity(recipe))
        if profile != "small":
            assert row["fingerprints"]["data"] == data_fingerprint(recipe.data.folder)


def test_the_tuning_is_current():
    """The rows that chose `small`'s learning rates too."""
    rows = ledger.rows("small", "tuning")
    assert rows
    assert all(ledger.is_current(row) for row in rows)


@pytest.mark.parametrize("arm", ["linear-fixed", "mlp-fixed"])
def test_the_preset_fixed_is_reliable_over_twenty_seeds(arm):
    """In the published study no seed collapses, turns round or closes its gates, and none loses to straight-through."""
    rows = published("presets", "linear_vs_soft")
    own = [row for row in rows if row["arm"] == arm]
    assert len(own) == 20
    for row in own:
        assert row["metrics"]["top1"] > 10 + 10  # chance, and ten points
        assert row["metrics"]["slope_at_0"] > 0
        assert row["metrics"]["open_share"] >= 0.05
    values = by_arm(rows)
    assert statistics.paired(values[arm], values["ste"]).low > -0.5


def test_the_reliability_table_counts_collapse_and_reversal():
    """Runs near chance and diverged ones collapse, a slope of 0 or below is reversed, pairs are taken by seed."""

    def row(arm, seed, top1, slope=None):
        state = {} if slope is None else {"slope_at_0": slope, "open_share": 0.5}
        return {
            "arm": arm,
            "seed": seed,
            "status": "finished" if top1 else "diverged",
            "headline": "top1",
            "metrics": {"top1": top1, **state} if top1 else {},
        }

    rows = [row("ste", seed, 80.0 + seed) for seed in range(3)]
    rows += [row("good", seed, 81.0 + seed, 1.0) for seed in range(3)]
    rows += [row("bad", 0, 12.0, -0.5), row("bad", 1, 79.0, 0.2), row("bad", 2, None)]
    table = tables.reliability(rows, reference="ste", chance=10)
    assert table.loc["bad", ["runs", "collapsed", "reversed"]].tolist() == [3, 2, 1]
    assert table.loc["good", ["runs", "collapsed", "reversed", "least open"]].tolist() == [3, 0, 0, "0.50"]
    assert table.loc["good", "minus ste"] == "+1.00 [+1.00, +1.00]"


def test_the_pages_tables_are_current():
    """The tables between marks are what the published rows say, and none has lost its marks."""
    texts = [(ROOT / page).read_text() for page in publish.PAGES]
    blocks = publish.blocks()
    assert [publish.with_results(text, blocks) for text in texts] == texts, "run `make publish`"
    assert sorted(re.findall(r"<!-- (\w+):begin -->", "".join(texts))) == sorted(publish.STANDS_ON)


def test_a_published_row_takes_the_place_of_its_recipes_older_one(tmp_path):
    """The older row of the same recipe goes, rows of other recipes stay, and publishing again changes nothing."""
    first, second = published("sample", "linear_vs_soft")[:2]
    results = tmp_path / "results"
    results.mkdir()
    for name, row in (("old", first), ("other", second)):
        (results / f"{name}.json").write_text(json.dumps(row))
    (tmp_path / "new").mkdir()
    source = tmp_path / "new" / "row.json"
    source.write_text(json.dumps(first | {"finished_at": "later"}))
    for _ in range(2):
        assert publish._copied({source: {"arm": "mlp"}}, results) == [results / "new.json"]
        assert {path.name for path in results.glob("*")} == {"new.json", "other.json"}
    kept = json.loads((results / "new.json").read_text())
    assert (kept["finished_at"], kept["arm"]) == ("later", "mlp")


def test_no_published_row_goes_without_being_named(tmp_path):
    """A profile without arms or seeds names its rows, of whom none is wanted; with them none is superfluous."""
    row = published("sample", "linear_vs_soft")[0]
    (tmp_path / "kept.json").write_text(json.dumps(row))
    recipe = make_recipe(**row["recipe"])
    assert publish.of_no_arm(tmp_path, []) == [tmp_path / "kept.json"]
    assert publish.of_no_arm(tmp_path, [recipe]) == []


def test_floors_are_passed():
    """On the sample, over three seeds: networks beat softmax regression, pose networks the mean pose, by far."""
    imagenet, coco, _ = (
        {arm: list(v.values()) for arm, v in by_arm(rows).items()} for rows in publish.published_rows()
    )
    values = imagenet | {f"pose {arm}": own for arm, own in coco.items()}
    mean = {arm: sum(own) / len(own) for arm, own in values.items()}
    assert all(len(values) == 3 for values in (*imagenet.values(), *coco.values()))
    assert mean["float"] >= mean["softmax regression"] + 3
    assert mean["binary"] >= mean["softmax regression"] + 1
    assert mean["pose float"] > 0.5
    assert mean["pose binary"] > 0.35
    assert min(mean["pose float"], mean["pose binary"]) >= mean["pose mean pose"] + 0.25


def test_small_networks_stand_above_softmax_regression():
    """On CIFAR-10 and Tiny-ImageNet every seed of every arm but the released rule beats every seed of the floor; every
    arm and seed of the profile is published, finished and binary where it says so."""
    section = experiment_section("imagenet_resnet", "small")
    rows = published("small", "imagenet_resnet")
    assert len(rows) == len(section["arms"]) * len(section["seeds"])
    assert {row["status"] for row in rows} == {"finished"}
    assert len(sets(rows)) == 2
    for own in sets(rows):
        values = {arm: list(seeds.values()) for arm, seeds in by_arm(own).items()}
        floor, *arms = values
        for arm in arms:
            assert arm == "official" or min(values[arm]) > max(values[floor]) + 3
    for row in rows:
        assert bool(row["binary_layers"]) == (row["recipe"]["weight_binarizer"] is not None)
        assert all(layer["weight values per channel"] == 2 for layer in row["binary_layers"])


@pytest.mark.parametrize("experiment", SAMPLE)
def test_binary_rows_were_seen_binary(experiment):
    """In every published binary run two values entered each binary layer and two per channel multiplied them."""
    for row in published("sample", experiment):
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


TOLERANCE = {"top1": 2.0, "AP": 0.05}  # where torch is another, or a processor's settings are not pinned


def published_and_own(experiment, arm):
    """The published row of an arm's first seed, that of this machine if it made one, and the recipe."""
    row = next(r for r in published("sample", experiment) if (r["arm"], r["seed"]) == (arm, 0))
    recipe = recipe_of(experiment, "sample", arm, seed=0)
    own = folder_of(recipe) / "row.json"
    return row, json.loads(own.read_text()) if own.is_file() else None, recipe


def same_digits_expected(row, device):
    """Whether a row's digits must come out here: torch is the same, and both are pinned, on whatever processors."""
    both_pinned = row["device"].endswith(PINNED_DEVICE) and device.endswith(PINNED_DEVICE)
    return both_pinned and row["versions"]["torch"] == versions()["torch"]


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "arm"), [("imagenet_resnet", "softmax regression"), ("coco_pose", "mean pose")])
def test_a_published_run_comes_out_again(experiment, arm, tmp_path):
    """The cheapest run of each task, really made again from first to last: the same digits as the row this machine
    made, if it made one, and as the published row, within 2 points of accuracy or 0.05 AP of it on other settings."""
    row, own, recipe = published_and_own(experiment, arm)
    again = run(recipe, tmp_path)
    assert own is None or again["metrics"] == own["metrics"]
    if same_digits_expected(row, again["device"]):
        assert again["metrics"] == row["metrics"]
    headline = row["headline"]
    assert again["metrics"][headline] == pytest.approx(row["metrics"][headline], abs=TOLERANCE[headline])


class Stopped(Exception):
    """A run that was told to end after an epoch."""


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "arm", "epochs"), [("linear_vs_soft", "ste", 1), ("coco_pose", "float", 2)])
def test_a_published_run_begins_again(experiment, arm, epochs, tmp_path, monkeypatch):
    """A residual network's run of each task, really trained by its whole recipe and stopped after so many epochs: each
    number of its curve is that of the row this machine made, if it made one, and of the published one; on other
    settings the losses are within a twentieth and what was judged within `TOLERANCE`."""
    row, own, recipe = published_and_own(experiment, arm)
    assert recipe.epochs > epochs
    found = []

    def save(folder, state):
        if state["epoch"] == epochs:
            found.extend(json.loads(json.dumps(state["curve"])))
            raise Stopped

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(Stopped):
        run(recipe, tmp_path)

    def digits(curve):
        return [{k: v for k, v in epoch.items() if k not in ("seconds", "cpu_seconds")} for epoch in curve[:epochs]]

    assert len(found) == epochs
    assert own is None or digits(found) == digits(own["curve"])
    if same_digits_expected(row, device_name(pick_device(recipe))):
        assert digits(found) == digits(row["curve"])
    headline = row["headline"]
    for new, old in zip(found, row["curve"]):
        assert new["loss"] == pytest.approx(old["loss"], rel=0.05)
        assert new.keys() == old.keys()
        assert headline not in old or new[headline] == pytest.approx(old[headline], abs=TOLERANCE[headline])


def nbval(*files, reuse="only"):
    """nbval over notebooks that read published rows; with "only" one that would train is an error."""
    options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(ROOT / "tests" / "nbval.cfg")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *map(str, files)],
        cwd=ROOT,
        env=os.environ | {"BNC_REPRO_REUSE": reuse},
        capture_output=True,
        text=True,
        check=False,
    )


# Each with what its rows are taken by. 03 trains the network that its cells tagged `checkpoint` look at; without them
# the report runs it by "only".
TOGETHER = (("07", "04"), ("05", "06"), ("02", "00"), ("01",), ("03",))


@pytest.mark.slow
@pytest.mark.parametrize("numbers", TOGETHER, ids=" ".join)
def test_notebooks_give_their_outputs(numbers):
    """Every cell of every notebook gives the output that is committed, from the published rows."""
    files = [path for number in numbers for path in (ROOT / "notebooks").glob(f"{number}-*.ipynb")]
    done = nbval(*files, reuse="results" if "03" in numbers else "only")
    assert done.returncode == 0, done.stdout[-3000:]


def test_every_notebook_is_compared():
    assert sorted(sum(TOGETHER, ())) == [path.name[:2] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.mark.slow
def test_a_changed_output_is_noticed(tmp_path):
    """A committed number that is not what the cell gives makes nbval fail, the true one before it passes."""
    pages = []
    for number in (42, 99):
        output = nbformat.v4.new_output("execute_result", {"text/plain": f"{number}"}, execution_count=1)
        cell = nbformat.v4.new_code_cell(execution_count=1, source="6 * 7", outputs=[output])
        pages.append(tmp_path / f"{number}.ipynb")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), pages[-1])
    done = nbval(*pages)
    assert done.returncode == 1, done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert done.stdout.startswith(".F"), done.stdout  # in the order of the pages


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "imagenet_resnet", "--set", "epochz=3"], "unknown recipe key epochz; known, nearest first: epochs"),
        (["run", "imagenet_resnet", "--set", "epochs=-1"], "recipe key epochs must be finite and at least 0"),
        (["run", "imagenet_resnet", "--set", "epochs=0"], "epochs is 0, which only judges the file that init_from"),
        (["run", "imagenet_resnet", "--set", "learning_rate=-1"], "recipe key learning_rate must be above 0"),
        (["run", "imagenet_resnet", "--set", "batch_size=10001"], "there are 10000 training items"),
        (
            ["run", "imagenet_resnet", "--set", "batch_size=1000000"],
            "its layers put out 0.4 MiB for each of 1000000 images",
        ),
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
def test_a_mistake_is_one_sentence(words, sentence, tmp_path, monkeypatch):
    """A user's mistake ends with status 1 and one sentence that names the thing, before anything is trained."""
    where = ["--runs", tmp_path] if words[0] == "run" else []
    monkeypatch.setenv("BNC_DATA", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["bnc_repro", *map(str, [*words, *where])])
    with pytest.raises(SystemExit, match=re.escape(sentence)) as stopped:
        main()
    assert str(stopped.value).startswith("bnc_repro: ")
    assert not list(tmp_path.rglob("row.json"))


@pytest.mark.parametrize("words", [["list", "experimentz"], ["evaluate", "no.pt"]])
def test_a_mistake_in_a_process_of_its_own_shows_no_traceback(words):
    """What a shell sees: a status that is not 0, the sentence on stderr."""
    done = command(*words)
    assert done.returncode in (1, 2)
    assert words[-1] in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_then_evaluate_and_predict(tmp_path, monkeypatch, capsys):
    """`run` prints its row's path last; its checkpoint is judged the same again and names a picture's class."""
    done = command(
        "run",
        "linear_vs_soft",
        "--arm",
        "mlp",
        "--seed",
        1,
        "--runs",
        tmp_path,
        "--set",
        "epochs=1",
        "--set",
        "data.train_limit=640",
        "--set",
        "width=8",
    )
    path = Path(done.stdout.strip().splitlines()[-1])
    row = json.loads(path.read_text())
    call = in_process(monkeypatch)
    call("evaluate", path.parent / "checkpoint.pt")
    assert json.loads(capsys.readouterr().out)["top1"] == row["metrics"]["top1"]
    picture = next((ROOT / "data/people/val2017").glob("*.jpg"))
    call("predict", path.parent / "checkpoint.pt", picture)
    guess = json.loads(capsys.readouterr().out)
    assert len(guess["classes"]) == 5
    chances = list(guess["classes"].values())
    assert chances == sorted(chances, reverse=True)
    assert 0.5 - 1e-3 <= sum(chances) <= 1 + 1e-3  # the five best of ten classes


def test_list_binarizers():
    """Every binarizer stands in the list with its source."""
    head, *lines, left_out = command("list", "binarizers").stdout.splitlines()
    assert left_out.startswith("left out: MetaQuant: ")
    assert head.split() == ["name", "parameters", "domain", "source"]
    assert [line.split()[0] for line in lines] == list(BINARIZERS)
    assert all(re.search(r"\d{4}\.\d{4,5}|spikingjelly|CVPR|bitorch", line) for line in lines)
