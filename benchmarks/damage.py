"""Does a damaged checkpoint change a digit? A small run is stopped in the middle, its checkpoints are damaged at
random, and it goes on: the row must be the undisturbed one, or a sentence must say what is wrong.

    python benchmarks/damage.py [--count 100] [--seed 0]

It runs in the clone on the embedded images; what it trains goes to a temporary folder. The exit status is 1 if a row
differs or an error is no sentence.
"""

import argparse
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from bnc_repro.recipe.profiles import recipe_of
from bnc_repro.recipe.schema import Recipe
from bnc_repro.run import folder_of, run
from bnc_repro.training import checkpoint, loop

CUT = {"epochs": 4, "width": 4, "blocks": [1, 1], "data": {"train_limit": 640}}


class Stopped(Exception):
    """Ends a run from within."""


def flip_bits(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 1, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def cut_short(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def blank(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    length = min(draw.choice((1, 16, 4096)), len(content) - start)
    content[start : start + length] = bytes(length)


def repeat(content: bytearray, draw: random.Random) -> None:
    content += content[: draw.randrange(1, len(content))]


def lose_a_part(state: dict, draw: random.Random) -> dict:
    lost = draw.choice(sorted(state))
    return {key: value for key, value in state.items() if key != lost}


def exchange_a_part(state: dict, draw: random.Random) -> dict:
    return state | {draw.choice(sorted(state)): draw.choice((None, 3, "text", [], {}, torch.ones(2)))}


def lose_a_weight(state: dict, draw: random.Random) -> dict:
    network = dict(state["network"])
    del network[draw.choice(sorted(network))]
    return state | {"network": network}


def break_a_weight(state: dict, draw: random.Random) -> dict:
    name = draw.choice(sorted(state["network"]))
    return state | {"network": state["network"] | {name: state["network"][name] * draw.choice((float("nan"), 1.001))}}


OF_BYTES: list[Callable] = [flip_bits, cut_short, blank, repeat]
OF_STATES: list[Callable] = [lose_a_part, exchange_a_part, lose_a_weight, break_a_weight]


def damage(path: Path, draw: random.Random) -> str:
    """Damage a checkpoint, in its bytes or in the values that torch.save writes; the name of what was done."""
    kind = draw.choice(OF_BYTES + OF_STATES)
    if kind in OF_BYTES:
        content = bytearray(path.read_bytes())
        kind(content, draw)
        path.write_bytes(content)
    else:
        torch.save(kind(torch.load(path, weights_only=True), draw), path)
    return kind.__name__.replace("_", " ")


def stop_in_the_middle(recipe: Recipe, runs: Path) -> None:
    """Train until the third checkpoint is written."""
    saved, save = [0], checkpoint.save

    def counting(*arguments, **options):
        save(*arguments, **options)
        saved[0] += 1
        if saved[0] == 3:
            raise Stopped

    checkpoint.save = counting
    try:
        run(recipe, runs)
    except Stopped:
        return
    finally:
        checkpoint.save = save
    raise RuntimeError("the run ended before it could be stopped")


def counted(row: dict) -> dict:
    """What counts of a row: all but what the clock decides."""
    curve = [{key: value for key, value in epoch.items() if "seconds" not in key} for epoch in row["curve"]]
    return {"metrics": row["metrics"], "best": row["best"], "curve": curve}


def main() -> None:
    """Damage, go on, compare, say what was seen."""
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--count", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    asked, seen, wrong = options.parse_args(), Counter(), []
    recipe = recipe_of("linear_vs_soft", "sample", "mlp", **CUT)
    assert loop.checkpoint is checkpoint
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, stopped = counted(run(recipe, Path(temporary) / "whole")), Path(temporary) / "stopped"
        stop_in_the_middle(recipe, stopped)
        for number in range(asked.count):
            draw, runs = random.Random(asked.seed * 100_000 + number), Path(temporary) / "damaged"
            shutil.rmtree(runs, ignore_errors=True)
            shutil.copytree(stopped, runs)
            files = [file for name in checkpoint.NAMES if (file := folder_of(recipe, runs) / name).is_file()]
            kinds = [damage(file, draw) for file in files[: draw.choice((1, 1, len(files)))]]
            try:
                outcome = "the undisturbed row" if counted(run(recipe, runs)) == expected else "ANOTHER ROW"
            except ValueError as error:
                named = any(name in str(error) for name in checkpoint.NAMES) and "\n" not in str(error)
                outcome = "a sentence" if named else f"NO SENTENCE: {error}"
            except Exception as error:  # whatever it is, it is what this looks for
                outcome = f"{type(error).__name__.upper()}: {error}"
            seen[outcome] += 1
            if outcome not in ("the undisturbed row", "a sentence"):
                wrong.append(f"number {number}, {' and '.join(kinds)}: {outcome}")
    print(f"{asked.count} runs with damaged checkpoints: {', '.join(f'{n} {what}' for what, n in seen.most_common())}")
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
