"""Changes the repository's address everywhere: make repository URL=https://github.com/OWNER/NAME

The address stands in pyproject.toml. The set-up cells, the Colab links, the book's buttons, the README and the
citation hold copies of it, whole or as OWNER/NAME, which this replaces.
"""

import os
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
    changed = []
    for path in _files(root):
        if path.suffix not in {".md", ".ipynb", ".toml", ".yml", ".cff"} or path.is_symlink() or not path.is_file():
            continue
        try:
            text = path.read_bytes().decode()  # as bytes, so that the ends of lines stay as they are
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected text in UTF-8: {error}") from error
        new = re.sub(rf"(?<=[/:]){re.escape(old)}(?![\w-])", match[1], text)
        if new != text:
            path.write_bytes(new.encode())
            changed.append(path)
    return changed


def _files(root: Path) -> list[Path]:
    """Every file that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]  # -z: no name is quoted
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode(errors="replace").strip() or error
        raise ValueError(
            f"{root}: git cannot list its files ({said}); expected a clone of the repository, not a downloaded ZIP: "
            "`git init` makes one of it"
        ) from error
    return [root / os.fsdecode(name) for name in listed.split(b"\0") if name]


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
