"""Code without its words: what is the same code, and what is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from bnc_repro.run.source import meaning

FILES = sorted(Path(sys.modules["bnc_repro"].__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "def f(a, b):\n    '''x'''\n    # c\n    return a + b\n",
            "def f(\n  a,\n  b,\n):\n  return (\n a\n + b\n )\n",
        ),
        ("x = 'a' 'b'\n", 'x = "ab"\n'),
        ("x = f'{a}' 'b'\n", 'x = f"{a}b"\n'),
        ("x = f'a\"b{c}'\n", 'x = f"a\\"b{c}"\n'),
        ("x = f(1,)\n", "x = f(1)\n"),
        ("x = [1,]\n", "x = [1]\n"),
        ("x = 1, 2\n", "x = (1, 2)\n"),
        ("from a import (b, c,)\n", "from a import b, c\n"),
        ("with (a as b, c as d):\n  x\n", "with a as b, c as d:\n    x\n"),
        ("if (a or b):\n  c\n", "if a or b:\n    c\n"),
        ("a; b\n", "a\nb\n"),
        ("class A:\n  'doc'\n  x = 1\n", "class A:\n    x = 1\n"),
        ('def f():\n    "doc" "more"\n    return 1\n', "def f():\n    return 1\n"),
        ('"""m"""\n\nimport x\n', "import x\n"),
        ("x = 0XFF + .5\n", "x = 0xff + 0.5\n"),
        ("x = a \\\n  + b\n", "x = a + b\n"),
        ("def ä():\n  'Größe'; return 'ä'\n", "def ä():\n    return 'ä'\n"),
    ],
)
def test_words_and_layout_are_no_part_of_it(one, other):
    """Comments, docstrings, line breaks, quotes, idle commas and parentheses."""
    assert meaning(one) == meaning(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = a + b\n", "x = a - b\n"),
        ("x = (1,)\n", "x = (1)\n"),
        ("x = a[1,]\n", "x = a[1]\n"),
        ("x = (a + b) * c\n", "x = a + b * c\n"),
        ("x = not (a or b)\n", "x = not a or b\n"),
        ("x = (a, b), c\n", "x = a, b, c\n"),
        ("f(*(a, b))\n", "f(*a, b)\n"),
        ("f((a, b))\n", "f(a, b)\n"),
        ("x = 'a', 'b'\n", "x = 'a' 'b'\n"),
        ("x = 'a{b}'\n", "x = f'a{b}'\n"),
        ("x = f'{a}'\n", "x = f'{b}'\n"),
        ("x = 'A'\n", "x = 'a'\n"),
        ("x = b'a'\n", "x = 'a'\n"),
        ("x = 1\n", "x = 1.0\n"),
        ("x = 1e-12\n", "x = 1e-13\n"),
        ("if a:\n  b\n  c\n", "if a:\n  b\nc\n"),
        ("def f():\n    x = 'word'\n", "def f():\n    x = 'ward'\n"),
        ("x = '# no comment'\n", "x = '# another'\n"),
    ],
)
def test_what_runs_is(one, other):
    """Another operator, number, string, grouping or block is other code."""
    assert meaning(one) != meaning(other)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_formatter_changes_nothing(file):
    """The package's own files, through ruff's formatter with shorter lines."""
    words = [sys.executable, "-m", "ruff", "format", "--line-length", "90", "--isolated", "-"]
    text = file.read_text()
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=True)
    assert meaning(done.stdout) == meaning(text)


def test_what_is_no_python_is_refused():
    with pytest.raises(SyntaxError):
        meaning("def f(:\n")
