"""A recipe is typed and complete: what makes no sense is refused before anything starts, by its key."""

import re
from pathlib import Path

import pytest
import torch

from bnc_repro.binarizers.surrogates import SURROGATES
from bnc_repro.recipe.build import as_dict, float_twin, make_recipe, merged, parse_settings, read_yaml, recipe_identity
from bnc_repro.recipe.expansion import arms_and_seeds, tuning
from bnc_repro.recipe.profiles import experiment_section, experiments, recipe_of
from bnc_repro.recipe.schema import MOST_IMAGES, MOST_RATE, PROFILES, Data, Recipe, flat
from bnc_repro.training.optim import optimizers, set_rates


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epoch": 3}, "unknown recipe key epoch; known, nearest first: epochs, "),
        ({"lerning_rate": 1.0}, "unknown recipe key lerning_rate; known, nearest first: learning_rate, "),
        ({"data": {"rot": "x"}}, "unknown recipe key data.rot; known, nearest first: root, "),
        ({"pose": {"sigma": 2.0}}, "unknown recipe key pose.sigma; known, nearest first: sigma_px"),
        ({"epochs": 2.0}, "recipe key epochs must be a whole number, got 2.0"),
        ({"epochs": True}, "recipe key epochs must be a whole number, got True"),
        ({"epochs": "3"}, "recipe key epochs must be a whole number, got '3'"),
        ({"learning_rate": "1e-3"}, "recipe key learning_rate must be a number, got '1e-3'"),
        ({"standardize": 1}, "recipe key standardize must be true or false, got 1"),
        ({"network": None}, "recipe key network must be text, got None"),
        ({"weight_binarizer": 3}, "recipe key weight_binarizer must be text or null, got 3"),
        ({"milestones": 5}, "recipe key milestones must be a list of whole numbers, got 5"),
        ({"milestones": [1.5]}, "recipe key milestones must be a list of whole numbers"),
        ({"data": {"image_size": [28]}}, "recipe key data.image_size must be a list of 2 whole numbers, got [28]"),
        ({"data": "folder"}, "recipe key data holds several keys, got 'folder'"),
        ({"epochs": -1}, "recipe key epochs must be finite and at least 0, got -1"),
        ({"epochs": 0}, "recipe key epochs is 0, which only judges the file that init_from names"),
        ({"batch_size": 0}, "recipe key batch_size must be finite and at least 1, got 0"),
        ({"seed": -1}, "recipe key seed must be finite and at least 0, got -1"),
        ({"learning_rate": -0.1}, "recipe key learning_rate must be above 0 and finite, got -0.1"),
        ({"learning_rate": 0}, "recipe key learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "recipe key learning_rate must be above 0 and finite, got nan"),
        ({"learning_rate": float("inf")}, "recipe key learning_rate must be above 0 and finite, got inf"),
        ({"classifier_learning_rate": float("nan")}, "recipe key classifier_learning_rate must be finite"),
        ({"classifier_learning_rate": float("inf")}, "recipe key classifier_learning_rate must be finite"),
        ({"weight_decay": float("inf")}, "recipe key weight_decay must be finite"),
        ({"distillation": 0.9}, "recipe keys teacher and distillation belong together"),
        ({"teacher": "twin"}, "recipe keys teacher and distillation belong together"),
        ({"teacher": "twin", "distillation": 1.5}, "recipe key distillation must be at most 1, got 1.5"),
        ({"optimizer": "lion"}, "recipe key optimizer must be one of 'adam', 'adamw', 'sgd', got 'lion'"),
        ({"preset": "broken"}, "recipe key preset must be one of 'official', 'paper', 'fixed', got 'broken'"),
        ({"data": {"kind": "mnist"}}, "recipe key data.kind must be one of 'fashion_mnist'"),
        ({"data": {"image_size": [2, 28]}}, "recipe key data.image_size must be at least 4 px, got [2, 28]"),
        ({"pose": {"sigma_px": 0}}, "recipe key pose.sigma_px must be above 0"),
        ({"width": 100_000}, "recipe key width must be at most 4096, got 100000"),
        ({"width": 2048, "blocks": [1, 1, 1]}, "make 8192 channels in the last stage: at most 4096"),
        ({"blocks": [1] * 9}, "recipe key blocks has 9 stages and 9 blocks: at most 8 and 200"),
        ({"data": {"image_size": [10**6, 10]}}, "recipe key data.image_size must be at most 4096 px"),
        ({"data": {"workers": 10_000}}, "recipe key data.workers must be at most 256, got 10000"),
        ({"weight_binarizer": "ste", "preset": "official"}, "recipe key preset is of the learnt binarizer"),
        ({"weight_binarizer": "ste", "per_layer": True}, "recipe key per_layer is of the learnt binarizer"),
        ({"weight_binarizer": "ste", "classifier_milestones": [2]}, "classifier_milestones is of the learnt binarizer"),
        ({"weight_binarizer": "linear", "hidden": 8}, "recipe key hidden is of the learnt binarizer"),
        ({"pose": {"sigma_px": 1.0}}, "recipe key pose.sigma_px is of keypoints, imagenet_resnet has none"),
        ({"data": {"kind": "coco"}}, "recipe key data.kind is 'coco', imagenet_resnet needs a kind of pictures"),
        ({"experiment": "coco_pose"}, "recipe key data.kind is 'fashion_mnist', coco_pose needs coco"),
        ({"blocks": [1, 0]}, "recipe key blocks counts blocks per stage, each at least 1, got [1, 0]"),
    ],
)
def test_nonsense_is_refused_naming_the_key(values, sentence):
    """Each unknown key, wrong type and impossible value gives its own sentence."""
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make_recipe(**values)


