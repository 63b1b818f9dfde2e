"""The built pages: links, alt text, other hosts, valid HTML. `make test` builds them first."""

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
VNU = ROOT / ".venv" / "vnu" / "node_modules" / "vnu-jar" / "build" / "dist" / "vnu.jar"
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "video": "src"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids |= {values[key] for key in ("id", "name") if values.get(key)}
        self.links += [values[key] for key in ("href", "src") if values.get(key)]
        if tag in LOADED and values.get(LOADED[tag]) and values.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(values[LOADED[tag]])
        if tag == "img":
            self.images.append(values)


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    files = [f for f in HTML.rglob("*.html") if "_static" not in f.parts]
    assert len(files) > 8, f"no book in {HTML}: run make book"
    return {f: Page(f.read_text(encoding="utf-8")) for f in files}


def test_local_links_resolve(pages):
    broken = []
    for file, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (file.parent / unquote(url.path)).resolve() if url.path else file
            if not target.exists() or (
                url.fragment and target in pages and unquote(url.fragment) not in pages[target].ids
            ):
                broken.append(f"{file.relative_to(HTML)}: {link}")
    assert not broken


def test_no_page_loads_from_another_host(pages):
    foreign = {(f.name, x) for f, page in pages.items() for x in page.loads if urlsplit(x).scheme in ("http", "https")}
    foreign |= {(f.name, x) for f, page in pages.items() for x in page.loads if x.startswith("//")}
    assert not foreign


def test_every_image_says_what_it_shows(pages):
    silent = []
    for file, page in pages.items():
        for image in page.images:
            alt = (image.get("alt") or "").strip()
            if len(alt) < 10 and "logo" not in (image.get("class") or "") and "logo" not in (image.get("src") or ""):
                silent.append(f"{file.name}: {image.get('src', '')[:60]} alt={alt!r}")
    assert sum(len(page.images) for page in pages.values()) > 20
    assert not silent


def test_all_exercises_are_on_one_page():
    page = (HTML / "book" / "exercises.html").read_text(encoding="utf-8")
    chapters = [nbformat.read(path, as_version=4).cells for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")]
    exercises = [cell for cells in chapters for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    assert page.count("<li><p>★") == len(exercises) > 50


def test_chapters_have_colab_and_download_buttons(pages):
    for chapter in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        links = pages[HTML / "notebooks" / f"{chapter.stem}.html"].links
        assert any(
            link.startswith("https://colab.research.google.com/github/")
            and link.endswith(f"/blob/main/notebooks/{chapter.name}")
            for link in links
        )
        assert any(link.endswith(f"_sources/notebooks/{chapter.name}") for link in links)


def test_mathematics_comes_with_the_book(pages):
    for name in ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff"):
        assert (HTML / "_static" / "mathjax" / name).is_file()
    assert any("mathjax/tex-mml-chtml.js" in x for x in pages[HTML / "book" / "notation.html"].loads)


def test_html_is_valid(pages):
    java = shutil.which("java")
    if not java or not VNU.exists():
        assert not os.environ.get("CI"), "CI must have Java and npm"
        pytest.skip("the HTML checker needs Java and npm")
    result = subprocess.run(
        [java, "-jar", str(VNU), "--errors-only", *map(str, pages)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-5000:]
