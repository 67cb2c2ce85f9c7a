"""The command line: python -m bnc_repro COMMAND. It parses, calls one function, and prints what that returns."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from . import commands
from .names import install_line
from .recipe.schema import EXPERIMENTS, PROFILES
from .run import pinned

MOST_PROCESSES = 4096  # workers, or processes of a run


def count_or(word: str, what: str) -> Callable[[str], int | str]:
    """Parses a number of `what`, or `word`."""

    def parse(text: str) -> int | str:
        if text != word and not (text.isdecimal() and 0 < int(text) <= MOST_PROCESSES):
            raise argparse.ArgumentTypeError(
                f"{text!r} must be a positive number of {what}, {MOST_PROCESSES} at most, or `{word}`"
            )
        return text if text == word else int(text)

    return parse


processes_or_gpus, jobs_or_auto = count_or("gpus", "processes"), count_or("auto", "workers")


def positive_hours(text: str) -> float:
    """A time in hours."""
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a positive number of hours, for instance 0.5")
    return hours


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def score(text: str) -> float:
    """A score of a joint."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a score from 0 to 1, for instance 0.2")
    return number


def seed_or_all(text: str) -> int | str:
    """A seed, or the word that means every seed of the profile."""
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0, or `all`")
    return text if text == "all" else int(text)


def not_empty(text: str) -> str:
    """A name or a path; the empty one is a variable that holds nothing, and would mean the present folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a file or a folder, or leave the option out")
    return text


def place(text: str) -> Path:
    """A path."""
    return Path(not_empty(text))


def takes_own(subparser: argparse.ArgumentParser) -> None:
    """The option by which a checkpoint's own file may run."""
    subparser.add_argument(
        "--own", action="append", default=[], metavar="FILE.py:NAME", help="a binarizer of one's own that may run"
    )


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(prog="python -m bnc_repro", description=__doc__)
    subparsers = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function) -> argparse.ArgumentParser:
        subparser = subparsers.add_parser(name, help=function.__doc__, description=function.__doc__)
        subparser.set_defaults(function=function)
        return subparser

    run_parser = command("run", commands.run_command)
    run_parser.add_argument("experiment", metavar="EXPERIMENT", help=" | ".join(EXPERIMENTS))
    run_parser.add_argument("--profile", default="sample", help=" | ".join(PROFILES))
    run_parser.add_argument("--arm", help="an arm of the profile's params.yaml, or `all` of them")
    run_parser.add_argument(
        "--seed", type=seed_or_all, help="a number, or `all`: each seed of the profile's params.yaml"
    )
    run_parser.add_argument(
        "--processes", type=processes_or_gpus, default=1, help="a number, or `gpus`: one for each of them"
    )
    run_parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe")
    run_parser.add_argument("--runs", type=place, help="the folder of all runs, runs/ in the clone")
    run_parser.add_argument("--rows", type=place, help="also write each row here, as SEED.json or ARM/SEED.json")
    many = command("sweep", commands.sweep_command)
    many.add_argument("experiment", metavar="EXPERIMENT", help=" | ".join((*EXPERIMENTS, "all")))
    many.add_argument("--tuning", action="store_true", help="the profile's grid of learning rates, on held-out images")
    many.add_argument("--seed", action="append", type=seed_or_all, help="a seed, may be repeated; all of the profile's")
    many.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipes")
    grid = command("tune", commands.tune_command)
    grid.add_argument("experiment", metavar="EXPERIMENT", help=" | ".join(EXPERIMENTS))
    grid.set_defaults(tuning=True, seed=None, set=[])
    for subparser, profile in ((many, "sample"), (grid, "small")):
        subparser.add_argument("--profile", default=profile, help=" | ".join(PROFILES))
        subparser.add_argument("--arm", action="append", help="an arm of params.yaml, may be repeated; all of them")
        subparser.add_argument(
            "--jobs", type=jobs_or_auto, metavar="N", help="so many runs at once; `auto`: one a core, or one a GPU"
        )
        subparser.add_argument(
            "--processes", type=processes_or_gpus, default=1, help="of each run: a number, or `gpus`"
        )
        subparser.add_argument("--hours", type=positive_hours, help="start nothing that would not end by then, and end")
        subparser.add_argument(
            "--engine", default="local", choices=("local", "slurm"), help="this machine, or a cluster"
        )
        subparser.add_argument("--slurm", action="append", default=[], metavar="KEY=VALUE", help="any option of sbatch")
        subparser.add_argument("--runs", type=place, help="the folder of all runs, runs/ in the clone")
        subparser.add_argument("--rows", type=place, help="also write each row here, as ARM/SEED.json")
    judge = command("evaluate", commands.evaluate_command)
    judge.add_argument("checkpoint", type=place)
    takes_own(judge)
    judge.add_argument("--data", type=not_empty, help="another folder of the same kind")
    judge.add_argument(
        "--detections", type=place, help="judge a pose network in a detector's boxes, by COCO's ten numbers"
    )
    judge.add_argument("--results", type=place, help="also write a pose network's predictions to this results file")
    guess = command("predict", commands.predict_command)
    guess.add_argument("checkpoint", type=place)
    guess.add_argument("pictures", type=place, nargs="+")
    takes_own(guess)
    guess.add_argument("--box", action="append", default=[], metavar="X,Y,WIDTH,HEIGHT", help="a person, in px")
    guess.add_argument("--detections", type=place, help="people: a detector's file, pictures called by their image ids")
    guess.add_argument("--results", type=place, help="also write people to this results file in COCO's form")
    guess.add_argument("--draw", type=place, metavar="FILE.png", help="also draw people on their pictures")
    guess.add_argument("--above", type=score, help="draw joints with a score above this one, 0.2")
    packing = command("pack", commands.pack_command)
    packing.add_argument("checkpoint", type=place)
    packing.add_argument("file", type=place, nargs="?")
    timing = command("benchmark", commands.benchmark_command)
    timing.add_argument("checkpoint", type=place)
    timing.add_argument("--batch", type=positive, default=1, help="images a call")
    timing.add_argument("--rounds", type=positive, default=15, help="turns of each contestant")
    timing.add_argument("--threads", type=positive, default=1, help="of each contestant; of more images than one")
    exporting = command("export", commands.export_command)
    exporting.add_argument("checkpoint", type=place)
    exporting.add_argument("file", type=place)
    for subparser in (packing, timing, exporting):
        takes_own(subparser)
    draw = command("draw", commands.draw_command)
    draw.add_argument("results", type=place, help="a results file in COCO's form")
    draw.add_argument("folder", type=place, help="the data set, with annotations/ and the split's pictures")
    draw.add_argument("picture", type=place, help="the PNG to write")
    draw.add_argument("--split", type=not_empty, default="val2017")
    draw.add_argument("--above", type=score, default=0.2, help="joints with a score above this one, 0.2")
    draw.add_argument("--count", type=positive, default=12, help="so many pictures")
    data = command("data", commands.data_command)
    data.add_argument("action", choices=("check", "state"))
    data.add_argument("what", type=not_empty, help="a folder to check, or an experiment")
    data.add_argument("--profile", choices=PROFILES, help="of `state`, sample")
    data.add_argument("--kind", choices=("imagefolder", "coco"), help="of `check`, what the folder looks like")
    data.add_argument("--target", type=not_empty, help="the file that `state` writes")
    names = command("list", commands.list_command)
    names.add_argument("what", nargs="?", default="rows", choices=("binarizers", "networks", "experiments", "rows"))
    page = command("notebook", commands.notebook_command)
    page.add_argument("name", type=not_empty, help="its name in notebooks/ without .ipynb")
    page.add_argument("--profile", default="sample", choices=PROFILES)
    report = command("report", commands.report_command)
    report.add_argument("--profile", default="sample", choices=PROFILES)
    code = command("code", commands.code_command)
    code.add_argument("--profile", default="sample", choices=PROFILES)
    settings = command("environment", commands.environment_command)
    settings.add_argument("--profile", default="sample", choices=PROFILES)
    same = command("same-digits", commands.same_digits_command)
    same.add_argument("--profile", action="append", choices=PROFILES, help="all that have published rows")
    same.add_argument("--seeds", type=positive, default=1, help="so many seeds of each arm of the sample")
    same.add_argument("--through", type=not_empty, metavar="COMMIT", help="by the code that rows are joined to")
    same.add_argument(
        "--source", type=not_empty, action="append", metavar="FINGERPRINT", help="rows of this code, see `stale`"
    )
    command("stale", commands.stale_command)
    published = command("publish", commands.publish_command)
    published.add_argument("--remove", action="store_true", help="also remove published rows of no arm and seed")
    return top


