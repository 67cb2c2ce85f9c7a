"""A release: what it must agree on, what it consists of, and its tag. `make release`, or `make release TAG=1`.

Version and date stand in the changelog's newest entry; the package, CITATION.cff and .zenodo.json repeat them. In a
clean tree, wheel and sdist are built and checked, and one archive for Zenodo is written with the rows, the packed
models, the notebooks as HTML and SHA256SUMS. All of it lies in dist/. Nothing is uploaded.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
NEWEST = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", re.M)
# Of the tree as git has it; notebooks travel as HTML.
ARCHIVED = ("results", "params.yaml", "pipelines", "paper.csv", "README.md", "LOG.md", "CHANGELOG.md", "LICENSE")


def version_and_date(root: Path = ROOT) -> tuple[str, str]:
    """Version and date of the changelog's newest entry. Raises ValueError where there is none, or changes above it."""
    text = (root / "CHANGELOG.md").read_text()
    newest = NEWEST.search(text)
    if newest is None:
        raise ValueError("CHANGELOG.md has no entry of the form `## [1.2.3] - 2001-02-03`; write one")
    if re.search(r"^- ", text[: newest.start()], re.M):
        raise ValueError(f"CHANGELOG.md has changes above {newest[1]}; give them a version and a date")
    return newest[1], newest[2]


def disagreements(root: Path = ROOT) -> list[str]:
    """A sentence for each file that says another version, date, title, licence or paper than the others."""
    version, date = version_and_date(root)
    package = (root / "src" / "bnc_repro" / "__init__.py").read_text()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    zenodo = json.loads((root / ".zenodo.json").read_text())
    paper = citation["preferred-citation"]
    said = re.search(r'^__version__ = "(.*)"$', package, re.M)
    compared = [
        ("src/bnc_repro/__init__.py", "version", said and said[1], version),
        ("CITATION.cff", "version", str(citation.get("version")), version),
        ("CITATION.cff", "date-released", str(citation.get("date-released")), date),
        ("CITATION.cff", "license", citation.get("license"), project["license"]),
        ("CITATION.cff", "authors", [author["name"] for author in citation["authors"]], _names(project["authors"])),
        (".zenodo.json", "version", zenodo.get("version"), version),
        (".zenodo.json", "publication_date", zenodo.get("publication_date"), date),
        (".zenodo.json", "license", zenodo.get("license"), project["license"]),
        (".zenodo.json", "title", zenodo.get("title"), citation["title"]),
        (".zenodo.json", "keywords", zenodo.get("keywords"), project["keywords"]),
        (".zenodo.json", "creators", _names(zenodo["creators"]), _names(project["authors"])),
        (".zenodo.json", "the paper's DOI", zenodo["related_identifiers"][0]["identifier"], paper["doi"]),
    ]
    return [f"{file}: {key} is {value!r}, not {right!r}" for file, key, value, right in compared if value != right]


def _names(people: list[dict]) -> list[str]:
    return [person["name"] for person in people]


