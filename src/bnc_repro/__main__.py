"""The command line: python -m bnc_repro COMMAND. It parses, calls one function, and prints what that returns."""

import argparse
import functools
import json
import os
import sys
from pathlib import Path

from .recipe.build import parse_settings
from .recipe.clone import project_root
from .recipe.profiles import experiment_section, recipe_of
from .recipe.schema import EXPERIMENTS, PROFILES
from .run import pinned


def run_command(options: argparse.Namespace) -> None:
    """One run, or one for each of the profile's arms and seeds; the path of the last row is the last line printed."""
    from .run import folder_of, run
    from .run.launch import launch, processes_asked
    from .training import distributed
    from .training.checkpoint import write_json
    from .training.loop import check_shares

    settings = parse_settings(options.set)
    section = experiment_section(options.experiment, options.profile)
    arms = section["arms"] if options.arm == "all" else [options.arm]
    seeds = section["seeds"] if options.seed == "all" else [options.seed]
    recipes = {}
    for arm in arms:
        for seed in seeds:
            changes = settings if seed is None else settings | {"seed": seed}
            recipes[arm, seed] = recipe_of(options.experiment, options.profile, arm, **changes)
    processes = processes_asked(options.processes)
    if processes > 1:
        for recipe in recipes.values():  # what is wrong here would be wrong in each process, and in each restart
            check_shares(recipe, processes)
            folder_of(recipe)
        launch(processes)
    for (arm, _), recipe in recipes.items():
        row = run(recipe, options.runs)
        if distributed.rank():
            continue
        print(f"{row['status']}: " + ", ".join(f"{key} {value:.4g}" for key, value in row["metrics"].items() if value))
        path = folder_of(recipe, options.runs) / "row.json"
        if options.rows:
            path = options.rows / (str(arm) if options.arm == "all" else "") / f"{recipe.seed}.json"
            write_json(path, row)
        print(path)


def processes_or_gpus(text: str) -> int | str:
    """A number of processes, or the word for one per GPU."""
    if text != "gpus" and not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be a positive number of processes, or `gpus`")
    return text if text == "gpus" else int(text)


def seed_or_all(text: str) -> int | str:
    """A seed, or the word that means every seed of the profile."""
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0, or `all`")
    return text if text == "all" else int(text)


def tune_command(options: argparse.Namespace) -> None:
    """Run the profile's grid of learning rates for an arm on held-out training images; the best is printed last."""
    from .evidence import tuning
    from .run import run
    from .training.checkpoint import write_json

    section = experiment_section(options.experiment, options.profile)
    for arm in section["arms"] if options.arm == "all" else [options.arm]:
        rates: dict[float, list[float]] = {}
        for recipe in tuning.grid(options.experiment, options.profile, arm):
            row = run(recipe, options.runs)
            if options.rows:
                write_json(options.rows / f"{row['fingerprint']}.json", row)
            rates.setdefault(recipe.learning_rate, []).append(row["metrics"].get(row["headline"], 0.0))
        means = {rate: sum(values) / len(values) for rate, values in rates.items()}
        for rate, mean in means.items():
            print(f"{arm}: learning_rate {rate:g}: {mean:.2f} on held-out images")
        print(max(means, key=means.__getitem__))


