"""Proof that an edit changed no number: the same runs trained by the code of the published rows and by today's.

For every profile and experiment with published rows, and every source among them that today's code is not: the rows'
commit is checked out beside the clone, each run is trained by both, one thread a run, several runs at once, and the two
rows are compared value by value, the curve's too. Where all are the same, a line in the ledger joins the two sources;
the first that differs is named, and then nothing is joined.

Runs are the sample's as they are (one seed of each arm), and of the other profiles, cut short to one epoch over few
pictures, as many as walk every path that their rows took: each network with its binarizers, and each value of any other
key, in some run.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..recipe.build import as_dict, make_recipe
from ..recipe.clone import project_root
from ..recipe.profiles import experiments
from ..run import ledger, pinned
from ..run.code import TASK_MODULES, git_state, modules, source_fingerprint, source_of
from ..run.launch import dotted

# What a row says of its run beside its digits.
BESIDE = {
    "seconds",
    "cpu_seconds",
    "items_per_second",
    "peak_memory_mib",
    "device",
    "finished_at",
    "commit",
    "dirty",
    "versions",
    "fingerprint",
    "fingerprints",
    "recipe",
    "title",
    "arm",
    "estimator",
    "placement",
    "scale",
    "processes",
}
TIMES = ("seconds", "cpu_seconds")  # of each epoch too
# How runs of the larger profiles are cut; a pose set is small enough for one epoch.
SHORT = {"epochs": 1, "warmup_epochs": 0.0, "evaluate_every": 1}
FEW_PICTURES = 1280
PROFILES = ("sample", "presets", "small")  # those with published rows
OF_NO_PATH = ("seed", "learning_rate")  # keys whose values are numbers for the same code
# Keys that decide together which code computes a layer.
TOGETHER = (
    "network", "block", "weight_binarizer", "activation_binarizer", "preset", "rule", "hidden", "gates", "per_layer",
    "standardize",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One run to train twice: by the commit of a published row, and by today's code."""

    profile: str
    experiment: str
    source: str  # the row's
    commit: str
    name: str
    recipe: dict  # the keys that both are given

    @property
    def has_data(self) -> bool:
        """Whether the data that it trains on is here."""
        return Path(self.recipe["data"]["root"]).is_dir()


def pairs(
    profiles: list[str], seeds: int = 1, sources: list[str] | None = None, through: str | None = None
) -> list[Pair]:
    """What has to be trained to join the published rows of `profiles` (all that have some, if none is named), or those
    of some `sources`, to today's code; of the sample `seeds` seeds.

    through: a commit. Rows that the ledger joins to its code are trained by that code, each shape of run once: what is
    joined to it is then joined to today's. Those that are joined to today's already are left out. Raises ValueError
    for a source of no row.
    """
    middle, joined = sources_of(through) if through else {}, cache(ledger.joined)
    wanted: dict[tuple, Pair] = {}
    seen = set()
    for profile, row in _rows(profiles):
        experiment, source = row["experiment"], row["fingerprints"]["source"]
        commit, recipe = row["commit"], row["recipe"]
        seen.add(source)
        if middle and source in joined(profile, experiment):
            continue
        if middle and source in joined(profile, experiment, middle[experiment]):
            source, commit, recipe = middle[experiment], through, as_dict(make_recipe(**recipe))
        elif sources and source not in sources:
            continue
        if source == source_of(experiment) or (profile == "sample" and row["seed"] >= seeds):
            continue
        recipe = cut(recipe, keep_length=profile == "sample")
        key = (profile, experiment, source, json.dumps(recipe))
        wanted.setdefault(key, Pair(profile, experiment, source, commit, f"{row['title']}, seed {row['seed']}", recipe))
    if unknown := set(sources or ()) - seen:
        raise ValueError(f"no published row was made by the code {', '.join(sorted(unknown))}: `stale` names those")
    return list(_walking(wanted.values()))


def _walking(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Those of the pairs, in order, that walk a path which none before them did; all of the sample's."""
    walked: dict[tuple, set[tuple]] = {}
    for pair in pairs:
        settings = dict(dotted(pair.recipe))
        paths = {(key, json.dumps(value)) for key, value in settings.items() if key not in (*TOGETHER, *OF_NO_PATH)}
        paths.add(("together", json.dumps([settings.get(key) for key in TOGETHER])))
        before = walked.setdefault(_of_ledger(pair), set())
        if pair.profile == "sample" or not paths <= before:
            before |= paths
            yield pair


def _rows(profiles: list[str]) -> Iterator[tuple[str, dict]]:
    for profile in profiles or PROFILES:
        for experiment in experiments(profile):
            for folder in (experiment, "tuning"):
                yield from ((profile, row) for row in ledger.rows(profile, folder) if row["experiment"] == experiment)


def sources_of(commit: str) -> dict[str, str]:
    """The source fingerprint of each experiment's code at a commit."""
    with tempfile.TemporaryDirectory() as temporary, checked_out(commit, Path(temporary)) as clone:
        package = clone / "src" / "bnc_repro"
        return {name: source_fingerprint(modules(name, package), package) for name in TASK_MODULES}


def cut(recipe: dict, keep_length: bool) -> dict:
    """The keys of a row's recipe that a command line takes; those of a short run unless `keep_length`."""
    values = {key: value for key, value in recipe.items() if key not in ("experiment", "profile")}
    root = make_recipe(**recipe).data.folder
    values["data"] = values["data"] | {"root": str(root)}
    if not keep_length:
        values |= SHORT
        if values["data"]["kind"] != "coco":
            values["data"]["train_limit"] = FEW_PICTURES
    return values


@contextmanager
def checked_out(commit: str, folder: Path):
    """A worktree of `commit` below `folder`, removed afterwards. Raises ValueError if the clone lacks the commit."""
    clone, git = folder / commit, ["git", "-C", str(project_root())]
    added = subprocess.run(
        [*git, "worktree", "add", "--detach", str(clone), commit], capture_output=True, text=True, check=False
    )
    if added.returncode:
        raise ValueError(
            f"git cannot check out {commit}, which made published rows ({added.stderr.strip()}): a clone "
            "without its history has no old code; `git fetch --unshallow` brings it"
        )
    try:
        yield clone
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(clone)], capture_output=True, check=False)


