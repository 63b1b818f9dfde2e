"""Changes the repository's address everywhere: make repository URL=https://github.com/OWNER/NAME

The address stands in pyproject.toml. The set-up cells, the Colab links, the book's buttons, the README and the
citation hold copies of it, whole or as OWNER/NAME, which this replaces.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?")


def change(root: Path, url: str) -> list[Path]:
    """Replaces the address in every text file that git tracks or would track; returns the files that changed."""
    match = ADDRESS.fullmatch(url)
    if not match:
        raise ValueError(f"URL: expected https://github.com/OWNER/NAME (Colab opens no other), got {url!r}")
    old = slug(root)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.splitlines()
    changed = []
    for path in (root / name for name in listed):
        if path.suffix not in {".md", ".ipynb", ".toml", ".yml", ".cff"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        new = re.sub(rf"(?<=[/:]){re.escape(old)}(?![\w-])", match[1], text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def slug(root: Path) -> str:
    """OWNER/NAME of the address in pyproject.toml."""
    address: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    return address.removeprefix("https://github.com/")


if __name__ == "__main__":
    try:
        for changed_path in change(Path(__file__).parents[1], sys.argv[1] if len(sys.argv) > 1 else ""):
            print(changed_path)
    except ValueError as error:
        sys.exit(str(error))
