"""The built pages in headless Chromium: no error, no foreign request, on a phone, in both themes, for everyone."""

import functools
import http.server
import json
import os
import shutil
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

HTML = Path(__file__).parents[2] / "_build" / "html"
WEB = ("http", "https", "ws", "wss")
AXE = Path(__file__).parents[2] / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = sorted(str(f.relative_to(HTML)) for f in HTML.rglob("*.html") if "_static" not in f.parts)
PAGES = [page for page in PAGES if page != "book/print.html"]  # all chapters at once
WRITTEN = [page for page in PAGES if page.startswith(("book/", "notebooks/"))]
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1200,900",
    # Chromium's own requests: none of the book's, and noise where there is no network.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(HTML))
    handler.func.log_message = lambda *arguments: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = next((p for name in ("chromium", "google-chrome") if (p := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        assert not os.environ.get("CI"), "CI must have a browser"
        pytest.skip("no Chromium with chromedriver on this machine; Debian has both as packages")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in [*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, Service(driver))
    yield chrome
    chrome.quit()


def open_page(browser, url: str) -> None:
    """Opens a page and waits until its mathematics is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(url)
    WebDriverWait(browser, 30).until(
        lambda b: b.execute_script(
            "return document.readyState === 'complete' && (!document.querySelector('.math') || "
            "!!window.MathJax?.startup?.promise)"
        )
    )
    browser.execute_async_script(
        "const done = arguments[0]; Promise.resolve(window.MathJax?.startup?.promise).then(() => done())"
    )


@pytest.mark.parametrize("page", PAGES)
def test_page(browser, address, page):
    open_page(browser, f"{address}/{page}")
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not errors
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert requests
    assert not [url for url in requests if urlsplit(url).scheme in WEB and not url.startswith(address)]
    equations = browser.execute_script("return document.querySelectorAll('.math').length")
    drawn = browser.execute_script("return document.querySelectorAll('.math mjx-container').length")
    assert drawn >= equations
    assert not browser.execute_script("return document.querySelectorAll('mjx-merror, [data-mjx-error]').length")


def resize(browser, width: int) -> None:
    """Device metrics take any width, unlike windows."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


LOST_EQUATIONS = """
return [...document.querySelectorAll("mjx-container")].filter(equation => {
  let area = equation.parentElement;
  while (area !== document.documentElement && !/auto|scroll/.test(getComputedStyle(area).overflowX))
    area = area.parentElement;
  const left = area.getBoundingClientRect().left - area.scrollLeft;
  return [...equation.querySelectorAll("mjx-c")].some(glyph => {
    const place = glyph.getBoundingClientRect();
    return place.width && place.left < left - 1;
  });
}).map(equation => equation.textContent.slice(0, 60))
"""
INDENTED_EQUATIONS = """
return [...document.querySelectorAll(".bd-article div.math")].filter(area => area.scrollWidth > area.clientWidth + 1)
  .filter(area => {
    const left = area.getBoundingClientRect().left - area.scrollLeft;
    const places = [...area.querySelectorAll("mjx-c")].map(glyph => glyph.getBoundingClientRect().left);
    return Math.min(...places) > left + 20;
  }).map(area => area.textContent.slice(0, 60))
"""
SMALL_FIGURES = """
return [...document.querySelectorAll("img.narrow")].filter(image => image.offsetParent && image.naturalWidth)
  .filter(image => image.clientWidth * 1.6 / image.naturalWidth < 0.65).map(image => image.alt.slice(0, 60))
"""


@pytest.mark.parametrize("page", WRITTEN)
def test_page_fits_a_phone(browser, address, page):
    resize(browser, 390)
    try:
        open_page(browser, f"{address}/{page}")
        browser.execute_async_script("setTimeout(arguments[0], 200)")  # the page's own script comes after MathJax
        too_wide = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert too_wide <= 1
        for width in (390, 360, 768):
            resize(browser, width)
            assert not browser.execute_script(LOST_EQUATIONS), f"at {width} px"
            assert width == 768 or not browser.execute_script(INDENTED_EQUATIONS), "room that the equation needs"
            assert width == 768 or not browser.execute_script(SMALL_FIGURES), "letters too small to read"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("page", PAGES)
def test_page_is_accessible_in_both_themes(browser, address, page):
    if not AXE.exists():
        assert not os.environ.get("CI"), "CI must have npm"
        pytest.skip("axe-core needs npm: make test installs it")
    browser.set_script_timeout(120)
    open_page(browser, f"{address}/{page}")
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    # Colours are judged once they have settled: the theme fades from one to the other.
    browser.execute_script(
        "document.head.append(Object.assign(document.createElement('style'), {textContent: arguments[0]}))",
        "*, *::before, *::after { transition: none !important; animation: none !important; }",
    )
    for theme in ("light", "dark"):
        browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        found = browser.execute_async_script(
            "const done = arguments[0]; axe.run({exclude: ['mjx-container']}, {resultTypes: ['violations']})"
            ".then(result => done(result.violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html)])))"
        )
        assert not found, theme


def test_dark_pictures_lie_on_the_dark_page(browser, address):
    """Their letters are pale: the theme's pale plate under pictures of cells would make them unreadable."""
    open_page(browser, f"{address}/notebooks/03_attention_pooling.html")
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    grounds = browser.execute_script(
        "return [...document.querySelectorAll('img.figure.only-dark')].map(i => getComputedStyle(i).backgroundColor)"
    )
    assert len(grounds) > 5
    assert set(grounds) == {"rgba(0, 0, 0, 0)"}


SEARCHES = {
    "heat map": ["notebooks/18_your_own_bags.html", "notebooks/14_colon.html", "notebooks/16_retina.html"],
    "self-attention": ["notebooks/05_self_attention.html"],
    "permutation": ["notebooks/02_pooling.html", "notebooks/05_self_attention.html"],
    "pooling": ["notebooks/02_pooling.html"],
    "Laplace": ["notebooks/09_laplace.html"],
    "bootstrap": ["notebooks/11_choosing_a_kernel.html"],
    "calibration": ["notebooks/13_breast.html"],
    "memory": ["notebooks/12_fast_attention.html", "notebooks/09_laplace.html"],
}


@pytest.mark.parametrize("words", SEARCHES)
def test_search_finds_the_chapter_of_a_subject_first(browser, address, words):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{address}/search.html?q={words.replace(' ', '+')}")
    summary = "return document.querySelector('#search-results .search-summary')?.textContent || ''"
    WebDriverWait(browser, 30).until(lambda b: "finished" in b.execute_script(summary))  # results come one by one
    found = browser.execute_script(
        "return [...document.querySelectorAll('#search-results li a')].map(a => new URL(a.href).pathname.slice(1))"
    )
    chapters = [page for page in dict.fromkeys(found) if page.startswith("notebooks/")]
    assert chapters[0] == SEARCHES[words][0], chapters
    assert set(SEARCHES[words]) <= set(chapters), chapters
