"""Every key of the learnt binarizer reaches the network that is trained, by the command line as by Python."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from bnc_repro.binarizers.classifier import RULES, Classifier
from bnc_repro.binarizers.registry import PRESETS
from bnc_repro.recipe.build import make_recipe, parse_settings
from bnc_repro.recipe.profiles import recipe_of
from bnc_repro.recipe.schema import Recipe
from bnc_repro.run.execute import run
from bnc_repro.run.identity import folder_of
from bnc_repro.training import checkpoint
from runs import weights
from tiny import TINY

# Under seed 1 the classifier that starts at random takes some numbers for the other class than their sign.
MLP = TINY | {"seed": 1, "weight_binarizer": "mlp", "standardize": True, "preset": "official", "epochs": 2}
# key -> what it is changed to, from MLP
CHANGES = {
    "preset": "fixed",
    "rule": "expected",
    "hidden": 8,
    "gates": 2.0,
    "per_layer": True,
    "classifier_learning_rate": 0.02,
    "classifier_milestones": [1],
}
# What a key asks of the recipe beside itself.
BASES = {"gates": {"weight_binarizer": "linear"}}


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The state of a recipe's trained network; of each once."""
    runs, states = tmp_path_factory.mktemp("keys"), {}

    def state(**changes):
        made = make_recipe(**MLP | {"data": {"root": data}} | changes)
        key = folder_of(made, runs)
        if key not in states:
            run(made, runs)
            states[key] = weights(made, runs)
        return states[key]

    return state


def convolutions(state: dict) -> dict:
    return {key: value for key, value in state.items() if key.endswith("conv.weight")}


def classifiers(state: dict) -> dict:
    return {key: value for key, value in state.items() if ".weight_binarizer." in key}


def test_no_key_is_left_out():
    """The keys below are all that the recipe has for the classifier."""
    of_the_classifier = {entry.name for entry in fields(Recipe)} & set(inspect.signature(Classifier).parameters)
    of_the_classifier |= {entry.name for entry in fields(Recipe) if entry.name.startswith("classifier_")}
    assert of_the_classifier | {"preset", "per_layer"} == CHANGES.keys()


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_changes_what_is_trained(trained, key):
    """The convolutions end elsewhere than without the key: their gradients came through another classifier."""
    base = BASES.get(key, {})
    plain, changed = convolutions(trained(**base)), convolutions(trained(**base, **{key: CHANGES[key]}))
    assert plain.keys() == changed.keys()
    assert plain
    assert any((plain[name] != changed[name]).any() for name in plain)


def test_every_rule_and_preset_is_another_training(trained):
    """No two of the backward rules, and no two of the presets, end at the same weights."""
    for key, values in (("rule", RULES), ("preset", PRESETS)):
        first_weights = [next(iter(convolutions(trained(**{key: value})).values())) for value in values]
        assert len({tuple(weight.flatten().tolist()) for weight in first_weights}) == len(values)


def test_hidden_is_the_number_of_units(trained):
    """8 hidden units: 8 numbers to the first layer, 16 to the outputs, in every layer's state."""
    shapes = {tuple(value.shape) for value in classifiers(trained(hidden=8)).values()}
    assert shapes == {(8, 1), (2, 8)}


def test_layers_learn_their_own_classifier_when_told(trained):
    """Shared classifiers end equal in all layers; `per_layer` ones do not."""
    for per_layer in (False, True):
        states = classifiers(trained(per_layer=per_layer))
        ends = {tuple(value.flatten().tolist()) for name, value in states.items() if name.endswith("layers.0.weight")}
        assert (len(ends) > 1) is per_layer


@pytest.mark.parametrize(("key", "value"), [("hidden", 8), ("per_layer", True), ("rule", "sum"), ("preset", "paper")])
def test_a_setting_reaches_the_recipe(key, value):
    """`--set KEY=VALUE` on the arm mlp of the sample's ablation."""
    made = recipe_of("linear_vs_soft", "sample", "mlp", **parse_settings([f"{key}={json.dumps(value)}"]))
    assert getattr(made, key) == value


def test_the_command_trains_eight_hidden_units(data, tmp_path):
    """`run linear_vs_soft --arm mlp --set hidden=8` trains them."""
    settings = ["hidden=8", f"data.root={data}", "epochs=1", "width=4", "blocks=[1]"]
    words = [word for setting in settings for word in ("--set", setting)]
    start = [sys.executable, "-m", "bnc_repro", "run", "linear_vs_soft", "--arm", "mlp", "--runs", str(tmp_path)]
    done = subprocess.run([*start, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert json.loads(path.read_text())["recipe"]["hidden"] == 8
    state = checkpoint.load(path.parent / checkpoint.NAMES[0])["network"]
    assert {tuple(value.shape) for value in classifiers(state).values()} == {(8, 1), (2, 8)}
