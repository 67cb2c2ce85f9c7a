"""Nested values, as they are read from YAML, into a recipe: every mistake is one sentence that names the key."""

import dataclasses
import re
from dataclasses import is_dataclass, replace
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import yaml

from ..names import nearest_first
from .schema import Recipe, check, learnt


class _CoreLoader(yaml.SafeLoader):
    """YAML 1.2's core schema, which DVC reads params.yaml by: 1e-05 is a number, 010 is ten, `no` is text."""

    yaml_implicit_resolvers: ClassVar[dict] = {}
    yaml_constructors: ClassVar[dict] = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if (tag or "").rpartition(":")[2] not in ("timestamp", "set", "omap", "binary", "pairs")  # of YAML 1.1 alone
    }


for _tag, _pattern, _first in (
    ("merge", r"<<", ["<"]),
    ("null", r"|~|null|Null|NULL", ["", "~", "n", "N"]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


MOST_BITS = 4096  # of a whole number; Python writes none that is much longer


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    value = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if value.bit_length() > MOST_BITS:
        raise ValueError(f"it has more than {MOST_BITS} bits")
    return value


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    """A mapping; a key that stands twice is a mistake, as one of its values would be lost."""
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "what should be a mapping is none", node.start_mark)
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    doubles = [key for key in keys if keys.count(key) > 1]
    if doubles:
        raise yaml.constructor.ConstructorError(None, None, f"the key {doubles[0]} stands twice", node.start_mark)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_CoreLoader.add_constructor("tag:yaml.org,2002:int", _integer)
_CoreLoader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(text: str) -> Any:
    """The value of a YAML text, by the rules of YAML 1.2. Raises ValueError, in one sentence, for what is no YAML."""
    try:
        value = yaml.load(text, Loader=_CoreLoader)  # a subclass of SafeLoader: plain values only
        _check_size(value, {})
        return value
    except RecursionError as error:
        raise ValueError(f"{text.splitlines()[0][:60]!r} ... is nested too deep; write it flatter") from error
    except ValueError as error:
        # Of a number that Python does not read, such as one of 5,000 digits.
        raise ValueError(f"{text.splitlines()[0][:60]!r} ... holds a number that cannot be read: {error}") from error
    except (KeyError, AttributeError, IndexError, TypeError) as error:
        # Of a tag such as !!bool before a value that is none.
        first = (text.splitlines() or [""])[0][:60]
        raise ValueError(f"{first!r} ... is no YAML: a tag (!!name) does not fit its value; leave it out") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", error)
        first = (text.splitlines() or [""])[0][:60]
        raise ValueError(f"{first!r} ... is no YAML{line}: {problem}") from error


MOST_VALUES = 100_000  # of a YAML text, what it refers to (*name) counted each time


def _check_size(value: Any, counts: dict[int, int]) -> int:
    """How many values a value holds. Raises ValueError for one that refers to itself, or that grows without end by
    what it refers to; `counts` has those of the lists and mappings that were looked at."""
    if not isinstance(value, (list, dict)):
        return 1
    if id(value) not in counts:
        counts[id(value)] = MOST_VALUES  # while it is looked at
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_check_size(part, counts) for part in parts)
    if counts[id(value)] >= MOST_VALUES:
        raise yaml.YAMLError(f"it refers to itself, or holds more than {MOST_VALUES} values by what it refers to")
    return counts[id(value)]


