"""Runs the chapters and the tests with other versions than the pinned ones, and records what came of it.

    colab    every chapter as on Colab
    card     the same with a pretended graphics card
    copies   every student copy as on Colab
    lowest   unit tests and chapters with the lowest versions that pyproject.toml admits
    newest   unit tests and chapters with the newest versions there are
    sphinx   the book with the newest Sphinx, through the conf.py that Jupyter Book writes: the way out of its 1.x line

Each has a virtual environment of its own in the folder SAMIL_ENVIRONMENTS (~/.cache/samil-lite unless it is set), of
several GB where PyTorch comes with CUDA. What is tried is a clone of this repository, so only what is committed, and
editing may go on. A run that cannot be made counts as failed, and the others follow. The outcome goes into
book/results/environments.json.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).parents[1]
HOME = Path(os.environ.get("SAMIL_ENVIRONMENTS", Path.home() / ".cache" / "samil-lite")).absolute()
RECORD = ROOT / "book" / "results" / "environments.json"
COLAB = ROOT / "tools" / "colab" / "versions.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USED = ("histology", "features", "retina", "cluster")  # the extras that tests and chapters need
TOOLS = ("book", "test", "backbones")  # the extras whose bounds `lowest` does not try; torchvision fits one torch each
RUNNERS = ("ipykernel", "nbclient", "nbformat", "nbval", "pytest", "pytest-xdist")
SHOWN = ("torch", "numpy", "pandas", "scikit-learn", "matplotlib", "ipython")
SPHINX = ("sphinx", "myst-nb", "myst-parser", "sphinx-book-theme", "pydata-sphinx-theme")
JUPYTER_BOOK = (  # the other extensions that it loads
    *("sphinx-comments", "sphinx-copybutton", "sphinx_design", "sphinx-external-toc", "sphinx-jupyterbook-latex"),
    *("sphinx-multitoc-numbering", "sphinx-thebe", "sphinx-togglebutton", "sphinxcontrib-bibtex"),
)
PYTHONS = {"colab": "python3.13", "card": "python3.13", "copies": "python3.13"}
PYTHONS |= {"lowest": "python3.11", "newest": "python3.14", "sphinx": sys.executable}


def requirements(*extras: str) -> list[str]:
    """What the package needs to run, with the extras."""
    optional = PROJECT["optional-dependencies"]
    return sorted({*PROJECT["dependencies"], *(x for extra in extras for x in optional[extra])})


def environment(name: str, python: str, packages: Sequence[str], *options: str) -> Path:
    """The Python of an environment with these packages; made unless it is there with the same ones."""
    folder = HOME / name
    files = [Path(option).read_text() for option in options if Path(option).is_file()]
    wanted = "\n".join([python, *packages, *files])
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *options, *packages], check=True)
        stamp.write_text(wanted)
    return folder / "bin" / "python"


def installed(python: Path) -> dict[str, str]:
    """Names and versions of an environment's packages."""
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    return {package["name"].lower(): package["version"] for package in json.loads(listed.stdout)}