def train(pair: Pair, clone: Path, runs: Path) -> dict:
    """The row of a run by the code of `clone`, in a process of its own with one thread and the profile's settings.
    Raises ValueError with the process's last words where it fails."""
    settings = [f"--set={key}={json.dumps(value)}" for key, value in pair.recipe.items()]
    words = [sys.executable, "-m", "bnc_repro", "run", pair.experiment, "--profile", pair.profile, *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | pinned.environment(pair.profile)
    environment["PYTHONPATH"] = str(clone / "src")
    environment.pop("BNC_REPRO_REUSE", None)
    finished = subprocess.run(
        [*words, "--runs", str(runs)], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise ValueError(f"{pair.profile} {pair.name}: the code in {clone} failed: {finished.stderr.strip()[-600:]}")
    return json.loads(Path(finished.stdout.strip().splitlines()[-1]).read_text(encoding="utf-8"))


def difference(old: object, new: object, where: str = "") -> tuple[int, str | None]:
    """How many values two rows share, and the first place where they differ with both values; None if nowhere."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if not (key in BESIDE and (not where or key in TIMES))]
        return _first((f"{where}.{key}".lstrip("."), old.get(key), new.get(key)) for key in keys)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return _first((f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True)))
    return 1, None if _same(old, new) else f"{where}: {old!r} became {new!r}"


def _first(parts) -> tuple[int, str | None]:
    count = 0
    for where, old, new in parts:
        values, differs = difference(old, new, where)
        count += values
        if differs:
            return count, differs
    return count, None


def _same(old: object, new: object) -> bool:
    return old == new or (old != old and new != new)  # NaN is itself


def prove(
    profiles: list[str],
    seeds: int = 1,
    say: Callable[[str], None] = print,
    sources: list[str] | None = None,
    through: str | None = None,
) -> bool:
    """Train every pair, write a ledger line for each experiment as soon as all of its rows are the same, say what was
    found; whether nothing differed. sources and through as in `pairs`. Profiles whose data is not there are left out
    with a word, and a run that one of the codes cannot make is one that differs."""
    wanted = pairs(profiles, seeds, sources, through)
    missing = {(pair.profile, pair.experiment, pair.recipe["data"]["root"]) for pair in wanted if not pair.has_data}
    for profile, experiment, root in sorted(missing):
        say(f"left out: {profile} {experiment}, as there is no data in {root}: name its folder with DATA=")
    wanted = [pair for pair in wanted if pair.has_data]
    if not wanted:
        say("every published row is of today's code" if not missing else "nothing could be compared")
        return not missing
    root, state = project_root(), git_state()
    left = Counter(map(_of_ledger, wanted))
    compared: dict[tuple, list[tuple[Pair, int, str | None]]] = {key: [] for key in left}
    joined = 0
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        commits = dict.fromkeys(pair.commit for pair in wanted)
        clones = {commit: stack.enter_context(checked_out(commit, Path(temporary))) for commit in commits}

        def both(pair: Pair) -> tuple[int, str | None, str]:
            try:
                old = train(pair, clones[pair.commit], Path(temporary) / "old")
                new = train(pair, root, Path(temporary) / "new")
            except ValueError as error:
                return 0, str(error), ""
            return *difference(old, new), new["device"]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for pair, (values, differs, device) in zip(wanted, pool.map(both, wanted), strict=True):
                say(f"{pair.profile} {pair.experiment}: {pair.name}: {differs or f'{values} values, the same digits'}")
                key = _of_ledger(pair)
                compared[key].append((pair, values, differs))
                left[key] -= 1
                if not left[key]:
                    joined += _join(compared[key], state, device, say)
    return joined == len(compared) and not missing


def _of_ledger(pair: Pair) -> tuple[str, str, str]:
    """What of a pair names a line of the ledger."""
    return pair.profile, pair.experiment, pair.source


def _join(runs: list[tuple[Pair, int, str | None]], state: dict, device: str, say: Callable[[str], None]) -> bool:
    """Write the line of an experiment whose pairs gave the same values; whether they did."""
    first = runs[0][0]
    name = f"{first.profile} {first.experiment}"
    differs = [f"{pair.name}: {text}" for pair, _, text in runs if text]
    if differs:
        say(f"{name}: not joined, {len(differs)} of {len(runs)} runs differ. First: {differs[0]}")
        return False
    line = {
        "profile": first.profile,
        "experiment": first.experiment,
        "old": first.source,
        "new": source_of(first.experiment),
        "runs": len(runs),
        "values": sum(values for _, values, _ in runs),
        "old_commit": first.commit[:12],
        "new_commit": str(state["commit"])[:12] + ("+" if state["dirty"] else ""),
        "device": device,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    ledger.add([line])
    say(f"{name}: joined, {len(runs)} runs, {line['values']} values")
    return True
