"""Every figure: from disk, in both themes, on a phone, with fingers, without scripts."""

import base64
import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import samil_lite as sl
from samil_lite.explorables import FIGURES, script

names = pytest.mark.parametrize("name", [name for name in FIGURES if name != "stepper"])
with_stepper = pytest.mark.parametrize("name", list(FIGURES))


def shown_as(name: str) -> str:
    """The HTML of a figure with its own data; the stepper, which has none, gets three frames."""
    if name != "stepper":
        return sl.viz.explorable(name).html
    figures = [plt.figure(figsize=(3, 2)) for _ in range(3)]
    for i, figure in enumerate(figures):
        figure.add_subplot().plot([0, i])
    return sl.viz.stepper(figures, [f"A line up to {i}, drawn by hand." for i in range(3)], "Stage").html


@with_stepper
def test_opens_from_disk_on_every_screen_without_a_message(shown, name):
    html = shown_as(name)
    for theme, width in (("light", 390), ("dark", 390), ("light", 1400), (None, 1400)):
        shown.open(html, theme, width)
        assert shown.messages() == []
        assert shown.run("return root.querySelector('.figure').getBoundingClientRect().height") > 150
        assert shown.run("return document.documentElement.scrollWidth") <= width
        assert shown.run("return getComputedStyle(document.querySelector('.samil-explorable img')).display")
        assert shown.run("return root.querySelector('[aria-live=polite]').textContent.length") > 20
        assert shown.run("return root.host.dataset.theme") == (theme or "light")
        assert shown.run("return document.querySelector('.samil-explorable img').getBoundingClientRect().height") == 0


@pytest.fixture(scope="module")
def axe() -> str:
    """The checker of accessibility; `make test` fetches it."""
    file = Path(__file__).parents[2] / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
    if not file.exists():
        assert not os.environ.get("CI"), "CI must have npm"
        pytest.skip("axe-core is not there; make test fetches it where npm is")
    return file.read_text(encoding="utf-8")


@with_stepper
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_has_no_violation_that_axe_knows(shown, axe, name, theme):
    shown.open(f"<h1>Figures</h1>{shown_as(name)}", theme, 390)
    shown.run(axe)
    found = shown.browser.execute_async_script(
        "const done = arguments[0]; axe.run(document.querySelector('.samil-explorable')).then(r => done("
        "r.violations.map(v => `${v.id}: ${v.nodes.slice(0, 3).map(n => n.html.slice(0, 150)).join(' | ')}`)))"
    )
    assert found == []
    seen = "return [...root.querySelectorAll('*')].filter(x => x.textContent.trim()).length"
    assert shown.run(seen) > 5  # axe was not looking at an empty box


@with_stepper
def test_fingers_hit_what_they_aim_at(shown, name):
    shown.open(shown_as(name), width=390)
    small = shown.run(
        "const aims = 'button, select, label.slider input, label.check, .ring, [tabindex=\"0\"]:not(g)';"
        "return [...root.querySelectorAll(aims)].filter(x => x.offsetParent !== null || x.ownerSVGElement)"
        ".map(x => [x.outerHTML.slice(0, 90), x.getBoundingClientRect()])"
        ".filter(([, r]) => r.height < 43.9 || r.width < 43.9).map(([html, r]) => `${html} ${r.width} × ${r.height}`)"
    )
    assert not small


@with_stepper
def test_two_of_a_kind_share_a_page(shown, name):
    html = shown_as(name)
    shown.open(html + html)
    assert shown.messages() == []
    alive = (
        "return [...document.querySelectorAll('.samil-explorable')].map(x => !!x.shadowRoot?.querySelector('.figure'))"
    )
    assert shown.run(alive) == [True, True]
    assert shown.run("return document.querySelectorAll('[id]').length + root.querySelectorAll('[id]').length") == 0


@with_stepper
def test_follows_a_change_of_theme(shown, name):
    shown.open(shown_as(name), "light")
    ground = "return getComputedStyle(root.querySelector('.figure')).backgroundColor"
    light = shown.run(ground)
    shown.run("document.documentElement.dataset.theme = 'dark'")
    shown.run("return new Promise(done => setTimeout(done, 50))")
    assert shown.run(ground) != light


@names
def test_says_what_it_shows_where_scripts_do_not_run(name):
    figure = sl.viz.explorable(name)
    assert len(figure.alt) > 60
    assert figure.picture.startswith(b"\x89PNG")
    assert len(figure.picture) < 60_000
    data, metadata = figure._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == figure.picture
    assert metadata["image/png"]["alt"] == data["text/plain"] == figure.alt
    assert FIGURES[name].data.__doc__.split("\n")[0].endswith(".")
    assert figure.html == sl.viz.explorable(name).html  # nothing random


@names
def test_asks_nobody_and_is_light(name):
    text = script(name)
    for word in ("fetch(", "XMLHttpRequest", "import ", "http://", "https://"):
        assert word not in text.replace("http://www.w3.org/2000/svg", ""), word
    assert len(text) < 40_000
    assert len(sl.viz.explorable(name).html) < 300_000


def test_a_name_that_does_not_exist():
    with pytest.raises(ValueError, match="name: unknown figure 'kernel'; did you mean kernels"):
        sl.viz.explorable("kernel")


HTML = Path(__file__).parents[2] / "_build" / "html"


def test_pages_stay_light():
    """With their pictures, without what all pages share: no chapter over 1.5 MB, the first page under 400 kB."""
    if not HTML.exists():
        pytest.skip("no book in _build/html: run make book")
    sizes = {page: page.stat().st_size + sum(size_of_pictures(page)) for page in HTML.glob("*/*.html")}
    chapters = {page.name: size for page, size in sizes.items() if page.parent.name == "notebooks"}
    assert len(chapters) >= 17
    assert max(chapters.values()) < 1_500_000, max(chapters, key=chapters.get)
    assert sizes[HTML / "book" / "explorables.html"] < 1_500_000
    assert sizes[HTML / "book" / "index.html"] < 400_000


def size_of_pictures(page: Path) -> list[int]:
    links = set(re.findall(r'<img[^>]* src="([^":]+)"', page.read_text(encoding="utf-8")))
    return [(page.parent / link).stat().st_size for link in links]
