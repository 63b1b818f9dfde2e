"""Every figure: from disk, in both themes, on a phone, with fingers, without scripts."""

import base64

import pytest

import samil_lite as sl
from samil_lite.explorables import FIGURES, script

names = pytest.mark.parametrize("name", [name for name in FIGURES if name != "stepper"])  # it has no data of its own


@names
def test_opens_from_disk_on_every_screen_without_a_message(shown, name):
    html = sl.viz.explorable(name).html
    for theme, width in (("light", 390), ("dark", 390), ("light", 1400), (None, 1400)):
        shown.open(html, theme, width)
        assert shown.messages() == []
        assert shown.run("return root.querySelector('.figure').getBoundingClientRect().height") > 150
        assert shown.run("return document.documentElement.scrollWidth") <= width
        assert shown.run("return getComputedStyle(document.querySelector('.samil-explorable img')).display")
        assert shown.run("return root.querySelector('[aria-live=polite]').textContent.length") > 20
        assert shown.run("return root.host.dataset.theme") == (theme or "light")
        assert shown.run("return document.querySelector('.samil-explorable img').getBoundingClientRect().height") == 0


@names
def test_fingers_hit_what_they_aim_at(shown, name):
    shown.open(sl.viz.explorable(name).html, width=390)
    small = shown.run(
        "const aims = 'button, select, label.slider input, label.check, .ring, [tabindex=\"0\"]:not(g)';"
        "return [...root.querySelectorAll(aims)].filter(x => x.offsetParent !== null || x.ownerSVGElement)"
        ".map(x => [x.outerHTML.slice(0, 90), x.getBoundingClientRect()])"
        ".filter(([, r]) => r.height < 43.9 || r.width < 43.9).map(([html, r]) => `${html} ${r.width} × ${r.height}`)"
    )
    assert not small


@names
def test_two_of_a_kind_share_a_page(shown, name):
    html = sl.viz.explorable(name).html
    shown.open(html + html)
    assert shown.messages() == []
    alive = (
        "return [...document.querySelectorAll('.samil-explorable')].map(x => !!x.shadowRoot?.querySelector('.figure'))"
    )
    assert shown.run(alive) == [True, True]
    assert shown.run("return document.querySelectorAll('[id]').length + root.querySelectorAll('[id]').length") == 0


@names
def test_follows_a_change_of_theme(shown, name):
    shown.open(sl.viz.explorable(name).html, "light")
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
