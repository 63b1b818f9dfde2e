"""python -m samil_lite, and the report that it writes."""

import html.parser
import json
import re

import pandas as pd
import pytest

import samil_lite as sl
from samil_lite.__main__ import main
from samil_lite.data import synthetic

FAST = ["--folds", "3", "--epochs", "2", "--lr", "1e-2", "--width", "8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    synthetic.write_trident(folder / "old", n_slides=20, n_patients=12, mean_size=10)
    synthetic.write_trident(folder / "new", n_slides=2, n_patients=2, mean_size=10, seed=1)
    return folder


@pytest.fixture(scope="module")
def run(data):
    """A finished run."""
    out = data / "run"
    train = ["train", str(data / "old"), str(data / "old" / "labels.csv"), "--out", str(out), "--group", "patient"]
    assert main([*train, "--model", "iqsa-abmilp", "--extractor", "uni", *FAST]) == 0
    return out


class Page(html.parser.HTMLParser):
    """Notes addresses of the page, pictures without a text, and tags left open."""

    def __init__(self):
        super().__init__()
        self.addresses, self.without_alt, self.open = [], 0, []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.without_alt += tag == "img" and not found.get("alt")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_run_leaves_scores_models_and_a_page_of_its_own(run):
    table, scores = pd.read_csv(run / "predictions.csv"), pd.read_csv(run / "scores.csv")
    assert len(table) == 20
    assert set(scores["unit"]) == {"bag", "group"}
    ensemble = sl.load(run / "models.safetensors")
    assert (len(ensemble), ensemble.card.extractor, ensemble.card.classes) == (3, "uni", ("normal", "tumor"))
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.without_alt == 0
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"https?://", text)
    row = scores.query("unit == 'group' and score == 'auc'").iloc[0]
    assert f"AUC {row['value']:.2f} (95 % interval {row['low']:.2f} to {row['high']:.2f})" in text
    for name in table["bag"]:
        assert name in text
    assert "Map" in text
    assert text.count("<figure>") >= 3 + 3 + 2  # curves, courses, maps


def test_the_same_command_goes_on_and_another_is_refused(run, data, capsys):
    train = ["train", str(data / "old"), str(data / "old" / "labels.csv"), "--out", str(run), "--group", "patient"]
    train += ["--model", "iqsa-abmilp", "--extractor", "uni", *FAST]
    before = {p.name: p.stat().st_mtime_ns for p in (run / "folds").glob("*.safetensors")}
    assert main(train) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (run / "folds").glob("*.safetensors")} == before
    assert main([*train, "--seed", "1"]) == 2
    assert "of another run" in capsys.readouterr().err


def test_new_slides(run, data, tmp_path):
    models = str(run / "models.safetensors")
    assert main(["predict", str(data / "new"), models, "--out", str(tmp_path / "p.csv")]) == 0
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["bag"].tolist() == ["slide_1", "slide_2"]
    new = sl.data.feature_bags(data / "new", data / "new" / "labels.csv", label=None)
    expected = sl.predictions(sl.load(models), new)
    assert table["p_tumor"].tolist() == pytest.approx(expected["p_tumor"].tolist())
    assert main(["heatmap", str(data / "new"), models, "--slides", "slide_2", "--out", str(tmp_path / "maps")]) == 0
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == ["slide_2.csv", "slide_2.geojson", "slide_2.png"]
    features = json.loads((tmp_path / "maps" / "slide_2.geojson").read_text())["features"]
    ring = features[0]["geometry"]["coordinates"][0]
    assert ring[2][0] - ring[0][0] == 512  # the second slide was scanned at 40×


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere", "old/labels.csv", "--out", "x"], "folder: .*nowhere is not a folder"),
        (["train", "old", "nowhere.csv", "--out", "x"], "nowhere.csv is not a file"),
        (["train", "old", "old/labels.csv", "--out", "x", "--label", "diagnosis"], "a column 'diagnosis'"),
        (["train", "old", "old/labels.csv", "--out", "x", "--label", "labels"], "got .*; did you mean 'label'"),
        (["train", "old", "old/labels.csv", "--out", "x", "--group", "patients"], "got .*; did you mean 'patient'"),
        (["train", "old", "old/labels.csv", "--out", "x", "--threshold", "best"], "--threshold: expected"),
        (
            ["train", "old", "colons.csv", "--out", "x"],
            "slide_id:label; that is one column: separate columns",
        ),
        (["train", "old", "twice.csv", "--out", "x"], "slide_1 is listed 2 times, slide_2 is listed 2 times; .*--bag"),
        (["train", "old", "more.csv", "--out", "x"], "(?s)slide_98.*slide_99.*--missing skip leaves them out"),
        (["predict", "new", "old/labels.csv", "--out", "x.csv"], "expected a file that sl.save wrote"),
        (["heatmap", "new", "run/models.safetensors", "--out", "x", "--slides", "slide_9"], "slide_9 is not there"),
    ],
)
def test_what_is_wrong_is_one_message(arguments, message, run, data, capsys, monkeypatch):
    monkeypatch.chdir(data)
    rows = (data / "old" / "labels.csv").read_text().splitlines()
    (data / "colons.csv").write_text("slide_id:label\nslide_1:normal\n")
    (data / "twice.csv").write_text("\n".join([*rows, *rows[1:3]]))
    (data / "more.csv").write_text("\n".join([*rows, "slide_98,tumor,p", "slide_99,tumor,q"]))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "Traceback" not in error


def test_patients_on_both_sides_are_warned_of(data, tmp_path, capsys):
    train = ["train", str(data / "old"), str(data / "old" / "labels.csv"), "--out", str(tmp_path), "--maps", "0"]
    assert main([*train, *FAST]) == 0
    assert "20 slides have 12 values of 'patient'; without --group patient" in capsys.readouterr().err
