import os
import shutil

import pytest
from figure_page import Page

from tools.explorables import chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not shutil.which("chromedriver") or not (shutil.which("chromium") or shutil.which("google-chrome")):
        assert not os.environ.get("CI"), "CI must have a browser"
        pytest.skip("no Chromium with chromedriver on this machine; Debian has both as packages")
    chrome = chromium(str(tmp_path_factory.mktemp("profile")))
    yield chrome
    chrome.quit()


@pytest.fixture
def shown(browser, tmp_path) -> Page:
    return Page(browser, tmp_path / "page.html")
