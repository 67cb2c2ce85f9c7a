"""The commands of `python -m bnc_repro`: each takes parsed options, calls one function, and prints what it returns."""

import argparse
import functools
import json
import sys
from pathlib import Path

from .recipe.build import parse_settings
from .recipe.clone import project_root
from .recipe.profiles import experiment_section, recipe_of, seeds_of
from .recipe.schema import EXPERIMENTS
from .run import pinned


def _refuse_idle(options: argparse.Namespace, *names: str, because: str) -> None:
    """Raise ValueError for an option that the user gave and that would change nothing."""
    for name in names:
        if getattr(options, name) not in (None, []):
            raise ValueError(f"--{name} means nothing here: {because}")


def run_command(options: argparse.Namespace) -> None:
    """One run, or one for each of the profile's arms and seeds; the path of the last row is the last line printed."""
    from .run import folder_of, run
    from .run.launch import launch, processes_asked
    from .training import distributed
    from .training.checkpoint import write_json
    from .training.loop import check_shares

    settings = parse_settings(options.set, options.seed)
    section = experiment_section(options.experiment, options.profile)
    arms = section["arms"] if options.arm == "all" else [options.arm]
    recipes = {}
    for arm in arms:
        seeds = seeds_of(section["arms"].get(arm, {}), section["seeds"])
        for seed in seeds if options.seed == "all" else [options.seed]:
            changes = settings if seed is None else settings | {"seed": seed}
            recipes[arm, seed] = recipe_of(options.experiment, options.profile, arm, **changes)
    copies: dict[tuple, Path] = {}
    if options.rows:
        from .run.plan import refuse_other_than_row

        for (arm, seed), recipe in recipes.items():
            folder = options.rows / arm if options.arm == "all" else options.rows
            copies[arm, seed] = folder / f"{recipe.seed}.json"
            refuse_other_than_row(copies[arm, seed], recipe)
    processes = processes_asked(options.processes)
    if processes > 1:
        for recipe in recipes.values():  # what is wrong here would be wrong in each process, and in each restart
            check_shares(recipe, processes)
            folder_of(recipe)
        launch(processes)
    for asked, recipe in recipes.items():
        row = run(recipe, options.runs)
        if distributed.rank():
            continue
        print(
            f"{row['status']}: "
            + ", ".join(
                f"{key} {value:.4g}" for key, value in row["metrics"].items() if isinstance(value, (int, float))
            )
        )
        if asked in copies:
            write_json(copies[asked], row)
        print(copies.get(asked, folder_of(recipe, options.runs) / "row.json"))


def sweep_command(options: argparse.Namespace) -> None:
    """Many runs at once, each in a process of its own: every arm under every seed, or the grid of learning rates.

    What is finished is skipped, what is not goes on; the exit status is 1 if a run failed, 75 if --hours left some.
    """
    from .recipe import expansion

    if options.engine == "slurm":
        _refuse_idle(options, "hours", because="a cluster's jobs end by --slurm time=MINUTES")
    else:
        _refuse_idle(options, "slurm", because="it sets sbatch's options; say --engine slurm too, or leave it out")
    arms = None if options.arm in (None, ["all"]) else options.arm
    seeds = None if options.seed in (None, ["all"]) else options.seed
    settings = parse_settings(options.set, options.seed)
    if options.tuning:
        _refuse_idle(options, "seed", because="the grid has seeds of its own, see tuning in the profile's params.yaml")
        requested = expansion.tuning(options.experiment, options.profile, arms, settings)
    else:
        requested = expansion.arms_and_seeds(options.experiment, options.profile, arms, seeds, settings)
    from .run.plan import plan

    jobs = plan(requested, options.runs, options.rows)
    places = {"workers": None if options.jobs == "auto" else options.jobs, "runs": options.runs}
    if options.engine == "slurm":
        from .run.cluster import sweep_by_slurm

        sbatch = parse_settings(options.slurm, option="--slurm")
        result = sweep_by_slurm(jobs, options.profile, sbatch, processes=options.processes, **places)
    else:
        from .run.launch import processes_asked
        from .run.sweep import sweep

        processes = processes_asked(options.processes)
        result = sweep(jobs, options.profile, processes=processes, hours=options.hours, **places)
    print(result.summary(), flush=True)
    if options.tuning:
        from .evidence import tuning

        print("\n".join(tuning.summary(jobs, result.rows)))
    if result.status:
        sys.exit(result.status)


