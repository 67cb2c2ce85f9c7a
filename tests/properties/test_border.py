"""Whatever comes in ends well, or in one sentence: recipes, params.yaml, annotations, detections, manifests, idx files,
checkpoints, rows, the ledger and command lines, damaged at random.

BNC_PROPERTY_INPUTS multiplies the number of inputs: 1 makes about 1,200, `BNC_PROPERTY_INPUTS=5 make test ARGS='-k
border'` 6,000.
"""

import copy
import io
import json
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnc_repro.__main__ import main
from bnc_repro.images import manifest
from bnc_repro.poses import coco_eval
from bnc_repro.poses.people import read_people
from bnc_repro.poses.skeleton import COCO_PERSON
from bnc_repro.recipe.build import as_dict, make_recipe, parse_settings, read_yaml
from bnc_repro.recipe.clone import project_root
from bnc_repro.recipe.parameters import read_parameters
from bnc_repro.recipe.profiles import recipe_of
from bnc_repro.recipe.schema import Recipe, flat
from bnc_repro.run import judge, ledger
from bnc_repro.run.ledger import read_row
from bnc_repro.training import checkpoint

TIMES = int(os.environ.get("BNC_PROPERTY_INPUTS", "1"))
ROOT = project_root()
PACKAGE = ROOT / "src" / "bnc_repro"
CPU = torch.device("cpu")
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-3, 3), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def inputs(count: int):
    """So many random inputs, the same ones each time."""
    return settings(
        max_examples=count * TIMES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def sentence_or(call, *arguments):
    """The result, or None where a sentence of ours refuses; whatever else is raised is the test's failure, somebody
    else's ValueError too."""
    try:
        return call(*arguments)
    except ValueError as error:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is None or PACKAGE not in Path(frame.tb_frame.f_code.co_filename).parents or len(str(error)) < 20:
            raise AssertionError(f"not our sentence: {error}") from error
        return None


KEYS = [key for key, *_ in flat(Recipe())]


def nested(values: dict) -> dict:
    result: dict = {}
    for key, value in values.items():
        inner, *outer = reversed(key.split("."))
        part = {inner: value}
        for name in outer:
            part = {name: part}
        for name, content in part.items():
            old = result.get(name)
            result[name] = {**old, **content} if isinstance(old, dict) and isinstance(content, dict) else content
    return result


SENSIBLE = st.sampled_from(
    [0, 1, 2, 5, 0.5, 1e-3, True, False, "linear", "steps", "mlp", "ste", "coco", "cifar10", [1]]
)


@inputs(300)
@given(st.dictionaries(st.sampled_from(KEYS), st.one_of(SENSIBLE, JUNK), max_size=4))
def test_recipes(values):
    """Accepted recipes survive their row, and name nothing that their own keys call senseless."""
    recipe = sentence_or(lambda: make_recipe(**nested(values)))
    if recipe is not None:
        assert make_recipe(**as_dict(recipe)) == recipe
        assert bool(recipe.milestones) == (recipe.schedule == "steps")
        assert not recipe.epochs or recipe.warmup_epochs < recipe.epochs
        learns = {"linear", "mlp"} & {recipe.weight_binarizer, recipe.activation_binarizer}
        assert learns or (recipe.preset, recipe.rule, recipe.per_layer, recipe.hidden) == ("fixed", "", False, 0)


LINES = (ROOT / "params.yaml").read_text().splitlines()


@st.composite
def damaged_lines(draw):
    """params.yaml with up to three lines lost, doubled, cut or written over."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 3))):
        i = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["lose", "double", "cut", "value", "indent"]))
        if how == "lose":
            del lines[i]
        elif how == "double":
            lines.insert(i, lines[i])
        elif how == "cut":
            lines[i] = lines[i][: draw(st.integers(0, len(lines[i])))]
        elif how == "value":
            lines[i] = (
                lines[i].partition(":")[0] + ": " + draw(st.sampled_from(["", "3", "[", "{a", "x", "null", "[1, 1]"]))
            )
        else:
            lines[i] = " " + lines[i]
    return "\n".join(lines)


@inputs(200)
@given(st.one_of(damaged_lines(), st.text(max_size=40)))
def test_params_yaml(tmp_path_factory, text):
    """A file that passes has sections whose recipes are recipes, or a sentence says which arm is none."""
    file = tmp_path_factory.getbasetemp() / "params.yaml"
    file.write_text(text, encoding="utf-8")
    sections = sentence_or(read_parameters, file)
    for name, section in (sections or {}).items():
        if name == "tuning" or name.startswith("."):
            continue
        assert section["seeds"]
        for arm in section["arms"].values():
            changes = {key: value for key, value in arm.items() if key not in ("estimator", "placement")}
            sentence_or(lambda s=section, c=changes, n=name: make_recipe(experiment=n, **{**s["recipe"], **c}))


@inputs(150)
@given(st.one_of(st.text(max_size=20), st.tuples(st.sampled_from(KEYS), st.text(max_size=10)).map("=".join)))
def test_settings(text):
    values = sentence_or(parse_settings, [text])
    if values is not None:
        sentence_or(lambda: make_recipe(**values))
        assert "=" in text


@inputs(60)
@given(st.text(max_size=30))
def test_yaml(text):
    sentence_or(read_yaml, text)


def places(document, path=()):
    """Every place in a JSON document."""
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(items)[:6]:
        yield from places(value, (*path, key))


@st.composite
def damaged(draw, document):
    """A JSON document with up to three places lost, doubled or of another kind."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(document))))
        value = draw(JUNK)
        if not path:
            continue
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.booleans()) and isinstance(holder, dict):
            del holder[path[-1]]
        elif draw(st.booleans()) and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        else:
            holder[path[-1]] = value
    return document


