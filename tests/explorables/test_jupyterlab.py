"""In JupyterLab a figure lives from its stored output alone, with keys of its own; a widget with a kernel."""

import os
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import ipywidgets
import nbformat
import pytest
from nbformat.sign import NotebookNotary
from selenium.common.exceptions import WebDriverException

import samil_lite as sl

pytest.importorskip("jupyterlab", reason="JupyterLab is not installed; pip install jupyterlab")
LIVE = """import torch, samil_lite as sl
torch.manual_seed(0)
bags = sl.Bags.from_list([torch.randn(n, 4) for n in (3, 5)])
sl.viz.browse(bags, sl.build("sa-abmilp", torch.nn.Identity(), dim=4))"""


@pytest.fixture
def notebook(tmp_path):
    """A notebook with the output of a figure and no executed cell, trusted, as after it was run by its reader."""
    data, metadata = sl.viz.explorable("kernels")._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell('sl.viz.explorable("kernels")', execution_count=1)
    cell.outputs = [nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=1)]
    content = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell(LIVE)])
    content.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(content, tmp_path / "figure.ipynb")
    (tmp_path / "data").mkdir()
    NotebookNotary(data_dir=str(tmp_path / "data")).sign(nbformat.read(tmp_path / "figure.ipynb", as_version=4))
    return tmp_path / "figure.ipynb"


@pytest.fixture
def address(notebook):
    """JupyterLab on a free port, with all its own files in the test's folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(notebook.parent / kind.lower()) for kind in ("DATA", "CONFIG", "RUNTIME")}
    options = (
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={notebook.parent}"],
        env={**os.environ, **own}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=notebook.parent,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{url}/api"))
        yield f"{url}/doc/tree/{notebook.name}"
    finally:
        server.terminate()  # it ends its kernel first
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def answers(url: str) -> bool:
    try:
        return urlopen(url, timeout=2).status == 200
    except (URLError, OSError):
        return False


def wait_for(condition, seconds: float = 240):
    """What the condition gives once it gives something; on a busy machine a kernel takes its time to start."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            if value := condition():
                return value
        except (WebDriverException, IndexError) as error:  # what is asked is not on the page yet
            last = error
        assert time.monotonic() < end, f"waited {seconds} s in vain: {last}"
        time.sleep(0.2)


def test_alive_from_the_output_alone_and_live_with_a_kernel(browser, address):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.set_window_size(1200, 1200)
    browser.get(address)
    ask = browser.execute_script
    root = "document.querySelector('.jp-OutputArea-output .samil-explorable')?.shadowRoot"
    wait_for(lambda: ask(f"return !!{root}?.querySelector('.figure')"))
    wait_for(lambda: ask("return document.querySelectorAll('.jp-Cell').length === 2"))
    assert ask(f"return {root}.host.dataset.theme") == ask(
        "return document.body.dataset.jpThemeLight === 'true' ? 'light' : 'dark'"
    )
    state = f"return [...{root}.querySelectorAll('[data-vector]')].map(x => x.dataset.vector)"
    bars = f"return [...{root}.querySelectorAll('.column')].map(x => x.dataset.value)"
    before, shown, cells = ask(state), ask(bars), ask("return document.querySelectorAll('.jp-Cell').length")
    ask(f"{root}.querySelector('[data-vector]').focus()")
    keys = ActionChains(browser)
    keys.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, "d", "d").perform()  # dd deletes a cell where nobody stops it
    assert ask(state) != before
    assert ask(bars) != shown
    assert ask("return document.querySelectorAll('.jp-Cell').length") == cells == 2

    # The live widget of the other cell, with a kernel. JupyterLab 4 draws no widget of ipywidgets 7, of whomever.
    if int(ipywidgets.__version__.split(".")[0]) < 8:
        return
    said = "return [...document.querySelectorAll('.widget-html p')].map(x => x.textContent).join(' ')"

    def runs() -> bool:
        """Runs the cell in place; a kernel that has not started yet may pass over it."""
        browser.find_elements("css selector", ".jp-CodeCell .cm-content")[1].click()
        ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
        try:
            return wait_for(lambda: "bag 0: probability" in ask(said), 60)
        except AssertionError:
            return False

    wait_for(runs)
    handle = ".widget-hslider [role=slider], .widget-hslider .noUi-handle"
    wait_for(lambda: browser.find_element("css selector", handle).send_keys(Keys.ARROW_RIGHT) or True)
    wait_for(lambda: "bag 1: probability" in ask(said))
    assert "looks at instance" in ask(said)
    wait_for(lambda: ask("return document.querySelector('.widget-html img').alt").startswith("Weights of 5 instances"))