def _device():
    """CUDA where there is one; a checkpoint of any profile may be judged on a CPU too."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def evaluate_command(options: argparse.Namespace) -> None:
    """The metrics of a checkpoint on its own data, or on --data."""
    from .run import evaluate, load_network

    device = _device()
    print(json.dumps(evaluate(options.checkpoint, options.data, device, options.own), indent=1))
    if options.results:
        from .poses.predict import write_results

        network, recipe, _ = load_network(options.checkpoint, device, options.own)
        if recipe.experiment != "coco_pose":
            raise ValueError(f"--results is for pose checkpoints, {options.checkpoint} is of {recipe.experiment}")
        root = Path(options.data).resolve() if options.data else recipe.data.folder
        print(write_results(network, recipe, root, options.results, device))


def predict_command(options: argparse.Namespace) -> None:
    """A line of JSON per picture."""
    from .run import predict

    for line in predict(options.checkpoint, options.pictures, _device(), options.own):
        print(json.dumps(line))


def draw_command(options: argparse.Namespace) -> None:
    """People of a results file on their pictures, as a PNG."""
    from .evidence import drawing

    drawing.results(options.results, options.folder, options.split, options.count).savefig(options.picture, dpi=120)
    print(options.picture)


def data_command(options: argparse.Namespace) -> None:
    """`check` says what is wrong with a folder; `state` writes for stages what the folders of an experiment hold."""
    if options.action == "state":
        from .pages import stages

        print(stages.write_state(options.what, options.profile, options.target))
        return
    from .images import manifest
    from .images.check import check_images
    from .poses.check import check_keypoints

    folder = Path(options.what)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name the one to check")
    kind = options.kind or ("coco" if (folder / "annotations").is_dir() else "imagefolder")
    notes: list[str] = []
    readable: list[Path] = []
    if kind == "coco":
        findings = check_keypoints(folder, notes)
    else:
        findings = check_images(folder, notes, readable)
    for sentence in [*(f"note: {note}" for note in notes), *findings]:
        print(sentence)
    if readable:
        print(f"{manifest.write(folder, readable)}: {len(readable)} pictures that can be read")
    if findings:
        sys.exit(f"{folder}: {len(findings)} to mend (or allow for unreadable training pictures: data.max_bad_share)")
    print(f"{folder}: nothing wrong")


def list_command(options: argparse.Namespace) -> None:
    """Names that recipes know, or the rows that are there."""
    if options.what == "experiments":
        print("\n".join(EXPERIMENTS))
    elif options.what == "binarizers":
        from .binarizers.registry import describe

        print("\n".join(describe()))
    elif options.what == "networks":
        from .images.networks import CLASSIFIERS
        from .poses.networks import POSENETS

        print("\n".join([*CLASSIFIERS, *POSENETS]))
    else:
        for path in sorted(project_root().glob("r*s/*/*/*/row.json")):
            row = json.loads(path.read_text())
            value = row["metrics"].get(row["headline"])
            print(f"{row['experiment']:16} {row['title']:40} seed {row['seed']} {row['status']:9} {value} {path}")


def notebook_command(options: argparse.Namespace) -> None:
    """Execute a notebook as a stage does."""
    from .pages import notebook

    print(notebook.execute(options.name, options.profile))


def code_command(options: argparse.Namespace) -> None:
    """Write the fingerprints of code that the stages of a profile depend on."""
    from .pages import stages

    folder = project_root() / "runs" / options.profile / "code"
    print("\n".join(map(str, stages.write_code(folder, options.profile))))


def same_digits_command(options: argparse.Namespace) -> None:
    """Train runs of the published rows by the code that made them and by today's; where every digit is the same, join
    the two in results/equivalent.csv."""
    from .evidence import same_digits

    say = functools.partial(print, flush=True)
    if not same_digits.prove(options.profile or list(same_digits.PROFILES), options.seeds, say):
        sys.exit("bnc_repro: not everything could be joined (see above); rows that differ are to be made anew")


def environment_command(options: argparse.Namespace) -> None:
    """The variables under which the runs of a profile compute, KEY=VALUE a line: env $(...) jupyter lab."""
    print("\n".join(f"{key}={value}" for key, value in pinned.environment(options.profile).items()))


def publish_command(options: argparse.Namespace) -> None:
    """Copy current rows from runs/ to results/; write the README's verdict and the notebooks' outputs anew."""
    from .pages import publish
    from .training.progress import show

    show()
    print("\n".join(map(str, publish.publish(options.remove))))


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(prog="python -m bnc_repro", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        subparser.set_defaults(function=function)
        return subparser

    run_parser = command("run", run_command)
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
    run_parser.add_argument("--runs", type=Path, help="the folder of all runs, runs/ in the clone")
    run_parser.add_argument("--rows", type=Path, help="also write each row here, as SEED.json or ARM/SEED.json")
    grid = command("tune", tune_command)
    grid.add_argument("experiment", metavar="EXPERIMENT", help=" | ".join(EXPERIMENTS))
    grid.add_argument("--profile", default="small", help=" | ".join(PROFILES))
    grid.add_argument("--arm", required=True, help="an arm of the profile's params.yaml, or `all` of them")
    grid.add_argument("--runs", type=Path, help="the folder of all runs, runs/ in the clone")
    grid.add_argument("--rows", type=Path, help="also write each row to this folder")
    judge = command("evaluate", evaluate_command)
    judge.add_argument("checkpoint", type=Path)
    judge.add_argument("--data", help="another folder of the same kind")
    judge.add_argument(
        "--own", action="append", default=[], metavar="FILE.py:NAME", help="a binarizer of one's own that may run"
    )
    judge.add_argument("--results", type=Path, help="also write a pose network's predictions to this results file")
    guess = command("predict", predict_command)
    guess.add_argument("checkpoint", type=Path)
    guess.add_argument("pictures", type=Path, nargs="+")
    guess.add_argument(
        "--own", action="append", default=[], metavar="FILE.py:NAME", help="a binarizer of one's own that may run"
    )
    draw = command("draw", draw_command)
    draw.add_argument("results", type=Path, help="a results file in COCO's form")
    draw.add_argument("folder", type=Path, help="the data set, with annotations/ and the split's pictures")
    draw.add_argument("picture", type=Path, help="the PNG to write")
    draw.add_argument("--split", default="val2017")
    draw.add_argument("--count", type=int, default=12, help="so many pictures")
    data = command("data", data_command)
    data.add_argument("action", choices=("check", "state"))
    data.add_argument("what", help="a folder to check, or an experiment")
    data.add_argument("--profile", default="sample", choices=PROFILES)
    data.add_argument("--kind", choices=("imagefolder", "coco"))
    data.add_argument("--target", help="the file that `state` writes")
    names = command("list", list_command)
    names.add_argument("what", nargs="?", default="rows", choices=("binarizers", "networks", "experiments", "rows"))
    page = command("notebook", notebook_command)
    page.add_argument("name", help="its name in notebooks/ without .ipynb")
    page.add_argument("--profile", default="sample", choices=PROFILES)
    code = command("code", code_command)
    code.add_argument("--profile", default="sample", choices=PROFILES)
    settings = command("environment", environment_command)
    settings.add_argument("--profile", default="sample", choices=PROFILES)
    same = command("same-digits", same_digits_command)
    same.add_argument("--profile", action="append", choices=PROFILES, help="all that have published rows")
    same.add_argument("--seeds", type=int, default=1, help="so many seeds of each arm of the sample")
    published = command("publish", publish_command)
    published.add_argument("--remove", action="store_true", help="also remove published rows of no arm and seed")
    return top


def main() -> None:
    """Run a command; a user's mistake is one sentence and exit status 1, never a traceback."""
    options = parser().parse_args()
    if isinstance(getattr(options, "profile", None), str):
        pinned.pin(options.profile)  # before anything imports torch
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun then shows the first process's error, not each one's
            from torch.distributed.elastic.multiprocessing.errors import record

            from .training import distributed

            record(options.function)(options)
            distributed.part()
        else:
            options.function(options)
    except ValueError as error:
        sys.exit(f"bnc_repro: {error}")


if __name__ == "__main__":
    main()
