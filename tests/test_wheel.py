"""Wheel and sdist, as somebody without the repository meets them: installed into an empty environment."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import samil_lite as sl

ROOT = Path(__file__).parents[1]


def build(source: Path, target: Path, kind: str) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """What the sdist unpacks to."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(build(ROOT, folder, "sdist")) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
    return unpacked


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    """Built from the sdist, as a package index's users may have to."""
    return build(source, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The Python of an environment with the wheel; the packages that it needs are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    (site,) = folder.rglob("site-packages")
    # A .pth file in this folder, that of an editable installation for one, is not looked into from there.
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python: Path, folder: Path, *arguments: str) -> str:
    settings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SAMIL_RESULTS")}
    settings |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, *arguments], cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_snippet_of_the_readme_runs(python, tmp_path):
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = "\n".join(line.removeprefix("  ") for line in snippet.splitlines())
    smaller = (
        code.replace("n_bags=200", "n_bags=20").replace("n_bags=500", "n_bags=20").replace("epochs=20", "epochs=1")
    )
    assert smaller.count("20") == 2  # it does train and test on fewer bags
    where = "print(sl.__file__)"
    printed = run(python, tmp_path, "-c", f"{smaller}\n{where}")
    assert "accuracy=" in printed
    assert str(python.parents[1]) in printed.splitlines()[-1]  # not the repository's


HERE = """
import torch, samil_lite as sl
from samil_lite.experiments import RESULTS, load_table
from samil_lite.experiments.__main__ import main
from samil_lite.experiments.crossval import stored_folds

print(len(load_table(RESULTS / "tables")))
main("run mnist --assumptions standard --models instance-max --n-bags 8 --seeds 1 "
     "--set pool=subset n_test=20 epochs=1 width=4".split())
bags = sl.Bags.from_list([torch.ones(1, 2)] * 8, [0, 1] * 4)
stored_folds({"data": "x", "n_folds": 2, "grouped": False, "repeat": 0}, bags, None)
"""


def test_published_records_can_be_read_and_new_ones_go_to_the_working_folder(python, tmp_path):
    site = next(python.parents[1].rglob("site-packages")) / "samil_lite"
    before = {path for path in site.rglob("*") if path.suffix != ".pyc"}
    assert "usage: python -m samil_lite.experiments" in run(python, tmp_path, "-m", "samil_lite.experiments", "--help")
    published = len(list((ROOT / "book" / "results" / "tables").glob("*.json")))
    assert run(python, tmp_path, "-c", HERE).startswith(f"{published}\n")
    written = sorted(path.relative_to(tmp_path).parent.as_posix() for path in tmp_path.rglob("*.json"))
    assert written == ["results/folds", "results/mnist"]
    assert {path for path in site.rglob("*") if path.suffix != ".pyc"} - before <= set(site.rglob("__pycache__"))


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (name,) = (name for name in names if name.endswith("/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    assert "samil_lite/py.typed" in names
    assert "samil_lite/data/mnist_subset.npz" in names
    assert {name.split("/")[0] for name in names} == {"samil_lite", f"samil_lite-{sl.__version__}.dist-info"}
    assert metadata["License-Expression"] == "MIT AND CC-BY-SA-3.0 AND CC-BY-4.0"
    assert len([name for name in names if "/licenses/" in name]) == 5
    assert metadata["Author"]
    pythons = {c.rpartition(" ")[2] for c in metadata.get_all("Classifier") if "Python :: 3." in c}
    assert pythons == {"3.11", "3.12", "3.13", "3.14"}
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", metadata.get_payload())
    assert pictures
    assert all(picture.startswith("https://") for picture in pictures)  # an index shows no others


def test_the_sdist_has_what_its_tests_need(source):
    listed = subprocess.run(
        ["git", "ls-files", "samil_lite", "tests", "tools", "book", "notebooks"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    missing = [name for name in listed if (ROOT / name).exists() and not (source / name).exists()]
    assert len(listed) > 100
    assert not missing
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/test_models.py"],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert collected.returncode == 0, collected.stdout[-2000:]