def build_typed(cls: type, values: dict, prefix: str = ""):
    """An instance of the dataclass `cls` from nested values; `prefix` stands before the keys in messages.

    Raises ValueError for unknown keys, the nearest known ones first, and for values of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"recipe key {prefix.rstrip('.')} holds several keys, got {values!r}")
    hints = get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ValueError(f"unknown recipe key {prefix}{key}; known, nearest first: {nearest_first(key, hints)}")
    built = {key: _typed(hints[key], value, prefix + key) for key, value in values.items()}
    return cls(**built)


def _typed(hint: Any, value: Any, key: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return build_typed(hint, value, key + ".")
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        fits = isinstance(value, (list, tuple)) and (kinds[-1] is ... or len(value) == len(kinds))
        if fits and all(type(item) is int for item in value):
            return tuple(value)
        wanted = "a list of whole numbers" if kinds[-1] is ... else f"a list of {len(kinds)} whole numbers"
        raise ValueError(f"recipe key {key} must be {wanted}, got {value!r}")
    kinds = get_args(hint) or (hint,)
    if float in kinds and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"recipe key {key} is a number of {len(str(value))} digits; take a smaller one") from error
    if type(value) in kinds:
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    raise ValueError(f"recipe key {key} must be {' or '.join(names[kind] for kind in kinds)}, got {value!r}")


def make_recipe(**values: Any) -> Recipe:
    """A checked recipe from nested values. Raises ValueError naming the key, what is wrong and what would be right."""
    recipe = build_typed(Recipe, values)
    check(recipe)
    return recipe


def merged(*layers: dict) -> dict:
    """Nested dicts laid over each other; later ones win key by key."""
    result: dict = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


OF_THE_COMMAND = {"experiment": "it as the first word", "profile": "--profile", "arm": "--arm"}


def parse_settings(settings: list[str], seed: object = None, option: str = "--set") -> dict:
    """["data.root=x", "epochs=3"] as nested values; the values are read as YAML, the later of two equal keys wins.
    seed: what --seed says, if anything; option: what takes the settings, of a recipe unless it is another. Raises
    ValueError for what is no setting, and for a key beside one within it."""
    result: dict = {}
    values: dict[str, Any] = {}
    example = "--set epochs=3" if option == "--set" else f"{option} time=60"
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise ValueError(f"{option} {setting}: write key=value, for instance {example}")
        first = key.partition(".")[0]
        if option == "--set" and first in OF_THE_COMMAND:
            raise ValueError(f"{option} {setting}: {first} is no key to set; say {OF_THE_COMMAND[first]}")
        values[key] = read_yaml(value) if value else ""
        if isinstance(values[key], str) and " #" in value and " #" not in values[key]:
            raise ValueError(f"{option} {setting}: YAML takes what follows ' #' for a comment; quote the value")
        for other in values:
            outer, inner = sorted((key, other), key=len)
            if inner.startswith(f"{outer}.") and not isinstance(values[outer], dict):
                raise ValueError(f"{option} {setting}: {outer} and {inner} are both set; keep one of them")
        if first == "seed" and seed is not None:
            raise ValueError(f"{option} {setting}: --seed names it too; keep one of them")
        nested: Any = values[key]
        for part in reversed(key.split(".")):
            nested = {part: nested}
        result = merged(result, nested)
    return result


def as_dict(recipe: Recipe) -> dict:
    """The recipe as plain nested values (lists for tuples), as it stands in a row."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(recipe))


def recipe_identity(recipe: Recipe) -> dict:
    """What makes two runs the same run: the recipe without the data's place and the number of workers."""
    values = as_dict(recipe)
    del values["data"]["root"], values["data"]["workers"]
    if not values["data"]["category"] and values["data"]["category"] != 0:
        del values["data"]["category"]  # the runs from before there was this key are the same runs
    for key in ("gates", "block"):  # and from before these
        if values[key] == getattr(Recipe, key):
            del values[key]
    return values


OF_THE_CLASSIFIER = ("preset", "rule", "hidden", "gates", "per_layer", "classifier_milestones")
NO_CLASSIFIER: dict[str, Any] = {key: getattr(Recipe, key) for key in OF_THE_CLASSIFIER}


def float_twin(recipe: Recipe) -> Recipe:
    """The same recipe with a float network and without a teacher: what "teacher: twin" learns from."""
    no_classifier = NO_CLASSIFIER | {"standardize": False}
    no_teacher = {"teacher": "", "distillation": 0.0, "init_from": ""}
    return replace(recipe, weight_binarizer=None, activation_binarizer=None, **no_classifier, **no_teacher)


def with_float_weights(recipe: Recipe) -> Recipe:
    """The same recipe with float weights and binary activations: the first of two stages."""
    changes: dict[str, Any] = {"weight_binarizer": None, "standardize": False, "init_from": ""}
    if not learnt(recipe.activation_binarizer):
        changes |= NO_CLASSIFIER
    changes |= {} if recipe.activation_binarizer == "mlp" else {"hidden": 0}
    changes |= {} if recipe.activation_binarizer == "linear" else {"gates": 0.0}
    return replace(recipe, **changes)
