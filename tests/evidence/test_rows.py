"""Rows that are damaged or of another form are named by their file, and stop nobody who lists the others."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnc_repro import __main__ as command
from bnc_repro import commands
from bnc_repro.run.ledger import FORM, read_row

ROOT = Path(__file__).resolve().parents[2]
TIMES = 5 if os.environ.get("BNC_THOROUGH") else 1
PUBLISHED = sorted((ROOT / "results" / "sample").glob("*/*.json"))
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})


@settings(
    max_examples=150 * TIMES,
    deadline=None,
    derandomize=TIMES == 1,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(PUBLISHED), st.data())
def test_damaged_rows_are_named(tmp_path, published, data):
    """A key of another type or missing, or text that is cut or changed: a sentence with the file's name, or a row."""
    text = published.read_text()
    if data.draw(st.booleans()):
        row = json.loads(text)
        for key in data.draw(st.lists(st.sampled_from([*FORM]), min_size=1, max_size=2)):
            row[key] = data.draw(values)
        text = json.dumps(row)
    else:
        position = data.draw(st.integers(0, len(text)))
        text = text[:position] + data.draw(st.text(max_size=3)) + text[position + data.draw(st.integers(0, 10**6)) :]
    path = tmp_path / "row.json"
    path.write_text(text, errors="replace")
    try:
        row = read_row(path)
    except ValueError as error:
        sentence = str(error)
    else:
        assert all(isinstance(row[key], kind) for key, kind in FORM.items())
        return
    assert sentence.startswith((f"{path} ", f"{path}:"))
    assert "\n" not in sentence


def test_published_rows_are_whole():
    """Every published row of every profile passes."""
    rows = [read_row(path) for path in sorted((ROOT / "results").glob("*/*/*.json"))]
    assert len(rows) > len(PUBLISHED) > 0


def test_list_names_a_bad_row_and_goes_on(tmp_path, monkeypatch, capsys):
    """An empty row.json is named on stderr; the whole one beside it is listed."""
    (tmp_path / "params.yaml").write_text("{}")
    (tmp_path / "pipelines").mkdir()
    for name, text in {"bad": "", "whole": PUBLISHED[0].read_text()}.items():
        folder = tmp_path / "runs" / "sample" / "x" / name
        folder.mkdir(parents=True)
        (folder / "row.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bnc_repro", "list", "rows"])
    command.main()
    said = capsys.readouterr()
    assert "whole" in said.out
    assert "bad/row.json cannot be read as a row (it is empty)" in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (PermissionError(13, "Permission denied", "/somewhere"), "bnc_repro: /somewhere: Permission denied; "),
        (OSError(36, "File name too long", "x"), "bnc_repro: x: File name too long; "),
    ],
)
def test_interrupts_and_files_end_in_one_line(error, code, monkeypatch, capsys):
    """Ctrl-C ends with 130 and what was kept, a file that may not be read with its name."""

    def fail(options) -> None:
        raise error

    monkeypatch.setattr(commands, "list_command", fail)
    monkeypatch.setattr(sys, "argv", ["bnc_repro", "list"])
    with pytest.raises(SystemExit) as end:
        command.main()
    if isinstance(code, int):
        assert end.value.code == code
        assert capsys.readouterr().err.count("\n") == 1
    else:
        assert str(end.value.code).startswith(code)


def test_two_rows_of_one_run_are_refused_by_their_names(tmp_path, monkeypatch):
    """As two branches leave them; which one is read would be a matter of their names."""
    from bnc_repro.evidence import rows

    folder = tmp_path / "results" / "sample" / "imagenet_resnet"
    folder.mkdir(parents=True)
    monkeypatch.setattr(rows, "project_root", lambda: tmp_path)
    originals = sorted((ROOT / "results" / "sample" / "imagenet_resnet").glob("*.json"))
    for path in originals:
        (folder / path.name).write_text(path.read_text())
    assert len(rows.published("sample", "imagenet_resnet")) == len(originals)
    other = json.loads(originals[0].read_text()) | {"fingerprint": "ffffffffffff"}
    (folder / "ffffffffffff.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=rf"two rows of .*{originals[0].stem}\.json and ffffffffffff\.json; keep"):
        rows.published("sample", "imagenet_resnet")
    (folder / "ffffffffffff.json").rename(folder / "zz copy.json")
    with pytest.raises(ValueError, match=r"zz copy\.json holds the row ffffffffffff: rows are called by"):
        rows.published("sample", "imagenet_resnet")
