"""Notebooks as stages: what they depend on, their execution through papermill, their HTML.

papermill only warns of a parameter that a notebook does not declare; here it stops the stage with its name.
"""

import ast
import json
import sys
from pathlib import Path

from ..names import known
from ..recipe.clone import project_root
from ..recipe.profiles import experiment_section
from ..run import pinned
from . import sources

STAGES = {
    "00-binarizing-by-classification": None,
    "01-imagenet-resnet": "imagenet_resnet",
    "02-coco-pose": "coco_pose",
    "03-linear-vs-soft": "linear_vs_soft",
    "04-verdict": None,
    "05-your-own-model": None,  # no stage of `dvc repro`: it reports nothing
    "06-the-answer-on-cifar10": None,
    "07-what-binary-buys": None,
}
REPORTED = tuple(name for name in STAGES if name != "05-your-own-model")
# Tags of cells: one that trains what the clone's runs lack, and says so; one that needs a trained network.
TRAINS, CHECKPOINT = "trains", "checkpoint"
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(name: str, profile: str) -> Path:
    """Run notebooks/<name>.ipynb with the profile's parameters; the executed copy and its HTML stand in
    runs/<profile>/notebooks/. Raises ValueError for an unknown name or an undeclared parameter."""
    known("notebook", name, STAGES)
    pinned.pin(profile)  # the kernel's environment too
    source = project_root() / "notebooks" / f"{name}.ipynb"
    target = project_root() / "runs" / profile / "notebooks" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    run_cells(source, target, name, profile)
    if STAGES[name]:
        from ..evidence.tables import save_metrics
        from ..run.execute import run_arms

        save_metrics(run_arms(STAGES[name], profile, **experiment_section(STAGES[name], profile)), profile)
    return write_html(target)


def run_cells(source: Path, target: Path, name: str, profile: str) -> None:
    """Execute `source`, the notebook `name` or a copy of it, into `target`. Raises ValueError for a parameter that it
    does not declare."""
    import papermill

    values = parameters(name, profile)
    declared = declared_parameters(source)
    unknown = sorted(set(values) - set(declared))
    if unknown:
        raise ValueError(
            f"{source.name} does not declare the parameter {', '.join(unknown)}; declared: {', '.join(declared)}. "
            "Add it to the parameters cell or take it out of params.yaml"
        )
    cells = enumerate("".join(cell["source"]) for cell in code_cells(source))
    read = sources.read_by(((str(number), text) for number, text in cells), project_root())
    papermill.execute_notebook(
        source,
        target,
        values,
        cwd=project_root(),
        kernel_name="python3",
        log_output=True,
        stdout_file=sys.stdout,
        stderr_file=sys.stderr,
        autosave_cell_every=60,
        progress_bar=False,
    )
    _still(target, read)


def _still(target: Path, read: dict[str, str]) -> None:
    """Note in an executed notebook which rows it `read`, and put a sentence in the place of its widgets: without the
    kernel that made them they are an error in JupyterLab, and a page would fetch their code from elsewhere."""
    import nbformat

    executed = nbformat.read(target, 4)
    executed.metadata.pop("widgets", None)
    executed.metadata[sources.KEY] = read
    for cell in executed.cells:
        for output in cell.get("outputs", ()):
            if output.get("data", {}).pop(WIDGET, None):
                output.data["text/plain"] = "Run this cell in JupyterLab: its sliders need a kernel."
    nbformat.write(executed, target)


def write_html(target: Path) -> Path:
    """The page of an executed notebook, beside it."""
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(embed_images=True).from_filename(str(target))
    target.with_suffix(".html").write_text(page, encoding="utf-8")
    return target.with_suffix(".html")


def parameters(name: str, profile: str) -> dict:
    """What papermill injects: the profile's name, and for an experiment its seeds, recipe and arms."""
    section = experiment_section(STAGES[name], profile) if STAGES[name] else {}
    return {"profile": profile, **section}


def declared_parameters(source: Path) -> dict:
    """Names and literal values of a notebook's cell tagged `parameters`."""
    for cell in code_cells(source):
        if "parameters" in cell["metadata"].get("tags", []):
            statements = ast.parse("".join(cell["source"])).body
            assigned = [node for node in statements if isinstance(node, ast.Assign)]
            return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in assigned}
    raise ValueError(f"{source} has no cell tagged `parameters`; add one with plain literals")


def code(name: str) -> list[str]:
    """The code cells of notebooks/<name>.ipynb, as text."""
    return ["".join(cell["source"]) for cell in code_cells(project_root() / "notebooks" / f"{name}.ipynb")]


def code_cells(source: Path) -> list[dict]:
    """The code cells of a notebook's file, as JSON holds them: source in lines."""
    return [cell for cell in json.loads(source.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