def test_whole_numbers_pass_as_numbers_and_lists_as_tuples():
    """An int fits a float key; lists become tuples; null is a float network."""
    made = make_recipe(
        learning_rate=1,
        epochs=3,
        milestones=[1, 2],
        schedule="steps",
        weight_binarizer=None,
        data={"image_size": [8, 12]},
    )
    assert type(made.learning_rate) is float
    assert (made.milestones, made.weight_binarizer, made.data.image_size) == ((1, 2), None, (8, 12))


def test_a_recipe_survives_its_row():
    """make(**as_dict(recipe)) is the recipe, and as_dict holds no tuple."""
    made = make_recipe(
        blocks=[2, 2],
        epochs=4,
        milestones=[3],
        schedule="steps",
        data={"root": "x", "kind": "coco"},
        pose={"decode": "argmax"},
        experiment="coco_pose",
    )
    assert make_recipe(**as_dict(made)) == made
    assert as_dict(made)["blocks"] == [2, 2]


def test_identity_leaves_out_place_and_workers_only():
    """Two recipes are one run when they differ in data.root and data.workers alone."""
    first = recipe_identity(make_recipe(data={"root": "a", "workers": 2}))
    assert first == recipe_identity(make_recipe(data={"root": "b"}))
    whole = as_dict(make_recipe())
    del whole["data"]["root"], whole["data"]["workers"]
    del whole["data"]["category"]  # the default is no part: runs from before the key are the same runs
    del whole["gates"], whole["block"]
    assert recipe_identity(make_recipe()) == whole
    coco = {"experiment": "coco_pose", "network": "sbpn"}
    cats = make_recipe(**coco, data={"kind": "coco", "category": 0})
    assert recipe_identity(cats)["data"]["category"] == 0
    changed = recipe_identity(make_recipe(weight_binarizer="linear", gates=2.0, block="reactnet"))
    assert (changed["gates"], changed["block"]) == (2.0, "reactnet")


def test_float_twin_has_no_binarizer_teacher_or_start():
    """The teacher's recipe keeps sizes, data and seed; a twin's twin is itself."""
    made = make_recipe(teacher="twin", distillation=0.5, seed=4, width=8, preset="paper", init_from="x.pt")
    twin = float_twin(made)
    assert (twin.weight_binarizer, twin.activation_binarizer, twin.teacher, twin.init_from) == (None, None, "", "")
    assert (twin.seed, twin.width, twin.distillation) == (4, 8, 0)
    assert float_twin(twin) == twin == make_recipe(**as_dict(twin))