def changes(root: Path = ROOT) -> list[str]:
    """Files that differ from the commit, or that git does not know."""
    return _git(root, "status", "--porcelain").splitlines()


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def build(folder: Path, root: Path = ROOT) -> tuple[Path, Path]:
    """Wheel and sdist of `root` in `folder`, by the build backend of this environment: nothing is fetched."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder.resolve())]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def check(wheel: Path, sdist: Path, version: str, root: Path = ROOT) -> None:
    """Raise ValueError unless the wheel holds the package's files and no other, its metadata are those of the project,
    the sdist builds the same wheel, and the wheel is imported where it is installed alone."""
    package = root / "src"
    files = {str(path.relative_to(package)) for path in (package / "bnc_repro").rglob("*.py")} | {"bnc_repro/py.typed"}
    info = f"bnc_repro-{version}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.startswith(f"{info}/")}
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    if held != files:
        raise ValueError(f"{wheel.name} holds other files than the package: {sorted(held ^ files)}")
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = {
        "Version": version,
        "Summary": project["description"],
        "License-Expression": project["license"],
        "Requires-Python": project["requires-python"],
        "Description-Content-Type": "text/markdown",
    }
    wrong = [f"{key} is {metadata[key]!r}" for key, value in wanted.items() if metadata[key] != value]
    extras = set(project["optional-dependencies"]) ^ set(metadata.get_all("Provides-Extra", []))
    if wrong or extras or not metadata.get_payload():
        raise ValueError(f"{wheel.name}: {', '.join([*wrong, *sorted(extras)]) or 'no description'}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        again, _ = build(folder / "again", folder / f"bnc_repro-{version}")
        with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
            if {name: one.read(name) for name in one.namelist()} != {
                name: other.read(name) for name in other.namelist()
            }:
                raise ValueError(f"{sdist.name} builds another wheel than {wheel.name}")
        installed = _version_where_installed(wheel, folder)
    if installed != version:
        raise ValueError(f"{wheel.name}, installed alone, says its version is {installed}")


def _version_where_installed(wheel: Path, folder: Path) -> str:
    """What the wheel says its version is in an environment that holds nothing else."""
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    python = next(environment.glob("[bS]*/python*"))
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel.resolve()]
    subprocess.run(pip, check=True, capture_output=True, cwd=folder)
    words = [python, "-I", "-c", "import bnc_repro; print(bnc_repro.__version__)"]
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=folder).stdout.strip()


def archive(file: Path, built: Iterable[Path], root: Path = ROOT) -> Path:
    """One file for Zenodo: rows and models, the notebooks' committed outputs as HTML, wheel and sdist, the citation
    with its commit, and SHA256SUMS over them. The same commit gives the same archive."""
    from nbconvert import HTMLExporter

    commit = _git(root, "rev-parse", "HEAD")
    names = _git(root, "ls-files", "-z", "--", *ARCHIVED).split("\0")
    contents = {name: (root / name).read_bytes() for name in names if name}
    contents |= {path.name: path.read_bytes() for path in built}
    contents["CITATION.cff"] = (root / "CITATION.cff").read_bytes() + f"commit: {commit}\n".encode()
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        page, _ = HTMLExporter(embed_images=True).from_filename(str(notebook))
        contents[f"notebooks/{notebook.stem}.html"] = page.encode()
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(contents.items())]
    contents["SHA256SUMS"] = "".join(sums).encode()
    year, month, day = map(int, version_and_date(root)[1].split("-"))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in sorted(contents.items()):
            entry = zipfile.ZipInfo(f"{file.stem}/{name}", (year, month, day, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            target.writestr(entry, content)
    return file


def release(tag: bool, root: Path = ROOT) -> list[Path]:
    """Check, build and archive; then tag, if asked to. Raises ValueError with what is to be mended."""
    version, _ = version_and_date(root)
    wrong = disagreements(root)
    if wrong:
        raise ValueError("\n".join(wrong))
    if changes(root):
        raise ValueError("the tree is not clean; commit these files or take them away:\n" + "\n".join(changes(root)))
    if tag and _git(root, "tag", "--list", f"v{version}"):
        raise ValueError(f"v{version} is tagged already; a change needs another version")
    folder = root / "dist"
    folder.mkdir(exist_ok=True)
    for older in folder.iterdir():
        older.unlink()
    wheel, sdist = build(folder, root)
    check(wheel, sdist, version, root)
    written = [wheel, sdist, archive(folder / f"bnc_repro-{version}-archive.zip", (wheel, sdist), root)]
    if tag:
        _git(root, "tag", "-a", f"v{version}", "-m", f"bnc_repro {version}")
    return written


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tag", action="store_true", help="also set the tag v<version>")
    options = parser.parse_args()
    try:
        for file in release(options.tag):
            print(f"{file.relative_to(ROOT)}  {file.stat().st_size / 1e6:.1f} MB")
    except ValueError as error:
        sys.exit(f"release: {error}")


if __name__ == "__main__":
    main()
