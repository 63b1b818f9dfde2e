"""The files that say what to install agree, and the repository's address stands in one place."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.repository import change, slug

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# What Colab had when it was last recorded. Installing the package there must replace nothing.
COLAB = ROOT / "tools" / "colab" / "versions.txt"


def pins(path: Path = ROOT / "constraints.txt") -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines if line)}


# torchvision is not pinned: it has to be of the same build as the torch that is there, and no test needs it.
@pytest.mark.parametrize(
    "text", [*PROJECT["dependencies"], *(x for e in EXTRAS if e != "backbones" for x in EXTRAS[e])]
)
def test_constraints_pin_what_the_project_needs(text):
    requirement = Requirement(text)
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_installed_versions_are_the_pinned_ones():
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze", "--exclude-editable"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    installed = dict(line.split("==") for line in listed.splitlines())
    installed = {canonicalize_name(name): version.split("+")[0] for name, version in installed.items()}
    pinned = pins()
    assert len(pinned.keys() & installed.keys()) > 100
    # Not the other way round: what torch needs for CUDA, for instance, is installed on some machines only.
    assert not {n: (v, pinned[n]) for n, v in installed.items() if n in pinned and pinned[n] != v}


def test_conda_environment_agrees():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[book,test]"]
    assert "'.[book,test]'" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("text", PROJECT["dependencies"])
def test_colab_has_what_the_package_needs(text):
    requirement = Requirement(text)
    assert all(specifier.operator == ">=" for specifier in requirement.specifier)
    assert requirement.specifier.contains(pins(COLAB)[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("text", [x for e in EXTRAS if e != "test" for x in EXTRAS[e]])
def test_no_extra_replaces_a_package_of_colab(text):
    requirement = Requirement(text)
    assert requirement.specifier.contains(pins(COLAB).get(canonicalize_name(requirement.name), "999")) or (
        requirement.name in ("jupyter-book", "sphinx-book-theme")  # the book is not built there
    )


def test_one_range_of_pythons():
    versions = ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={versions[0]},<3.{int(versions[-1][2:]) + 1}"
    assert [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c] == versions
    for name in ("README.md", "Makefile", "book/contents.md"):
        assert f"Python {versions[0]} to {versions[-1]}" in (ROOT / name).read_text(encoding="utf-8"), name
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [versions[0], versions[-1]]


def test_address_changes_everywhere_and_back(tmp_path):
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        if (ROOT / name).suffix in {".md", ".ipynb", ".toml", ".yml", ".cff"} or name.startswith("tools/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)

    def texts() -> dict[str, str]:
        return {str(p): p.read_text() for p in tmp_path.rglob("*") if p.is_file() and ".git" not in p.parts}

    def change_by_tool(url: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "tools/repository.py", url], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    before = texts()
    old = PROJECT["urls"]["Repository"]
    assert change_by_tool("https://github.com/someone/bags-2.git").returncode == 0
    assert not [name for name, text in texts().items() if re.search(rf"[/:]{re.escape(slug(ROOT))}", text)]
    changed = {Path(name).name for name in before if before[name] != texts()[name]}
    assert {"pyproject.toml", "_config.yml", "README.md", "CITATION.cff", "01_bags.ipynb"} <= changed
    assert change_by_tool(old).returncode == 0
    assert texts() == before
    bad = change_by_tool("gitlab.com/someone")
    assert bad.returncode == 1
    assert "URL: expected https://github.com/OWNER/NAME" in bad.stderr
    assert texts() == before


def test_address_changes_in_files_of_any_name(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/old/name"\n')
    names = ["plain.md", "95_é.ipynb", 'a"b.md', "with space.md", "two\nlines.md"]
    for name in names:
        (tmp_path / name).write_bytes(b"see https://github.com/old/name\r\n")
    (tmp_path / "outside").mkdir()
    target = tmp_path.with_name(f"{tmp_path.name}.md")
    target.write_text("https://github.com/old/name")
    (tmp_path / "link.md").symlink_to(target)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    change(tmp_path, "https://github.com/new/name")
    assert [(tmp_path / name).read_bytes() for name in names] == [b"see https://github.com/new/name\r\n"] * 5
    assert target.read_text() == "https://github.com/old/name"


def test_address_of_what_is_no_clone(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/old/name"\n')
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ValueError, match=r"git cannot list its files \(fatal: not a git repository(.|\n)*git init"):
        change(tmp_path, "https://github.com/new/name")


@pytest.mark.parametrize(
    "text", ["`touch {}`", "$$(touch {})", "$(shell touch {})", '"; touch {}; echo "', "\ntouch {}"]
)
@pytest.mark.parametrize("target", ["repository URL=", "notebooks NAMES="])
def test_make_runs_nothing_of_what_it_is_given(tmp_path, target, text):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "installed").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "given: $*"\n')
    python.chmod(0o755)
    goal, variable = target.split()
    mark = tmp_path / "ran"
    done = subprocess.run(
        ["make", "-s", goal, variable + text.format(mark)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "tools/repository.py" in done.stdout or "tools.notebooks" in done.stdout
    assert not mark.exists()


def test_workflow_is_pinned():
    """Each action by its commit, with the version beside it; no token left behind, publishing not cut off."""
    text = (ROOT / ".github" / "workflows" / "book.yml").read_text()
    uses = re.findall(r"uses: (\S+)(.*)", text)
    assert len(uses) == 4
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action, _ in uses)
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for _, version in uses)
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    assert flow["jobs"]["publish"]["concurrency"] == {"group": "pages", "cancel-in-progress": False}
    assert flow["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    assert flow["jobs"]["test"]["steps"][0]["with"]["persist-credentials"] is False


def test_installing_runs_pinned_code_only():
    make = (ROOT / "Makefile").read_text()
    backend = Requirement(tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"][0])
    assert backend.specifier.contains(pins()[backend.name])
    assert "PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt" in make
    installs = re.findall(r"npm (?:install|ci|i) .*", make)
    assert installs
    assert all("--ignore-scripts" in one for one in installs)


def test_importing_is_quick():
    """Importing the package must not import the slow ones: plotting, tables and scikit-learn come at first use."""
    slow = ("matplotlib", "pandas", "seaborn", "sklearn", "torch._dynamo")
    code = f"import samil_lite, sys; print([m for m in {slow} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_exists():
    import samil_lite as sl

    assert all(hasattr(sl, name) for name in sl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sl.nothing


def test_tables_are_read_again_only_when_records_or_the_package_changed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    import record_tables

    records = tmp_path / "results" / "mnist"
    records.mkdir(parents=True)
    (records / "a.json").write_text("{}")
    monkeypatch.setattr(record_tables, "RESULTS", records.parent)
    page = ROOT / "book" / "results.md"
    env = SimpleNamespace(found_docs={"book/results"}, doc2path=lambda name: page)
    again = [record_tables.outdated_pages(None, env, set(), set(), set()) for _ in range(2)]
    (records / "b.json").write_text("{}")
    again.append(record_tables.outdated_pages(None, env, set(), set(), set()))
    assert again == [["book/results"], [], ["book/results"]]
    watched = {
        Path(path).relative_to(ROOT).parts[0] for path, _ in env.samil_records if not path.startswith(str(tmp_path))
    }
    assert watched == {"samil_lite", "book"}  # not the environment's packages, nor the tests