def tune_command(options: argparse.Namespace) -> None:
    """Find the learning rate of each arm: the profile's grid, many runs at once, judged on images held out from
    training. It prints each rate's mean, and below an arm's means its best rate."""
    sweep_command(options)


def _device():
    """CUDA where there is one; a checkpoint of any profile may be judged on a CPU too."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def evaluate_command(options: argparse.Namespace) -> None:
    """The metrics of a checkpoint or a packed file on its own data, or on --data."""
    from .run import outputs, packed

    device = _device()
    if options.results:
        outputs.check(options.results, ".json", options.checkpoint, options.detections)
    if not options.results and not options.detections:
        print(json.dumps(packed.evaluate(options.checkpoint, options.data, device, options.own), indent=1))
        return
    from .poses.coco_eval import save_results
    from .run.people import PoseNetwork, evaluate_detections, results_of_validation

    model = PoseNetwork.load(options.checkpoint, device, options.own)
    root = Path(options.data).resolve() if options.data else model.recipe.data.folder
    if options.detections:
        measures, results = evaluate_detections(model, root, options.detections)
        print(json.dumps(measures, indent=1) if measures else f"{root} has no annotations: nothing is judged")
    else:
        print(json.dumps(packed.evaluate(options.checkpoint, options.data, device, options.own), indent=1))
        results = results_of_validation(model, root)
    if options.results:
        print(save_results(results, options.results))


def predict_command(options: argparse.Namespace) -> None:
    """A line of JSON per picture, of a checkpoint or a packed file."""
    if not options.draw:
        _refuse_idle(options, "above", because="it chooses the joints of a drawing; say --draw FILE.png too")
    if options.box or options.detections or options.draw or options.results:
        _predict_people(options)
        return
    from .run import packed

    for line in packed.predict(options.checkpoint, options.pictures, _device(), options.own):
        print(json.dumps(line))


def _predict_people(options: argparse.Namespace) -> None:
    """People in boxes: a line of JSON per picture, a results file, a drawing."""
    from .poses.coco_eval import save_results
    from .run import outputs, people

    pictures, boxes = options.pictures, None
    for file, suffix in ((options.results, ".json"), (options.draw, ".png")):
        if file:
            outputs.check(file, suffix, options.checkpoint, options.detections, *pictures)
    if options.box and (options.detections or len(pictures) > 1):
        raise ValueError("--box names people of one picture: name one, without --detections")
    if options.box:
        boxes = [[(people.parse_box(box), 1.0) for box in options.box]]
    model = people.PoseNetwork.load(options.checkpoint, _device(), options.own)
    if options.detections:
        boxes = people.read_boxes(options.detections, pictures, model.skeleton.category)
    results = people.results_in(model, pictures, boxes)
    by_picture = [[entry for entry in results if entry["image_id"] == number] for number in people.image_ids(pictures)]
    for picture, entries in zip(pictures, by_picture, strict=True):
        print(json.dumps(people.line_of(picture, entries, model.skeleton.names)))
    if options.results:
        print(save_results(results, options.results))
    if options.draw:
        from .evidence import drawing

        above = 0.2 if options.above is None else options.above
        outputs.save_drawing(drawing.predictions(pictures, by_picture, model.skeleton, above, boxes), options.draw)
        print(options.draw)


def pack_command(options: argparse.Namespace) -> None:
    """Pack a checkpoint's binary layers into bits; the packed file's path is the last line printed."""
    from .run import outputs, packed

    outputs.check(options.file or packed.file_for(options.checkpoint), packed.SUFFIX, options.checkpoint)
    file, report, size = packed.pack_checkpoint(options.checkpoint, options.file, options.own)
    print(f"{report}\n{size / 1e3:.1f} kB\n{file}")


def benchmark_command(options: argparse.Namespace) -> None:
    """Time of a packed checkpoint beside its float twin and what else is installed, by turns: the processor's on one
    thread, the clock's on several."""
    from .run import packed

    asked = {key: getattr(options, key) for key in ("batch", "rounds", "threads", "own")}
    report, comparison = packed.compare(options.checkpoint, **asked)
    print(f"{report}\n{comparison}")