PEOPLE = (
    json.loads((ROOT / "data/people/annotations/person_keypoints_val2017.json").read_text())
    if (ROOT / "data/people/annotations/person_keypoints_val2017.json").is_file()
    else None
)
FEW = PEOPLE and {
    **PEOPLE,
    "images": PEOPLE["images"][:4],
    "annotations": [a for a in PEOPLE["annotations"] if a["image_id"] in {i["id"] for i in PEOPLE["images"][:4]}],
}


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """A folder of four people in COCO's form."""
    root = tmp_path_factory.mktemp("people")
    (root / "annotations").mkdir()
    (root / "val2017").mkdir()
    for image in FEW["images"]:
        shutil.copy(ROOT / "data/people/val2017" / image["file_name"], root / "val2017")
    for split in ("train", "val"):
        (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(FEW))
    return root


def spoken(*words: str) -> tuple[int, str]:
    """The exit status and the words of a command, run in this process."""
    output, before = io.StringIO(), sys.argv
    sys.argv = ["bnc_repro", *words]
    try:
        with redirect_stdout(output), redirect_stderr(output):
            main()
        return 0, output.getvalue()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        return status, output.getvalue() + ("" if isinstance(error.code, int) else str(error.code))
    finally:
        sys.argv = before


@inputs(150)
@given(data=st.data())
def test_annotations(people, data):
    """A damaged annotation file is read, or refused by a sentence; the check says the same without a traceback."""
    document = data.draw(damaged(FEW))
    (people / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(document))
    sentence_or(read_people, people, "val2017")
    status, _ = spoken("data", "check", str(people), "--kind", "coco")
    assert status in (0, 1)


BOXES = FEW and [
    {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.5} for a in FEW["annotations"]
]


@inputs(80)
@given(data=st.data())
def test_detections(people, data):
    file = people / "boxes.json"
    file.write_text(json.dumps(data.draw(damaged(BOXES))))
    (people / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(FEW))
    sentence_or(coco_eval.read_detections, str(file), people, "val2017", COCO_PERSON)


def flipped(draw, content: bytes) -> bytes:
    """Bytes lost at the end, written over or put in."""
    at = draw(st.integers(0, len(content)))
    how = draw(st.sampled_from(["cut", "over", "in"]))
    more = draw(st.binary(min_size=1, max_size=4))
    return {
        "cut": content[:at],
        "over": content[:at] + more + content[at + len(more) :],
        "in": content[:at] + more + content[at:],
    }[how]


