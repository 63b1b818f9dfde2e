"""The script that opens chapter 18, as a practitioner runs it: two files, two processes."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd

from samil_lite.data import synthetic

CHAPTER = Path(__file__).parents[1] / "notebooks" / "18_your_own_bags.ipynb"
IMPORTS = "import samil_lite as sl\nfrom torch import nn\nfrom pathlib import Path\nwork = Path()\n"
SHOW = 'figure.savefig("map.png")\n'  # in place of showing it in a notebook


def test_from_a_folder_to_a_map_in_25_lines(tmp_path):
    cells = nbformat.read(CHAPTER, as_version=4).cells
    train, use = (cell.source for cell in cells if "script" in cell.metadata.get("tags", []))
    use = "".join(SHOW if "viz.show" in line else f"{line}\n" for line in use.splitlines())
    lines = [line for line in (IMPORTS + train + "\n" + use).splitlines() if line.strip()]
    assert len(lines) <= 25
    synthetic.write_trident(tmp_path / "cohort", n_slides=60, n_patients=34)
    synthetic.write_trident(tmp_path / "new", n_slides=2, n_patients=2, seed=7)
    for source in (IMPORTS + train, IMPORTS + use):
        run = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", source]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "slide_1    normal" in done.stdout
    assert "slide_2     tumor" in done.stdout
    squares = json.loads((tmp_path / "slide_2.geojson").read_text())["features"]
    assert squares[0]["geometry"]["coordinates"][0][1][0] - squares[0]["geometry"]["coordinates"][0][0][0] == 512
    planted = pd.read_csv(tmp_path / "new" / "planted.csv").query("slide_id == 'slide_2'")["instance"].tolist()
    weights = pd.Series([square["properties"]["measurements"]["attention"] for square in squares])
    assert weights[planted].sum() > 0.5  # half of the attention on one patch in eight
    assert (tmp_path / "map.png").stat().st_size > 1000
