"""Rows, by arm and seed: those in results/, and those that runs just returned."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ..recipe.build import make_recipe, merged, recipe_identity
from ..recipe.clone import project_root
from ..recipe.profiles import arm_fields, experiment_section, seeds_of, without_arm_fields
from ..run import ledger
from ..run.ledger import read_row

UNITS = {"top1": "points", "AP": "AP", "PCK": "PCK@0.2"}


def by_arm(rows: Iterable[dict]) -> dict[str, dict[int, float]]:
    """arm -> seed -> headline of the finished rows."""
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        values.setdefault(row["arm"], {})
        if row["status"] == "finished":
            values[row["arm"]][row["seed"]] = row["metrics"][row["headline"]]
    return values


def binarizers_of(row: dict) -> tuple[str | None, str | None]:
    """The names of a row's binarizers, of weights and of activations; None for a float operand."""
    return row["recipe"].get("weight_binarizer"), row["recipe"].get("activation_binarizer")


def sets(rows: list[dict]) -> list[list[dict]]:
    """The rows of each data set at each scale, which are compared with each other and with no other's."""
    by_data: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        by_data.setdefault((row["recipe"]["data"]["root"], row.get("scale", "")), []).append(row)
    return list(by_data.values())


def read(path: Path) -> dict:
    """The row in a file, as `read_row`; a file that has not changed since is not read again, so make another row with
    `row | changes` and leave this one as it is."""
    return _read(path)[0]


def _read(path: Path) -> tuple[dict, str]:
    """A row, and its recipe's identity as text."""
    stamp = path.stat()
    return _read_once(path, stamp.st_mtime_ns, stamp.st_size, stamp.st_ino)


@lru_cache(4096)
def _read_once(path: Path, *_stamp: int) -> tuple[dict, str]:
    row = read_row(path)
    return row, json.dumps(recipe_identity(make_recipe(**row["recipe"])))


def stored(profile: str, experiment: str) -> list[dict]:
    """All rows in results/, whatever params.yaml says today, by title and seed."""
    return [row for row, _ in _stored(profile, experiment)]


def _stored(profile: str, experiment: str) -> list[tuple[dict, str]]:
    rows = []
    for path in sorted((project_root() / "results" / profile / experiment).glob("*.json")):
        row, identity = _read(path)
        if path.stem != row["fingerprint"]:
            raise ValueError(
                f"{path} holds the row {row['fingerprint']}: rows are called by their fingerprints, remove it"
            )
        rows.append((row, identity))
    return sorted(rows, key=lambda found: (found[0]["title"], found[0]["seed"]))


def published(profile: str, experiment: str) -> list[dict]:
    """The rows in results/, each with the arm of the profile's params.yaml it belongs to (others are left out), and
    with `current`: whether today's code would give its digits (`ledger.is_current`). Raises ValueError for two rows of
    one recipe and seed on the same data, as two branches may bring."""
    section = experiment_section(experiment, profile)
    arms: dict[str, list[str]] = {}
    for arm, changes in section["arms"].items():
        values = merged(section["recipe"], without_arm_fields(changes))
        identity = recipe_identity(make_recipe(experiment=experiment, profile=profile, **values))
        for seed in seeds_of(changes, section["seeds"]):
            # arms of two conditions may be one and the same run
            arms.setdefault(json.dumps(identity | {"seed": seed}), []).append(arm)
    rows, joined = [], ledger.joined(profile, experiment)
    of_run: dict[tuple[str, str], dict] = {}
    for row, key in _stored(profile, experiment):
        other = of_run.setdefault((key, row["fingerprints"]["data"]), row)
        if other is not row:
            folder = project_root() / "results" / profile / experiment
            raise ValueError(
                f"{folder} has two rows of {row['title']}, seed {row['seed']}: {other['fingerprint']}.json and "
                f"{row['fingerprint']}.json; keep the one that `make stale` calls current, and remove the other"
            )
        current = {"current": row["fingerprints"]["source"] in joined}
        rows += [row | arm_fields(arm, section["arms"][arm]) | current for arm in arms.get(key, [])]
    order = list(section["arms"])
    return sorted(rows, key=lambda row: (order.index(row["arm"]), row["seed"]))