@inputs(60)
@given(data=st.data())
def test_manifests(tmp_path_factory, data):
    root = tmp_path_factory.getbasetemp() / "listed"
    root.mkdir(exist_ok=True)
    (root / "a.txt").write_text("a")
    (root / "manifest.csv").unlink(missing_ok=True)
    content = manifest.write(root, [root / "a.txt"]).read_bytes()
    (root / "manifest.csv").write_bytes(flipped(data.draw, content))
    sentence_or(manifest.read, root)
    sentence_or(manifest.changed, root)


@inputs(60)
@given(data=st.data())
def test_rows(tmp_path_factory, data):
    source = sorted((ROOT / "results/sample/linear_vs_soft").glob("*.json"))[0]
    file = tmp_path_factory.getbasetemp() / "row.json"
    if data.draw(st.booleans()):
        file.write_bytes(flipped(data.draw, source.read_bytes()))
    else:
        file.write_text(json.dumps(data.draw(damaged(json.loads(source.read_text())))))
    row = sentence_or(read_row, file)
    assert row is None or make_recipe(**row["recipe"])


@inputs(60)
@given(data=st.data())
def test_the_ledger(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "equivalent.csv"
    file.write_bytes(flipped(data.draw, ledger.path().read_bytes()))
    before = ledger.path
    ledger.path = lambda: file
    try:
        sentence_or(ledger.joined, "sample", "linear_vs_soft")
    finally:
        ledger.path = before


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict:
    """The state of a tiny network with its recipe, as a run keeps it."""
    from bnc_repro.run.tasks import task_module

    recipe = recipe_of("imagenet_resnet", "sample", "binary", width=8, blocks=[1])
    network = task_module("imagenet_resnet").make_network(recipe, 10)
    return {"network": network.state_dict(), "recipe": as_dict(recipe), "labels": [str(i) for i in range(10)]}


@inputs(100)
@given(data=st.data())
def test_checkpoints(trained, tmp_path_factory, data):
    """Bytes that are damaged, parts that are missing or of another type: the network, or a sentence."""
    folder = tmp_path_factory.getbasetemp() / "run"
    folder.mkdir(exist_ok=True)
    state = dict(trained)
    how = data.draw(st.sampled_from(["bytes", "part", "weights", "recipe"]))
    if how == "part":
        key = data.draw(st.sampled_from(sorted(state)))
        state[key] = data.draw(JUNK)
    elif how == "weights":
        weights = dict(state["network"])
        name = data.draw(st.sampled_from(sorted(weights)))
        weights[name] = data.draw(
            st.sampled_from([torch.zeros(0), torch.zeros(3), torch.full((2, 2), torch.nan), 3, "x"])
        )
        state["network"] = weights
    elif how == "recipe":
        state["recipe"] = data.draw(damaged(state["recipe"]))
    for file in folder.glob("*.pt"):
        file.unlink()
    checkpoint.save(folder, state)
    file = folder / checkpoint.NAMES[0]
    if how == "bytes":
        file.write_bytes(flipped(data.draw, file.read_bytes()))
    sentence_or(judge.load_network, file, CPU)


WORDS = [
    *("run", "sweep", "evaluate", "predict", "pack", "benchmark", "export", "data", "check", "list", "rows", "stale"),
    *("imagenet_resnet", "coco_pose", "linear_vs_soft", "all", "binarizers", "networks", "experiments", "nowhere"),
    *(
        "--profile",
        "sample",
        "paper",
        "--arm",
        "ste",
        "--seed",
        "0",
        "-1",
        "all",
        "--set",
        "epochs=x",
        "seed=1",
        "--jobs",
    ),
    *("--data", "/nowhere", "--kind", "coco", "imagefolder", "--hours", "nan", "--box", "1,2,3", "--own", "x.py:Y", ""),
]


@inputs(100)
@given(st.lists(st.sampled_from(WORDS), max_size=5))
def test_command_lines(words):
    """In an empty folder of data nothing trains: every line ends with a status, and says why where it fails."""
    if words[:1] in (["run"], ["sweep"]):
        words = [words[0], *words[1:], "--set", "data.root=/nowhere"]
    status, said = spoken(*words)
    assert status in (0, 1, 2, 75)
    assert "Traceback" not in said
    assert status == 0 or said.strip()