def run_pytest(python: Path, folder: Path, variables: dict[str, str], *arguments: str | Path) -> dict[str, str]:
    """Runs pytest in a folder; returns what became of each test: "" if it passed, else the report."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        workers = ["-n", str(os.cpu_count()), "--dist", "loadscope"]
        options = ["-q", "--tb=short", *workers, f"--junitxml={report}"]
        command: list[str | Path] = [python, "-m", "pytest", *options, *arguments]
        settings = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "MPLCONFIGDIR": place}
        # Without the usual PATH a cell's "!" would find the commands of another environment.
        paths = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(command, cwd=folder, env={**os.environ, **paths, **settings, **variables}, check=False)
        found = {}
        if not report.exists():
            return {"pytest": "ended without a report"}
        for case in ElementTree.parse(report).iter("testcase"):
            bad = [x.text or x.get("message") or "failed" for x in case if x.tag in ("failure", "error")]
            if not any(x.tag == "skipped" for x in case):
                found[f"{case.get('classname')}::{case.get('name')}"] = "\n".join(bad)
    return found


def run_notebooks(python: Path, folder: Path, variables: dict[str, str], lax: bool = False) -> dict[str, str]:
    """Runs all notebooks under a folder with nbval; if `lax`, without a look at their outputs."""
    notebooks = sorted(folder.rglob("[0-9]*.ipynb"))
    kind = "--nbval-lax" if lax else "--nbval"
    options = ["-c", os.devnull, f"--rootdir={folder}", "-p", "no:cacheprovider"]
    options += [kind, "--nbval-current-env", "--nbval-cell-timeout=300"]
    return run_pytest(python, folder, variables, *options, *notebooks)


def outcome(found: dict[str, str]) -> dict[str, Any]:
    """The numbers for the record; failures are printed."""
    failed = {name: text for name, text in found.items() if text}
    for name, text in failed.items():
        print(f"FAILED {name}\n{text[-1500:]}\n")
    return {"passed": len(found) - len(failed), "failed": sorted(failed)}


def like_colab(source: Path, folder: Path, notebooks: Sequence[Path]) -> dict[str, str]:
    """Copies each notebook alone into a folder of its own, and returns the variables that make it think it is on Colab.

    The set-up cell clones into a folder beside the notebook instead of /content, and from `source`.
    """
    for notebook in notebooks:
        place = folder / notebook.stem
        place.mkdir(parents=True)
        text = notebook.read_text(encoding="utf-8").replace("/content/", f"{place}/")
        text = text.replace('"execution_count": null', '"execution_count": 1')  # of student copies: nbval asks for one
        (place / notebook.name).write_text(text, encoding="utf-8")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    shutil.copy(source / "tools" / "colab" / "startup.py", startup)
    return {
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": str(source / "tools"),  # for the pretend device
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{source.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": PROJECT["urls"]["Repository"],
    }


def colab(name: str, source: Path, python: str) -> dict[str, Any]:
    """Chapters, with a pretended card if that is the name, or student copies, as on Colab."""
    wanted = [*requirements(*USED), *RUNNERS, "setuptools"]  # triton uses setuptools, which Colab has
    there = environment("colab", python, wanted, "--constraint", str(COLAB))
    chapters = sorted((source / "notebooks").glob("[0-9]*.ipynb"))
    copies = [path.parent / "student" / path.name for path in chapters]
    added = installed_by(chapters)
    subprocess.run([there, "-m", "pip", "uninstall", "--yes", "--quiet", *added], check=True)  # those of an earlier run
    before = installed(there)
    folder = source.parent / name
    variables = like_colab(source, folder, copies if name == "copies" else chapters)
    if name == "card":
        variables["PRETEND_DEVICE"] = str(HOME)
        # Compiled now, once: the kernels of the chapters would each do it, and not be ready in time.
        subprocess.run([there, "-c", "import pretend_device"], env={**os.environ, **variables}, check=True)
    found = run_notebooks(there, folder, variables, lax=name == "copies")
    if name == "copies":
        found = {cell: text for cell, text in found.items() if not is_unanswered(cell, text, copies)}
    after = installed(there)
    changed = sorted(package for package in before if before[package] != after.get(package))
    unannounced = sorted(after.keys() - before.keys() - added)
    kept = {"passed": len(before) - len(changed), "failed": changed + unannounced}
    return {"runs": {"notebooks": outcome(found), "packages unchanged": kept}, "versions": shown(there)}


def installed_by(notebooks: Sequence[Path]) -> set[str]:
    """The packages that cells say they install, `%pip install …`: these may come to Colab's, no other may change."""
    lines = "\n".join(cell.source for path in notebooks for cell in nbformat.read(path, as_version=4).cells)
    found = [words.split() for words in re.findall(r"^ *%pip install (.*)$", lines, re.MULTILINE)]
    return {word.lower() for words in found for word in words if not word.startswith("-")}