def export_command(options: argparse.Namespace) -> None:
    """Write a checkpoint's network as ONNX and compare what onnxruntime makes of it with torch."""
    from .run import outputs
    from .run.export import SUFFIX, export_checkpoint

    outputs.check(options.file, SUFFIX, options.checkpoint)
    print(export_checkpoint(options.checkpoint, options.file, options.own))
    print(options.file)


def draw_command(options: argparse.Namespace) -> None:
    """People of a results file on their pictures, as a PNG."""
    from .run import outputs

    outputs.check(options.picture, ".png", options.results)
    from .evidence import drawing

    figure = drawing.results(options.results, options.folder, options.split, options.count, options.above)
    outputs.save_drawing(figure, options.picture)
    print(options.picture)


def data_command(options: argparse.Namespace) -> None:
    """`check` says what is wrong with a folder; `state` writes for stages what the folders of an experiment hold."""
    if options.action == "state":
        _refuse_idle(options, "kind", because="an experiment's recipes say what its folders hold")
        from .pages import stages

        print(stages.write_state(options.what, options.profile or "sample", options.target))
        return
    _refuse_idle(options, "profile", "target", because="`data check` takes a folder; they are of `data state`")
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
        from .run.ledger import read_row

        for path in sorted(project_root().glob("runs/*/*/*/row.json")):
            try:
                row = read_row(path)
            except ValueError as error:  # the others are still rows
                print(f"bnc_repro: {error}", file=sys.stderr)
                continue
            value = row["metrics"].get(row["headline"])
            print(f"{row['experiment']:16} {row['title']:40} seed {row['seed']} {row['status']:9} {value} {path}")


def notebook_command(options: argparse.Namespace) -> None:
    """Execute a notebook as a stage does."""
    project_root()  # without a clone no extra helps
    from .pages import notebook

    print(notebook.execute(options.name, options.profile))


def report_command(options: argparse.Namespace) -> None:
    """Make every page of the report anew from published rows; nothing is trained."""
    project_root()  # without a clone no extra helps
    from .pages.report import report

    print("\n".join(map(str, report(options.profile))))


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
    if not same_digits.prove(options.profile or [], options.seeds, say, options.source, options.through):
        sys.exit("bnc_repro: not everything could be joined (see above); rows that differ are to be made anew")


def environment_command(options: argparse.Namespace) -> None:
    """The variables under which the runs of a profile compute, KEY=VALUE a line: env $(...) jupyter lab."""
    print("\n".join(f"{key}={value}" for key, value in pinned.environment(options.profile).items()))


def publish_command(options: argparse.Namespace) -> None:
    """Copy current rows from runs/ to results/; write the README's verdict and the notebooks' outputs anew."""
    project_root()  # without a clone no extra helps
    from .pages import publish
    from .training.progress import show

    show()
    print("\n".join(map(str, publish.publish(options.remove))))


def stale_command(options: argparse.Namespace) -> None:
    """Name each block, figure, cell and card whose published rows have changed since it was made."""
    root = project_root()
    from .pages.stale import stale

    lines = stale(root)
    print("\n".join(lines) or "nothing is stale: every page says what its rows say")
    if lines:
        sys.exit(1)