def test_settings_are_nested_and_read_as_yaml():
    """--set key.path=value: later ones win, values are YAML, an empty one is empty text."""
    found = parse_settings(
        [
            "epochs=3",
            "data.root=a=b",
            "data.image_size=[8, 8]",
            "weight_binarizer=null",
            "epochs=4",
            "standardize=true",
            "teacher=",
            "learning_rate=0.5",
        ]
    )
    assert found == {
        "epochs": 4,
        "data": {"root": "a=b", "image_size": [8, 8]},
        "weight_binarizer": None,
        "standardize": True,
        "teacher": "",
        "learning_rate": 0.5,
    }
    with pytest.raises(ValueError, match=r"--set epochs: write key=value, for instance --set epochs=3"):
        parse_settings(["epochs"])
    with pytest.raises(ValueError, match=r"unknown recipe key data\.a"):
        make_recipe(**parse_settings(["data.a.b=1"]))


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_and_one_within_it_are_not_both_set(order):
    """Whichever came last would drop the other without a word; a group and a key of it go together."""
    with pytest.raises(ValueError, match=r"epochs and epochs\.x are both set; keep one of them"):
        parse_settings(["epochs.x=1", "epochs=1"][::order])
    group = parse_settings(["data={root: x, train_limit: 1}", "data.train_limit=2"])
    assert group == {"data": {"root": "x", "train_limit": 2}}


def test_merged_layers_key_by_key():
    """Nested dicts are laid over each other, and no layer is changed."""
    first, second = {"a": 1, "d": {"x": 1, "y": 2}}, {"d": {"y": 3}, "b": 4}
    assert merged(first, second) == {"a": 1, "b": 4, "d": {"x": 1, "y": 3}}
    assert first == {"a": 1, "d": {"x": 1, "y": 2}}
    assert merged({"d": {"x": 1}}, {"d": 5}) == {"d": 5}
    assert merged() == {}


def test_unknown_experiment_profile_and_arm_list_the_nearest_first():
    """Names outside of the tables are answered with the known ones, the nearest first."""
    with pytest.raises(ValueError, match="unknown experiment 'coco'; known, nearest first: coco_pose"):
        recipe_of("coco")
    with pytest.raises(ValueError, match="unknown profile 'smalle'; known, nearest first: small"):
        recipe_of("coco_pose", "smalle")


def test_outside_of_a_clone_the_remedy_is_named(tmp_path, monkeypatch):
    """Without params.yaml upwards a recipe is refused: cd into the clone."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"not inside a clone of bnc_repro .*; cd into the clone"):
        recipe_of("coco_pose")


def test_a_recipe_is_read_from_params_then_changed(tmp_path, monkeypatch):
    """The section's recipe, then the arm's keys, then the changes; later ones win."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "params.yaml").write_text(
        "linear_vs_soft:\n  seeds: [0]\n  recipe: {epochs: 2, batch_size: 16, data: {root: x, kind: cifar10}}\n"
        "  arms: {ste: {weight_binarizer: ste, epochs: 3}}\n"
    )
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    made = recipe_of("linear_vs_soft", arm="ste", seed=5, data={"root": "y"})
    assert (made.weight_binarizer, made.epochs, made.batch_size, made.seed) == ("ste", 3, 16, 5)
    assert made.data == Data(root="y", kind="cifar10")
    assert made.data.folder == tmp_path / "y"
    with pytest.raises(ValueError, match="unknown arm 'set'; known, nearest first: ste"):
        recipe_of("linear_vs_soft", arm="set")


def test_an_arm_may_have_seeds_of_its_own(tmp_path, monkeypatch):
    """Each under its own where it names some, else under the section's; seeds that are asked for serve all."""
    (tmp_path / "pipelines").mkdir()
    text = (
        "linear_vs_soft:\n  seeds: [0, 1]\n  recipe: {epochs: 2, data: {root: x, kind: cifar10}}\n"
        "  arms: {ste: {weight_binarizer: ste}, mlp: {weight_binarizer: mlp, seeds: [1, 4]}}\n"
    )
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    pairs = [(request.arm, request.recipe.seed) for request in arms_and_seeds("linear_vs_soft", "sample")]
    assert pairs == [("ste", 0), ("ste", 1), ("mlp", 1), ("mlp", 4)]
    asked = [(request.arm, request.recipe.seed) for request in arms_and_seeds("linear_vs_soft", "sample", seeds=[7])]
    assert asked == [("ste", 7), ("mlp", 7)]
    (tmp_path / "params.yaml").write_text(text.replace("[1, 4]", "[1, 1]"))
    with pytest.raises(ValueError, match=r"arms\.mlp\.seeds must be a list of different whole numbers from 0 on"):
        arms_and_seeds("linear_vs_soft", "sample")