def is_unanswered(name: str, text: str, copies: Sequence[Path]) -> bool:
    """Whether a cell of a student copy stopped because an exercise has no answer yet, as it should."""
    stem, number = re.search(r"(\d\d_\w+)(?:\.ipynb)?.*Cell (\d+)$", name).groups()  # type: ignore[union-attr]
    path = next(path for path in copies if path.stem == stem)
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    cell = cells[int(number)]
    return bool(text) and ("NotImplementedError" in text or "sl.checks." in cell.source)


def versions(name: str, source: Path, python: str) -> dict[str, Any]:
    """Unit tests and chapters with the lowest or the newest versions."""
    wanted = {*requirements(*USED), *requirements("test")}
    if name == "lowest":  # of what the package itself uses; of tools that only tests use, any version will do
        own = requirements(*(extra for extra in PROJECT["optional-dependencies"] if extra not in TOOLS))
        wanted |= {text.replace(">=", "==") for text in own}
    there = environment(name, python, [*sorted(wanted), *RUNNERS])
    path = {"PYTHONPATH": str(source)}
    content = source.parent / "notebooks"
    shutil.copytree(source / "notebooks", content, ignore=shutil.ignore_patterns("student", "assignments"))
    chapters = run_notebooks(there, content, path)
    tests = run_pytest(there, source, path, "tests", "--ignore=tests/book", "-p", "no:cacheprovider")
    return {"runs": {"unit tests": outcome(tests), "chapters": outcome(chapters)}, "versions": shown(there)}


def sphinx(source: Path, python: str) -> dict[str, Any]:
    """The book with the newest Sphinx; all else is this environment's."""
    there = environment("sphinx", python, [*SPHINX, *JUPYTER_BOOK])
    where: list[str | Path] = [there, "-c", "import site; print(site.getsitepackages()[0])"]
    packages = Path(subprocess.check_output(where, text=True).strip())
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "beside.pth").write_text("\n".join(ours))  # looked into after the environment's own
    subprocess.run([Path(sys.executable).parent / "jupyter-book", "config", "sphinx", source], check=True)
    html = source / "_build" / "html"
    build: list[str | Path] = [there, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-b", "html", source, html]
    paths = [source, source / "book" / "_ext"]  # where the package and the book's own extensions are
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    said = subprocess.run(build, cwd=source, stderr=subprocess.PIPE, text=True, check=False, env=variables)
    warnings = [line for line in said.stderr.splitlines() if re.search("WARNING|ERROR|rror:", line)]
    print(said.stderr)
    if said.returncode and not warnings:
        warnings = ["the build failed"]
    pages = len(list(html.rglob("*.html")))
    return {"runs": {"pages": {"passed": pages, "failed": warnings}}, "versions": shown(there, *SPHINX)}


def shown(python: Path, *names: str) -> dict[str, str]:
    """The versions for the record."""
    there = installed(python)
    number = subprocess.check_output([python, "-c", "import platform; print(platform.python_version())"], text=True)
    return {"python": number.strip(), **{name: there[name] for name in names or SHOWN if name in there}}


def tried(name: str, python: str) -> dict[str, Any]:
    """What came of one environment, on a clone of this repository."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "samil-lite"
        try:
            subprocess.run(["git", "clone", "--quiet", ROOT, source], check=True)
            if name in ("colab", "card", "copies"):
                return colab(name, source, python)
            return sphinx(source, python) if name == "sphinx" else versions(name, source, python)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name}: {error}")
            return {"runs": {"environment": {"passed": 0, "failed": [type(error).__name__]}}, "versions": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=PYTHONS)
    usual = ", ".join(f"{python} for {name}" for name, python in PYTHONS.items() if name != "sphinx")
    parser.add_argument("--python", help=f"the Python to use, if not {usual}")
    args = parser.parse_args()
    lines, failed = [], False
    for name in args.names:
        found = tried(name, args.python or PYTHONS[name])
        known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        known[name] = {"date": date.today().isoformat(), **found}
        RECORD.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        for what, result in found["runs"].items():
            lines.append(f"{name}, {what}: {result['passed']} passed, {len(result['failed'])} failed")
            lines += [f"    {failure}" for failure in result["failed"]]
            failed |= bool(result["failed"])
    print("\n".join(lines))
    sys.exit(failed)


if __name__ == "__main__":
    main()
