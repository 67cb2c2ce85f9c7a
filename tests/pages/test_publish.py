"""What the committed notebooks keep of the executed ones."""

import ast
import os
from pathlib import Path

import nbformat
import pytest

from bnc_repro.pages import notebook, report, sources
from bnc_repro.pages.publish import keep_outputs
from bnc_repro.recipe.profiles import recipe_of
from bnc_repro.run.execute import run

ROOT = Path(__file__).parents[2]


def executed_with(source, folder, *tags):
    """An executed notebook of one cell that printed, and the committed one, without outputs."""
    printed = nbformat.v4.new_output("stream", name="stdout", text="linear_vs_soft resnet20, seed 0: runs/a\n")
    shown = nbformat.v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=7)
    cell = nbformat.v4.new_code_cell(source, id="cell", outputs=[printed, shown], execution_count=7)
    cell.metadata["tags"] = list(tags)
    paths = folder / "executed.ipynb", folder / "committed.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), paths[0])
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="cell")]), paths[1])
    return paths


def test_a_cell_that_trains_keeps_its_result_without_progress(tmp_path):
    """Its path and seconds differ from clone to clone, and are there only where something had to be trained."""
    kept = nbformat.read(keep_outputs(*executed_with("rows", tmp_path, "trains")), 4).cells[0]
    assert [output.output_type for output in kept.outputs] == ["execute_result"]
    assert kept.execution_count == kept.outputs[0].execution_count == 1


def test_what_other_cells_print_is_kept(tmp_path):
    kept = nbformat.read(keep_outputs(*executed_with("print(rows)\n1", tmp_path)), 4).cells[0]
    assert [output.output_type for output in kept.outputs] == ["stream", "execute_result"]


def test_rows_newer_than_the_page_leave_it_stale(tmp_path):
    """Outputs are signed with the rows that were read when they were made, whatever stands there now."""
    executed, committed = executed_with("from bnc_repro.evidence import speed\nspeed.published()", tmp_path)
    for read in ({"results/packed.csv": "0123456789abcdef"}, {}):
        page = nbformat.read(executed, 4)
        page.metadata["rows"] = read
        nbformat.write(page, executed)
        signed = nbformat.read(keep_outputs(executed, committed), 4).cells[0].metadata["rows"]
        assert signed == (read or {"results/packed.csv": sources.digest(ROOT / "results" / "packed.csv")})


def test_outputs_of_another_text_are_refused(tmp_path):
    executed, committed = executed_with("1", tmp_path)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("2", id="cell")]), committed)
    with pytest.raises(ValueError, match=r"committed.ipynb, cell cell: changed since it was run"):
        keep_outputs(executed, committed)


@pytest.mark.parametrize("name", notebook.STAGES)
def test_cells_that_train_are_tagged(name):
    """What calls a run is tagged so; what stands on a checkpoint is too, and nothing after it that the report runs
    needs its variables."""
    cells = [cell for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells if cell.cell_type == "code"]
    tags = {cell.id: cell.metadata.get("tags", []) for cell in cells}
    for cell in cells:
        calls = any(call in cell.source for call in ("run_arms(", "gradients.study("))
        assert calls == (notebook.TRAINS in tags[cell.id]), cell.source
        assert ("gradients.study(" in cell.source) <= (notebook.CHECKPOINT in tags[cell.id])
    left_out = {name for cell in cells if notebook.CHECKPOINT in tags[cell.id] for name in assigned(cell.source)}
    for cell in cells:
        if notebook.CHECKPOINT not in tags[cell.id]:
            used = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
            assert not used & left_out - assigned(cell.source), cell.source


def assigned(source):
    """Names that a cell's statements assign."""
    targets = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return {node.id for node in targets if isinstance(node.ctx, ast.Store)}


EXECUTED = ("01-imagenet-resnet", "03-linear-vs-soft")  # without and with cells that need a checkpoint


@pytest.mark.slow
def test_the_report_trains_nothing(tmp_path, monkeypatch):
    """A page from published rows alone says so, and a row that is not there is an error, not a training. The cells of
    the other pages run under the same setting where they are compared with their outputs (test_pipeline)."""
    monkeypatch.setattr(notebook, "REPORTED", EXECUTED)
    before = set((ROOT / "runs").rglob("row.json"))
    pages = report.report()
    assert [page.stem for page in pages] == list(EXECUTED)
    for page in pages:
        assert "nothing was trained on this machine" in page.read_text()
        committed, executed = (
            {cell.id: cell for cell in nbformat.read(file, 4).cells}
            for file in (ROOT / "notebooks" / f"{page.stem}.ipynb", page.with_suffix(".ipynb"))
        )
        read = nbformat.read(page.with_suffix(".ipynb"), 4).metadata["rows"]
        assert ("results/presets/linear_vs_soft" in read) == (page.stem == "03-linear-vs-soft")
        for name, cell in committed.items():
            assert executed[name].source == cell.source
            if notebook.CHECKPOINT in cell.metadata.get("tags", []):
                assert executed[name].outputs == cell.outputs
    assert set((ROOT / "runs").rglob("row.json")) == before
    monkeypatch.setenv("BNC_REPRO_REUSE", "only")
    with pytest.raises(ValueError, match="nothing is trained here"):
        run(recipe_of("linear_vs_soft", "sample", "ste", seed=4711), tmp_path)


@pytest.mark.parametrize("name", [name for name in notebook.REPORTED if name not in EXECUTED])
def test_a_page_of_the_report_says_that_nothing_was_trained(name, monkeypatch):
    """Of those that are not executed here: the page of the outputs that are committed."""
    monkeypatch.setenv("BNC_REPRO_REUSE", "")  # which the page sets
    monkeypatch.setattr(notebook, "run_cells", lambda source, target, *_: None)
    page = report.write_page(name, "sample")
    assert "nothing was trained on this machine" in page.read_text()
    assert os.environ["BNC_REPRO_REUSE"] == "only"


def test_every_stage_but_the_how_to_is_reported():
    assert [name for name in notebook.STAGES if name not in notebook.REPORTED] == ["05-your-own-model"]