def test_data_folder_fills_in_variables(monkeypatch):
    """$NAME and ~ in data.root are filled in when the folder is asked for."""
    monkeypatch.setenv("BNC_TEST_PLACE", "/somewhere")
    assert Data(root="$BNC_TEST_PLACE/images").folder == Path("/somewhere/images")
    assert Data(root="~/images").folder == Path.home() / "images"
    assert Data(root="~nobody-of-this-name/x").folder.parts[-2:] == ("~nobody-of-this-name", "x")


def test_every_bound_is_of_a_field_that_can_break_it():
    """A key with choices refuses another word, one with bounds what lies beyond them, one above zero zero itself."""
    for key, _, bounds in flat(Recipe()):
        wrong = {"choices": "no such word", "least": -1, "above": 0, "most": 10 * bounds.get("most", 0)}
        for bound in bounds:
            nested = wrong[bound]
            for part in reversed(key.split(".")):
                nested = {part: nested}
            with pytest.raises(ValueError, match=rf"recipe key {key} must be "):
                make_recipe(**nested)


def test_defaults_make_sense():
    """The recipe without any key is accepted."""
    assert make_recipe() == Recipe()


VALUES = {"1e-05": 1e-05, "-.5": -0.5, "010": 10, "0o10": 8, "0x1f": 31, "no": "no", "on": "on", "true": True}


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_values_are_read_by_yaml_1_2(text, value):
    """As DVC reads and writes params.yaml: exponents without a point are numbers, `no` is a word, 010 is ten."""
    settings = parse_settings([f"key={text}"])
    assert settings == {"key": value}
    assert type(settings["key"]) is type(value)


