"""Pictures of the figures, and their outputs in the stored chapters: python -m tools.explorables [--pictures NAMES…]

The picture of a figure stands where scripts do not run. It is taken in headless Chromium, as the figure starts, in
light colours. Then the outputs of all cells `sl.viz.explorable(…)` in notebooks/ are made again from the present
scripts; no kernel is needed, and nothing else in the chapters changes.
"""

import argparse
import ast
import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from PIL import Image

import samil_lite as sl
from samil_lite.explorables import FIGURES
from tools.notebooks import CHAPTERS, write
from tools.student_copies import student_copy

FOLDER = Path(sl.__file__).parent / "explorables"
WIDTH = 720  # of a picture: the column of a page
PAGE = '<!DOCTYPE html><html lang="en"{attributes}><head><meta charset="utf-8">{head}<title>{title}</title></head>\
<body style="margin:0">{body}</body></html>'


def page(body: str, title: str = "Figures", theme: str | None = None) -> str:
    """A plain page around some HTML; without a theme it follows the system."""
    attributes = f' data-theme="{theme}"' if theme else ""
    head = '<meta name="viewport" content="width=device-width,initial-scale=1">'
    head += "" if theme else '<meta name="color-scheme" content="light dark">'
    ground = "#121212" if theme == "dark" else "inherit"
    return PAGE.format(
        attributes=attributes, head=head, title=title, body=f'<main style="background:{ground}">{body}</main>'
    )


def chromium(profile: str) -> Any:
    """Headless Chromium, driven by selenium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, Service(shutil.which("chromedriver")))


def take_picture(browser: Any, name: str) -> None:
    """Stores the picture of a figure, in few colours."""
    from selenium.webdriver.common.by import By

    with TemporaryDirectory() as folder:
        file = Path(folder, "page.html")
        empty = FOLDER / f"{name}.png"
        if not empty.exists():
            empty.write_bytes(b"")
        file.write_text(page(sl.viz.explorable(name).html, theme="light"), encoding="utf-8")
        browser.set_window_size(WIDTH, 1400)
        browser.get(file.as_uri())
        png = browser.find_element(By.CSS_SELECTOR, ".samil-explorable").screenshot_as_png
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(32, dither=Image.Dither.NONE)
    picture.save(FOLDER / f"{name}.png", optimize=True)
    print(f"{name}.png: {(FOLDER / f'{name}.png').stat().st_size / 1024:.0f} kB")


def refresh(path: Path) -> int:
    """Makes the outputs of a chapter's figures again; returns how many there are."""
    notebook, count = nbformat.read(path, as_version=4), 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.lstrip().startswith("sl.viz.explorable("):
            figure = eval(compile(ast.parse(cell.source.strip(), mode="eval"), path.name, "eval"), {"sl": sl})
            data, metadata = figure._repr_mimebundle_()
            cell.outputs = [
                nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=cell.execution_count)
            ]
            count += 1
    if count:
        write(notebook, path)
        write(student_copy(notebook, path.name), path.parent / "student" / path.name)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", nargs="*", metavar="NAME", help="figures to take pictures of; all if none named")
    args = parser.parse_args()
    if args.pictures is not None:
        with TemporaryDirectory() as profile:
            browser = chromium(profile)
            try:
                for name in args.pictures or [name for name in FIGURES if name != "stepper"]:
                    take_picture(browser, name)
            finally:
                browser.quit()
    for path in sorted(CHAPTERS.glob("[0-9]*.ipynb")):
        if count := refresh(path):
            print(f"{path.name}: {count} figure(s)")


if __name__ == "__main__":
    main()
