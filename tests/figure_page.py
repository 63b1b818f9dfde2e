"""A figure on a page in headless Chromium, and its functions in Node: what the tests of the figures stand on."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from samil_lite.explorables import script
from tools.explorables import page


class Page:
    """A page from disk with one figure, and what is in its shadow tree."""

    def __init__(self, browser, file: Path) -> None:
        self.browser, self.file = browser, file

    def open(self, html: str, theme: str | None = "light", width: int = 1000, height: int = 1400) -> "Page":
        self.file.write_text(page(html, theme=theme), encoding="utf-8")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.get_log("browser")
        self.browser.get(self.file.as_uri())
        return self

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def run(self, code: str, *arguments):
        return self.browser.execute_script(
            f"const root = document.querySelector('.samil-explorable').shadowRoot; {code}", *arguments
        )

    def all(self, selector: str):
        host = self.browser.find_element("css selector", ".samil-explorable")
        return host.shadow_root.find_elements("css selector", selector)

    def numbers(self, selector: str, name: str = "value") -> np.ndarray:
        read = f"return [...root.querySelectorAll('{selector}')].map(x => +x.dataset['{name}'])"
        return np.array(self.run(read), dtype=float)  # NaN comes back as None

    def summary(self) -> str:
        """What is announced once the hand rests."""
        wait = "return new Promise(done => setTimeout(() => done(root.querySelector('.summary').textContent), 400))"
        return self.run(wait)

    def press(self, node, *keys: str) -> None:
        """Puts the focus on a node and presses keys, as a reader without a mouse does."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.browser.execute_script("arguments[0].focus()", node)
        ActionChains(self.browser).send_keys(*keys).perform()

    def drag(self, node, right: int, down: int) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser, duration=20).click_and_hold(node).move_by_offset(right, down).release().perform()

    def slide(self, label: str, value: float) -> None:
        """Moves the slider of this name, as an input event does."""
        self.run(
            "const rows = [...root.querySelectorAll('label.slider')];"
            "const input = rows.find(x => x.firstChild.textContent === arguments[0]).querySelector('input');"
            "input.value = arguments[1]; input.dispatchEvent(new Event('input'))",
            label,
            value,
        )


def node(code: str, *figures: str, value=None):
    """What a piece of script returns in Node, where the figures' functions run without a browser."""
    if not shutil.which("node"):
        pytest.skip("Node is not on this machine; the browser's tests run the same functions")
    parts = [script(name).rpartition("samilLite.start(")[0] for name in figures]
    program = "\n".join(
        [*parts, f"const value = {json.dumps(value)}; console.log(JSON.stringify((() => {{{code}}})()))"]
    )
    result = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)
