"""Tables of ours are read back only in the form they were written in."""

import pytest

from bnc_repro.training import strict_csv


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is empty or no CSV text"),
        (b"a,b\n1,\xff\n", "is empty or no CSV text"),
        (b'a,b\n"1,2\n', "is empty or no CSV text"),
        (b"a,c\n1,2\n", "has other columns than a, b"),
        (b"a,b,c\n1,2,3\n", "has other columns than a, b"),
        (b"a,b\n1,2\n3\n", "line 3, has 1 values, not 2"),
        (b"a,b\n1,2,3\n", "line 2, has 3 values, not 2"),
    ],
)
def test_another_form_is_a_sentence(tmp_path, text, words):
    """It names the file, and ends in the remedy of whoever reads it."""
    path = tmp_path / "table.csv"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=rf"table\.csv.*{words}; take it from git again$"):
        strict_csv.read(path, ("a", "b"), "take it from git again")


def test_lines_are_text(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('a,b\n1,"x,y"\n')
    assert strict_csv.read(path, ("a", "b"), "") == [["1", "x,y"]]
