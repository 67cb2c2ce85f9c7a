"""The runs behind a sweep: each once, what it needs first, and how long it may take.

Two arms, or an arm and another's teacher, may be one run: runs are told apart by their folders.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..recipe.build import as_dict, float_twin, with_float_weights
from ..recipe.clone import project_root
from ..recipe.expansion import Requested
from ..recipe.schema import Recipe
from . import ledger
from .execute import finished_row, published_row, title
from .identity import data_fingerprint, folder_of
from .launch import dotted

OF_ONE_RUN = ("seed", "data.root", "data.workers")  # settings that say nothing of what a run takes


@dataclass
class Job:
    """A run: its recipe, its folder and name, the runs it needs first, the files that its row is copied to."""

    recipe: Recipe
    folder: Path
    name: str
    needs: list["Job"]
    arms: list[str] = field(default_factory=list)  # that are asked for; none: others need it
    copies: list[Path] = field(default_factory=list)
    is_needed: bool = False  # by another run, which starts from its checkpoint or learns from it

    @property
    def reuse_published(self) -> bool:
        """Whether a published row will do: it comes without a checkpoint."""
        return not self.is_needed

    def row(self) -> dict | None:
        """The row of this run if it is finished, or published and the environment asks for published rows."""
        finished = finished_row(self.folder)
        if finished is not None:
            return finished
        return published_row(self.recipe) if self.reuse_published else None


def prerequisites(recipe: Recipe) -> list[Recipe]:
    """The runs whose checkpoints a run starts from or learns from, those that are made by it if they are not there."""
    needed = [float_twin(recipe)] if recipe.teacher == "twin" else []
    return needed + ([with_float_weights(recipe)] if recipe.init_from == "float_weights" else [])


def plan(requested: list[Requested], runs: Path | None = None, copies: Path | None = None) -> list[Job]:
    """The runs that are asked for and those that they need, each once, none before what it needs; `copies` is the
    folder that copies of their rows go to.

    Raises ValueError for data that is not there, and for a copy that would take another file's place.
    """
    jobs: dict[Path, Job] = {}
    data: dict[Path, str] = {}  # looked at once for all runs

    def add(recipe: Recipe, name: str) -> Job:
        root = recipe.data.folder
        if root not in data and recipe.data.root and root.is_dir():
            data[root] = data_fingerprint(root)
        folder = folder_of(recipe, runs, data.get(root))
        if folder not in jobs:
            needs = [add(needed, f"{title(needed)} for {name}") for needed in prerequisites(recipe)]
            for job in needs:
                job.is_needed = True
            jobs[folder] = Job(recipe, folder, name, needs)
        return jobs[folder]

    for request in requested:
        job = add(request.recipe, name_of(request))
        job.name = name_of(request)
        job.arms.append(request.arm)
        if copies:
            job.copies.append(copies / (request.copy or f"{job.folder.name}.json"))
            refuse_other_than_row(job.copies[-1], request.recipe)
    return list(jobs.values())


def refuse_other_than_row(file: Path, recipe: Recipe) -> None:
    """Raise ValueError for a file that is there and is no row of what the recipe trains, under its seed: no copy of a
    row takes another one's place. One with other settings is replaced."""
    try:
        row = ledger.read_row(file) if file.exists() else None
    except ValueError:
        raise ValueError(f"{file} is there and is no row of a run: name another folder, or move it away") from None
    asked = {"profile": recipe.profile, "experiment": recipe.experiment, "title": title(recipe), "seed": recipe.seed}
    if row and asked != {key: row[key] for key in asked}:
        raise ValueError(
            f"{file} is there and is the row of {row['profile']} {row['experiment']}, {row['title']}, seed "
            f"{row['seed']}: name another folder, or move it away"
        )


def name_of(request: Requested) -> str:
    """What a person calls a run: experiment, arm and seed, and the learning rate where images are held out for it."""
    recipe = request.recipe
    rate = f", learning rate {recipe.learning_rate:g}" if recipe.data.validation else ""
    return f"{recipe.experiment} {request.arm}, seed {recipe.seed}{rate}"


class Pace:
    """Seconds and memory that runs take: from finished runs, else from published rows, which may be of another machine;
    of those of the same experiment whose recipes differ in the fewest settings, whatever their seed."""

    def __init__(self, profile: str, runs: Path | None = None) -> None:
        self._known: dict[str, dict[frozenset, list[tuple[float, int]]]] = {}  # of an experiment, of settings
        self._alike: dict[Path, list[tuple[float, int]]] = {}  # of a run's folder, until another run is known
        folder = (runs or project_root() / "runs") / profile
        for path in sorted(folder.glob("*/*/row.json")):
            self._add_from(path)
        results = project_root() / "results" / profile
        for name in sorted(path.name for path in results.glob("*") if path.is_dir()):
            if name not in self._known:
                for row in ledger.rows(profile, name):
                    self.add(row)

    def add(self, row: dict, seconds: float | None = None) -> None:
        """Take note of a finished run, `seconds` of the clock where it was watched."""
        took = row["seconds"] if seconds is None else seconds, row["peak_memory_mib"] or 0
        self._known.setdefault(row["experiment"], {}).setdefault(_settings(row["recipe"]), []).append(took)
        self._alike.clear()

    def _add_from(self, path: Path) -> None:
        """A damaged row tells no time; who reads it for its numbers says so."""
        with suppress(ValueError, KeyError, TypeError):
            self.add(ledger.read_row(path))

    def seconds(self, job: Job) -> float | None:
        """The longest of the known runs that are most like this one; None where none is known."""
        return max((seconds for seconds, _ in self._most_alike(job)), default=None)

    def memory_mib(self, job: Job) -> int | None:
        """The most memory that one of the known runs that are most like this one held, in MiB; None where none is."""
        return max((memory for _, memory in self._most_alike(job)), default=None)

    def _most_alike(self, job: Job) -> list[tuple[float, int]]:
        if job.folder not in self._alike:  # a sweep asks for all of its jobs twice a second
            asked, known = _settings(as_dict(job.recipe)), self._known.get(job.recipe.experiment, {})
            fewest = min((len(asked - settings) for settings in known), default=0)
            alike = [took for settings, runs in known.items() if len(asked - settings) == fewest for took in runs]
            self._alike[job.folder] = alike
        return self._alike[job.folder]


def _settings(recipe: dict) -> frozenset[tuple[str, str]]:
    """The settings of a recipe, each with its value, but for the seed, where the data lies and who reads it."""
    return frozenset((key, json.dumps(value)) for key, value in dotted(recipe) if key not in OF_ONE_RUN)
