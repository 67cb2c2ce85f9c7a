"""Notebooks as stages: what they depend on, their execution through papermill, their HTML.

papermill only warns of a parameter that a notebook does not declare; here it stops the stage with its name.
"""

import ast
import json
import sys
from pathlib import Path

from . import config

STAGES = {
    "00-binarizing-by-classification": None,
    "01-imagenet-resnet": "imagenet_resnet",
    "02-coco-pose": "coco_pose",
    "03-linear-vs-soft": "linear_vs_soft",
    "04-verdict": None,
    "05-your-own-model": None,  # no stage of `dvc repro`: it reports nothing
}


def execute(name: str, profile: str) -> Path:
    """Run notebooks/<name>.ipynb with the profile's parameters; the executed copy and its HTML stand in
    runs/<profile>/notebooks/. Raises ValueError for an unknown name or an undeclared parameter."""
    import papermill
    from nbconvert import HTMLExporter

    config.known("notebook", name, STAGES)
    source = config.project_root() / "notebooks" / f"{name}.ipynb"
    given = parameters(name, profile)
    declared = declared_parameters(source)
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ValueError(
            f"{source.name} does not declare the parameter {', '.join(unknown)}; declared: {', '.join(declared)}. "
            "Add it to the parameters cell or take it out of params.yaml"
        )
    target = config.project_root() / "runs" / profile / "notebooks" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        source, target, given, cwd=config.project_root(), kernel_name="python3", log_output=True,
        stdout_file=sys.stdout, stderr_file=sys.stderr, autosave_cell_every=60, progress_bar=False,
    )  # fmt: skip
    page, _ = HTMLExporter(embed_images=True).from_filename(str(target))
    target.with_suffix(".html").write_text(page)
    if STAGES[name]:
        from . import report, run

        section = config.experiment_section(STAGES[name], profile)
        report.save_metrics(run.run_arms(STAGES[name], profile, **section), profile)
    return target.with_suffix(".html")


def parameters(name: str, profile: str) -> dict:
    """What papermill injects: the profile's name, and for an experiment its seeds, recipe and arms."""
    section = config.experiment_section(STAGES[name], profile) if STAGES[name] else {}
    return {"profile": profile, **section}


def declared_parameters(source: Path) -> dict:
    """Names and literal values of a notebook's cell tagged `parameters`."""
    for cell in _code_cells(source):
        if "parameters" in cell["metadata"].get("tags", []):
            statements = ast.parse("".join(cell["source"])).body
            return {node.targets[0].id: ast.literal_eval(node.value) for node in statements}
    raise ValueError(f"{source} has no cell tagged `parameters`; add one with plain literals")


def code(name: str) -> list[str]:
    """The code cells of notebooks/<name>.ipynb, as text."""
    return ["".join(cell["source"]) for cell in _code_cells(config.project_root() / "notebooks" / f"{name}.ipynb")]


def _code_cells(source: Path) -> list[dict]:
    return [cell for cell in json.loads(source.read_text())["cells"] if cell["cell_type"] == "code"]
