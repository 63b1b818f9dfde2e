"""The built pages in headless Chromium: no console message of error, no request that leaves the machine."""

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
PAGES = sorted(str(f.relative_to(HTML)) for f in HTML.rglob("*.html") if "_static" not in f.parts)
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


@pytest.mark.parametrize("page", [p for p in PAGES if p.startswith(("book/", "notebooks/"))])
def test_page_fits_a_phone(browser, address, page):
    browser.set_window_size(500, 900)  # the narrowest that Chromium takes
    open_page(browser, f"{address}/{page}")
    too_wide = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    browser.set_window_size(1200, 900)
    assert too_wide <= 1
