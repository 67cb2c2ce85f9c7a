"""A release: what disagrees is named, and what is built is what the project says."""

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import release

ROOT = Path(__file__).resolve().parent.parent
SAYING = ("CHANGELOG.md", "CITATION.cff", ".zenodo.json", "pyproject.toml", "src/bnc_repro/__init__.py")


@pytest.fixture
def copy(tmp_path):
    """The files that say the version, elsewhere."""
    for name in SAYING:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_file_says_the_same():
    assert release.disagreements() == []


@pytest.mark.parametrize(
    ("name", "right", "wrong", "sentence"),
    [
        ("src/bnc_repro/__init__.py", "__version__ = ", "__version__ = '' or ", "__init__.py: version"),
        ("CITATION.cff", "date-released: 2", "date-released: 1", "CITATION.cff: date-released"),
        ("CITATION.cff", "\nversion: ", "\nversion: 9", "CITATION.cff: version"),
        (".zenodo.json", '"version": "', '"version": "9', ".zenodo.json: version"),
        (".zenodo.json", '"publication_date": "2', '"publication_date": "1', ".zenodo.json: publication_date"),
        (".zenodo.json", "10.1109", "10.1108", ".zenodo.json: the paper's DOI"),
    ],
)
def test_a_file_that_says_another_is_named(copy, name, right, wrong, sentence):
    text = (copy / name).read_text()
    assert right in text
    (copy / name).write_text(text.replace(right, wrong, 1))
    (told,) = release.disagreements(copy)
    assert sentence in told


def test_changes_without_a_version_stop_a_release(copy):
    text = (copy / "CHANGELOG.md").read_text()
    (copy / "CHANGELOG.md").write_text(text.replace("## [", "## [Unreleased]\n\n- More.\n\n## [", 1))
    with pytest.raises(ValueError, match="changes above"):
        release.release(tag=False, root=copy)


def git(folder, *words):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.mark.slow
def test_a_release_from_a_clean_tree(copy, monkeypatch):
    """A dirty tree is refused; a clean one gives wheel, sdist and an archive whose sums hold; nothing tags unasked."""
    for name in ("LICENSE", "README.md", "paper.csv"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src", copy / "src", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "results" / "sample", copy / "results" / "sample")
    (copy / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "05-your-own-model.ipynb", copy / "notebooks")
    (copy / ".gitignore").write_text("dist/\n__pycache__/\n")
    git(copy, "init", "--quiet")
    with pytest.raises(ValueError, match="not clean"):
        release.release(tag=False, root=copy)
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message", "All")
    wheel, sdist, archive = release.release(tag=False, root=copy)
    assert {path.suffix for path in (wheel, sdist)} == {".whl", ".gz"}
    assert not subprocess.check_output(["git", "-C", str(copy), "tag"])
    with zipfile.ZipFile(archive) as held:
        contents = {name.partition("/")[2]: held.read(name) for name in held.namelist()}
    sums = dict(reversed(line.split("  ")) for line in contents.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    commit = subprocess.check_output(["git", "-C", str(copy), "rev-parse", "HEAD"], text=True)
    assert f"commit: {commit}" in contents["CITATION.cff"].decode()
    assert b"<html" in contents["notebooks/05-your-own-model.html"]
    rows = [name for name in contents if name.startswith("results/sample") and name.endswith(".json")]
    assert json.loads(contents[rows[0]])["profile"] == "sample"
    first = archive.read_bytes()
    assert release.archive(archive, (wheel, sdist), copy).read_bytes() == first


@pytest.mark.slow
def test_a_wheel_with_other_files_is_refused(tmp_path):
    wheel, sdist = release.build(tmp_path)
    with zipfile.ZipFile(wheel, "a") as held:
        held.writestr("tests/extra.py", "")
    with pytest.raises(ValueError, match=r"tests/extra\.py"):
        release.check(wheel, sdist, release.version_and_date()[0])
