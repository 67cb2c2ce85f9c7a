"""What the committed notebooks keep of the executed ones."""

import nbformat
import pytest

from bnc_repro.pages.publish import TRAINING, keep_outputs


def executed_with(source, folder):
    """An executed notebook of one cell that printed, and the committed one, without outputs."""
    printed = nbformat.v4.new_output("stream", name="stdout", text="linear_vs_soft resnet20, seed 0: runs/a\n")
    shown = nbformat.v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=7)
    cell = nbformat.v4.new_code_cell(source, id="cell", outputs=[printed, shown], execution_count=7)
    paths = folder / "executed.ipynb", folder / "committed.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), paths[0])
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="cell")]), paths[1])
    return paths


@pytest.mark.parametrize("call", TRAINING)
def test_a_cell_that_trains_keeps_its_result_without_progress(call, tmp_path):
    """Its path and seconds differ from clone to clone, and are there only where something had to be trained."""
    kept = nbformat.read(keep_outputs(*executed_with(f"found = {call}rows)\nfound", tmp_path)), 4).cells[0]
    assert [output.output_type for output in kept.outputs] == ["execute_result"]
    assert kept.execution_count == kept.outputs[0].execution_count == 1


def test_what_other_cells_print_is_kept(tmp_path):
    kept = nbformat.read(keep_outputs(*executed_with("print(rows)\n1", tmp_path)), 4).cells[0]
    assert [output.output_type for output in kept.outputs] == ["stream", "execute_result"]


def test_outputs_of_another_text_are_refused(tmp_path):
    executed, committed = executed_with("1", tmp_path)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("2", id="cell")]), committed)
    with pytest.raises(ValueError, match=r"committed.ipynb, cell cell: changed since it was run"):
        keep_outputs(executed, committed)