def test_what_schedules_take_the_last_epoch_too():
    """Milestones before the end, a schedule of two epochs, and any of them where a checkpoint is only judged."""
    assert make_recipe(epochs=3, schedule="steps", milestones=[1, 2]).milestones == (1, 2)
    assert make_recipe(epochs=2, released_schedule=True).released_schedule
    assert (
        make_recipe(epochs=0, init_from="x.pt", schedule="steps", milestones=[30], released_schedule=False).epochs == 0
    )
    assert (
        make_recipe(network="softmax_regression", width=8, blocks=[1], stem="half", standardize=True, **FLOAT).width
        == 8
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("!!bool foo", "a tag (!!name) does not fit its value"),
        ("!!float ''", "a tag (!!name) does not fit its value"),
        ("!!timestamp foo", "could not determine a constructor"),
        ("!!binary foo", "could not determine a constructor"),
        ("!!map foo", "what should be a mapping is none"),
        ("0x" + "f" * 5000, "holds a number that cannot be read: it has more than 4096 bits"),
        ("1" + "0" * 400, "is a number of 401 digits; take a smaller one"),
        ("{<<: {a: 1}, <<: {b: 2}}", "the key << stands twice"),
    ],
)
def test_tags_and_numbers_that_no_value_has_are_one_sentence(text, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        make_recipe(**parse_settings([f"learning_rate={text}"]))
    assert read_yaml("{a: !!str 1, b: !!int 0x10, <<: {c: !!float 1}}") == {"a": "1", "b": 16, "c": 1.0}


def test_what_is_no_yaml_is_one_sentence():
    """The text and the line, not a traceback of the parser."""
    with pytest.raises(ValueError, match=r"is no YAML in line 1"):
        parse_settings(["data={root: x"])


FLOAT = {"weight_binarizer": None, "activation_binarizer": None}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"milestones": [3]}, "milestones and schedule: steps belong together"),
        ({"schedule": "steps"}, "milestones and schedule: steps belong together"),
        ({"schedule": "steps", "milestones": [-1]}, r"recipe key milestones names epochs from 1 to 100000, got \[-1\]"),
        ({"epochs": 2, "warmup_epochs": 2.0}, "recipe key warmup_epochs is 2 of 2 epochs: take fewer"),
        ({"released_schedule": True, "schedule": "cosine"}, "recipe key released_schedule is linear"),
        ({"released_schedule": True, "epochs": 1}, "released_schedule trains the last epoch at rate 0: take 2 epochs"),
        ({"schedule": "steps", "milestones": [2, 2], "epochs": 9}, "milestones names each epoch once and in order"),
        ({"schedule": "steps", "milestones": [3, 2], "epochs": 9}, "milestones names each epoch once and in order"),
        (
            {"schedule": "steps", "milestones": [2, 9], "epochs": 9},
            r"\[2, 9\], of which a training of 9 epochs does not",
        ),
        ({"classifier_milestones": [2, 2]}, r"classifier_milestones names each epoch once and in order, got \[2, 2\]"),
        ({"network": "softmax_regression"}, "key weight_binarizer is 'mlp', which means nothing to softmax_regression"),
        (
            {"network": "softmax_regression", "weight_binarizer": None},
            "key activation_binarizer is 'approx_sign', which means nothing to softmax_regression: say null",
        ),
        (
            FLOAT | {"network": "mean_pose", "teacher": "twin", "distillation": 0.5},
            "recipe key teacher is 'twin', which means nothing to mean_pose: say ''",
        ),
        (FLOAT | {"network": "mean_pose", "init_from": "x.pt"}, "recipe key init_from is 'x.pt', which means nothing"),
        ({"rule": "sum", "weight_binarizer": "ste"}, "recipe key rule is of the learnt binarizer"),
        ({"hidden": 8, "weight_binarizer": "linear"}, "recipe key hidden is of the learnt binarizer 'mlp'"),
        ({"gates": 2.0, "weight_binarizer": "mlp"}, "recipe key gates is of the learnt binarizer 'linear'"),
        ({"gates": 0.5, "weight_binarizer": "linear"}, "recipe key gates is 0 .* or a number from 1 on, got 0.5"),
        ({"gates": 101.0, "weight_binarizer": "linear"}, "recipe key gates must be at most 100"),
        ({"gates": 2.0, "weight_binarizer": "linear", "preset": "paper"}, "recipe key gates starts both outputs"),
        ({"gates": 2.0, "weight_binarizer": "linear", "rule": "sum"}, "recipe key gates starts both outputs"),
        ({"block": "resnet"}, "recipe key block must be one of 'bireal', 'reactnet'"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(values, sentence):
    """The key that means nothing here is named."""
    with pytest.raises(ValueError, match=sentence):
        make_recipe(**values)


@pytest.mark.parametrize("profile", PROFILES)
def test_arms_train_within_their_estimators_domain(profile):
    """Where an estimator's docstring says that its weights are standardised, or not, its arms do so."""
    for experiment in experiments(profile):
        for arm in experiment_section(experiment, profile)["arms"]:
            made = recipe_of(experiment, profile, arm)
            function = SURROGATES.get(made.weight_binarizer)
            domain = re.search(r"domain: (.*)", (function and function.__doc__) or "")
            if domain and "standardised" in domain[1]:
                assert made.standardize is ("not standardised" not in domain[1]), arm


def layers(first, one):
    """Eight layers, each of ten times the one before."""
    return [first, *(one(f"*a{i}", f"&a{i + 1}") for i in range(8))]


LISTS = layers("&a0 [1]", lambda old, new: f"{new} [{', '.join([old] * 10)}]")
MAPPINGS = layers("&a0 {a: 1}", lambda old, new: f"{new} {{{', '.join(f'{key}: {old}' for key in 'abcdefghij')}}}")


@pytest.mark.parametrize("text", ["&a [*a]", f"[{', '.join(LISTS)}]", f"[{', '.join(MAPPINGS)}]"])
def test_a_text_that_grows_by_what_it_refers_to_is_refused_at_once(text):
    """A list or a mapping in itself, and layers of references that would be a hundred million values."""
    with pytest.raises(ValueError, match="it refers to itself, or holds more than 100000 values by what it refers to"):
        read_yaml(text)
    with pytest.raises(ValueError, match="refers to itself"):
        parse_settings([f"blocks={text}"])
    assert read_yaml("[&a [1, 2], *a]") == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("key", "value", "most"),
    [("learning_rate", 1e300, r"1e\+30"), ("weight_decay", 1e308, r"1e\+30"), ("momentum", 5, "1")],
)
def test_numbers_that_no_training_takes_are_refused(key, value, most):
    with pytest.raises(ValueError, match=rf"recipe key {key} must be at most {most}, got "):
        make_recipe(experiment="linear_vs_soft", **{key: float(value)})