def _open_streams() -> None:
    """Send what a caller has closed (`>&-`) to nowhere: else the next file that a run opens takes the number, and a
    library's warning is written into it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (until the process ends)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text


def _with_boxes(words: list[str]) -> list[str]:
    """The words with each box joined to its --box (--b, --bo): one that begins at -5 looks like an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--b", "--bo", "--box") and word.count(",") == 3:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def main() -> None:
    """Run a command; a user's mistake is one sentence and exit status 1, never a traceback."""
    _open_streams()
    options = parser().parse_args(_with_boxes(sys.argv[1:]))
    if isinstance(getattr(options, "profile", None), str):
        pinned.pin(options.profile)  # before anything imports torch
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            from .run.elastic import in_torchrun

            in_torchrun(options.function, options)
        else:
            options.function(options)
        sys.stdout.flush()
    except ValueError as error:
        sys.exit(f"bnc_repro: {error}")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        try:
            command = install_line(package)
        except ValueError:
            raise error from None
        sys.exit(f"bnc_repro: this needs {package}, which is not installed: {command}")
    except BrokenPipeError:  # whoever read the lines has gone, as `| head -1` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        sys.exit(f"bnc_repro: {name}{error.strerror or error}; correct the path, or who may read and write there")
    except KeyboardInterrupt:
        kept = "finished rows and the last complete checkpoint are kept; the same command goes on from there"
        print(f"bnc_repro: interrupted; {kept}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