@pytest.mark.parametrize("setting", ["arm=ste", "arm.x=1", "profile=small", "profile.x=1", "experiment.x=1"])
def test_what_the_command_says_is_no_key(setting):
    """An arm, a profile and an experiment are said by the command itself."""
    with pytest.raises(ValueError, match=rf"{re.split('[.=]', setting)[0]} is no key to set; say "):
        parse_settings([setting])


@pytest.mark.parametrize("seed", [[1, 2], {"x": 1}, "one"])
def test_a_sweeps_seed_is_a_number(seed):
    """As a run's."""
    with pytest.raises(ValueError, match="recipe key seed must be a whole number"):
        arms_and_seeds("linear_vs_soft", "sample", settings={"seed": seed})


def test_float_weights_are_no_start_for_float_weights():
    """The same run twice, under two fingerprints."""
    with pytest.raises(ValueError, match="init_from is float_weights, but this recipe trains float weights itself"):
        make_recipe(weight_binarizer=None, init_from="float_weights", preset="fixed")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_no_rate_that_a_recipe_takes_overflows(optimizer):
    """The highest, with the largest factor of a batch: what diverges must not end in torch's own error."""
    weight = torch.nn.Parameter(torch.ones(3))
    made = make_recipe(learning_rate=MOST_RATE, optimizer=optimizer, batch_size=MOST_IMAGES, base_batch_size=1)
    steppers = optimizers(
        torch.nn.ParameterList([weight]),
        optimizer=optimizer,
        learning_rate=made.learning_rate,
        momentum=0.9,
        weight_decay=MOST_RATE,
        classifier_learning_rate=MOST_RATE,
    )
    set_rates(steppers, made, 0, 10)
    for _ in range(3):
        weight.square().sum().backward()
        for stepper in steppers:
            stepper.step()


@pytest.mark.parametrize("setting", ["seed=1", "learning_rate=0.1", "data.validation=0.1"])
def test_a_grid_is_not_told_what_it_says_itself(setting):
    """Its seeds, its rates and its share of held-out images would win without a word."""
    with pytest.raises(ValueError, match=rf"--set {setting.partition('=')[0]}: the grid says it"):
        tuning("linear_vs_soft", "small", settings=parse_settings([setting]))


def test_a_schedulers_options_are_no_recipes():
    """sbatch has a profile; a nested seed is a seed too."""
    assert parse_settings(["profile=task", "time=60"], option="--slurm") == {"profile": "task", "time": 60}
    with pytest.raises(ValueError, match="--slurm time: write key=value, for instance --slurm time=60"):
        parse_settings(["time"], option="--slurm")
    with pytest.raises(ValueError, match=r"--set seed\.x=1: --seed names it too"):
        parse_settings(["seed.x=1"], seed=3)


@pytest.mark.parametrize("arm", ["../../out", "a/b", "all", ".hidden", "a\\b", "a\nb"])
def test_an_arm_whose_name_is_no_folders_is_refused(tmp_path, monkeypatch, arm):
    from bnc_repro.recipe import parameters

    section = {"seeds": [0], "recipe": {}, "arms": {arm: {"weight_binarizer": "ste"}}}
    with pytest.raises(ValueError, match="take a name without slashes that begins with no dot"):
        parameters._section(section, "linear_vs_soft")


def test_a_comment_within_a_setting_is_told():
    """A folder's name may hold ' #'."""
    with pytest.raises(ValueError, match=r"--set data\.root=a #b: YAML takes what follows ' #' for a comment; quote"):
        parse_settings(["data.root=a #b"])
    assert parse_settings(["data.root='a #b'"]) == {"data": {"root": "a #b"}}
    assert parse_settings(["data.root=a#b", "epochs=3 # few"]) == {"data": {"root": "a#b"}, "epochs": 3}
