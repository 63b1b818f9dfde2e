import os
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from samil_lite.data import photographs
from samil_lite.data.images import image_size
from samil_lite.data.photographs import Grid
from samil_lite.data.retina import BASES, CORRECTED_GRADES, DUPLICATES, messidor_bags, messidor_table
from samil_lite.data.synthetic.retina import write_messidor


@pytest.fixture(scope="module")
def messidor(tmp_path_factory):
    """The whole layout with the images that errata are about, read only."""
    return write_messidor(tmp_path_factory.mktemp("data") / "messidor", height=48, errata=True)


@pytest.fixture
def one(tmp_path):
    """One base of four images, to be damaged."""
    return write_messidor(tmp_path / "messidor", 4, height=48, bases=["Base21"])


def load(folder, **options):
    return messidor_bags(folder, **({"size": 24, "height": 72, "progress": False} | options))


def load_one(folder, **options):
    return load(folder, bases=["Base21"], **options)


def test_layout_and_labels(messidor):
    bags, table = load(messidor), messidor_table(messidor)
    assert len(bags) == len(table) == 12 * 2 + 4 + 13
    assert bags.labels.tolist() == (table["grade"] > 0).astype(int).tolist() == table["label"].tolist()
    assert table["base"].drop_duplicates().tolist() == list(BASES)
    assert list(table.columns) == ["name", "department", "grade", "edema", "base", "label", "path"]
    assert (table.groupby("base")["department"].nunique() == 1).all()
    assert all(path.parent.name == base for path, base in zip(table["path"], table["base"], strict=True))
    assert bags.instances.dtype == torch.uint8
    assert bags.instances.shape[1:] == (3, 24, 24)
    assert bags.instances.untyped_storage().nbytes() == bags.instances.numel()  # no room left over


def test_patches_are_where_the_coordinates_say(messidor):
    bags, table = load(messidor, bases=["Base12"], size=25), messidor_table(messidor, bases=["Base12"])
    for bag, path in zip(bags, table["path"], strict=True):
        pixels = np.asarray(Image.open(path).resize((108, 72), Image.Resampling.BILINEAR))
        for patch, (x, y) in zip(bag.instances, bag.coordinates.int().tolist(), strict=True):
            assert (patch.numpy() == pixels[y - 12 : y + 13, x - 12 : x + 13].transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("shape", "size", "stride", "x", "y"),
    [
        ((48, 96), 24, 24, [11.5, 35.5, 59.5, 83.5], [11.5, 35.5]),
        ((24, 31), 24, 24, [14.5], [11.5]),  # 7 columns left over: 3 before, 4 behind
        ((24, 40), 24, 8, [11.5, 19.5, 27.5], [11.5]),
        ((24, 50), 24, 12, [12.5, 24.5, 36.5], [11.5]),
        ((24, 90), 24, 40, [24.5, 64.5], [11.5]),  # a stride above the size leaves gaps
    ],
)
def test_the_grid_is_centred(shape, size, stride, x, y):
    grid, xy = Grid(size, stride, None, None, 0).cut(np.zeros((*shape, 3), np.uint8))
    assert grid.shape == (len(x) * len(y), 3, size, size)
    assert xy.tolist() == [[a, b] for b in y for a in x]


def test_black_patches_are_dropped_by_the_stated_rule(messidor):
    everything = load(messidor, max_black=None)
    assert (everything.sizes == 4 * 3).all()  # 108 × 72 pixels
    share = (everything.instances <= 10).all(1).double().mean((1, 2))
    for max_black in (0.0, 0.3, 0.7):
        bags = load(messidor, max_black=max_black)
        assert torch.equal(bags.instances, everything.instances[share <= max_black])
        assert torch.equal(bags.coordinates, everything.coordinates[share <= max_black])
        assert bags.sizes.tolist() == [int((s <= max_black).sum()) for s in everything.split(share)]
    assert (load(messidor, black_level=255, max_black=1.0).sizes == 12).all()


def test_photographs_of_all_departments_come_to_one_height(messidor):
    table = messidor_table(messidor)
    heights = [image_size(path)[1] for path in table["path"]]
    assert sorted(set(heights)) == [48, 74, 77]
    bags = load(messidor, max_black=None)
    assert bags.coordinates[:, 1].max() == 72 - 12.5
    assert load(messidor, bases=["Base31"], height=None, max_black=None).sizes.tolist() == [4 * 3] * 2  # 116 × 77


def test_errata(messidor):
    before, after = (messidor_table(messidor, errata=errata).set_index("name") for errata in (False, True))
    assert len(before) - len(after) == len(DUPLICATES) == 13
    assert set(before.index) - set(after.index) == {f"{second}.tif" for _, second in DUPLICATES}
    for (base, stem), (old, new) in CORRECTED_GRADES.items():
        name = f"{stem}.tif"
        assert (before["grade"][name], after["grade"][name], after["base"][name]) == (old, new, base)
    changed = [name for name in after.index if before["label"][name] != after["label"][name]]
    assert changed == ["20051020_63045_0100_PP.tif"]
    for first, second in DUPLICATES:  # the stand-in's pairs show the same photograph, as the errata say
        assert (messidor / f"Base33/{first}.tif").read_bytes() == (messidor / f"Base33/{second}.tif").read_bytes()
    names = [name for pair in DUPLICATES for name in pair]
    assert len(set(names)) == 26


def test_errata_of_corrected_and_cleaned_folders(tmp_path):
    """Tables with the corrected grades, and folders where one of a pair was deleted, keep what they have."""
    folder = write_messidor(tmp_path, 1, height=48, bases=["Base13", "Base33"], errata=True)
    path = folder / "Annotation_Base13.csv"
    pd.read_csv(path).replace({"Retinopathy grade": {2: 3}}).to_csv(path, index=False)
    path = folder / "Annotation_Base33.csv"
    table = pd.read_csv(path)
    gone = [f"{first}.tif" for first, _ in DUPLICATES]
    table[~table["Image name"].isin(gone)].to_csv(path, index=False)
    for name in gone:
        (folder / "Base33" / name).unlink()
    table = messidor_table(folder, bases=["Base13", "Base33"])
    assert table["grade"].tolist()[:2] == [0, 3]
    assert (table["base"] == "Base33").sum() == 1 + 13


def test_spreadsheets_are_read_like_csv(tmp_path):
    pytest.importorskip("xlrd", reason="xlrd is not installed")
    csv, xls = (write_messidor(tmp_path / t, bases=BASES[:2], height=48, tables=t) for t in ("csv", "xls"))
    assert sorted(path.suffix for path in xls.glob("Annotation*")) == [".xls"] * 2
    a, b = (messidor_table(folder, bases=BASES[:2]).drop(columns="path") for folder in (csv, xls))
    pd.testing.assert_frame_equal(a, b, check_dtype=False)


def test_spreadsheets_go_through_xlrd(one, monkeypatch):
    path = one / "Annotation_Base21.csv"
    table = pd.read_csv(path)
    path.rename(path.with_suffix(".xls"))
    asked = []
    monkeypatch.setattr(
        pd, "read_excel", lambda file, engine, **options: asked.append((file.getvalue(), engine)) or table
    )
    assert len(messidor_table(one, bases=["Base21"])) == 4
    assert asked == [(path.with_suffix(".xls").read_bytes(), "xlrd")]
    monkeypatch.setitem(sys.modules, "xlrd", None)
    with pytest.raises(ImportError, match=r"xls needs xlrd: pip install 'samil-lite\[retina\]', or save .* as .csv"):
        messidor_table(one, bases=["Base21"])


def test_tables_beside_their_images_and_updated_ones(one):
    path = one / "Annotation_Base21.csv"
    expected = messidor_table(one, bases=["Base21"])
    path.rename(one / "Base21" / "Annotation Base21.csv")
    pd.testing.assert_frame_equal(messidor_table(one, bases=["Base21"]), expected)
    table = pd.read_csv(one / "Base21" / "Annotation Base21.csv").assign(**{"Retinopathy grade": 3})
    table.to_csv(one / "Annotation_Base21_update20161024.csv", index=False)
    assert messidor_table(one, bases=["Base21"])["grade"].tolist() == [3] * 4


def test_converted_images_and_natural_order(one):
    table = pd.read_csv(one / "Annotation_Base21.csv")
    table.loc[0, "Image name"] = "20052010_10_0200_PP.tif"
    table.iloc[::-1].to_csv(one / "Annotation_Base21.csv", index=False)
    for path in sorted((one / "Base21").iterdir()):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    (one / "Base21" / "20052010_1_0200_PP.png").rename(one / "Base21" / "20052010_10_0200_PP.png")
    (one / "Base21" / "Thumbs.db").write_bytes(b"")
    names = messidor_table(one, bases=["Base21"])["name"].tolist()
    assert names == [f"20052010_{n}_0200_PP.tif" for n in (2, 3, 4, 10)]
    assert len(load_one(one)) == 4


def test_the_same_twice_and_order_of_bases(messidor):
    a, b = (load(messidor, bases=["Base14", "Base12"]) for _ in range(2))
    assert torch.equal(a.instances, b.instances)
    assert messidor_table(messidor, bases=["Base14", "Base12"])["base"].tolist() == ["Base14"] * 2 + ["Base12"] * 2


def test_folder_from_the_environment(messidor, monkeypatch, tmp_path):
    monkeypatch.setenv("SAMIL_DATA", str(messidor.parent))
    assert len(messidor_table()) == len(messidor_table(messidor))
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"messidor: no such folder. Get the files from https://www.adcis.net"):
        messidor_bags()


NAME = "20052010_2_0200_PP.tif"


def edit(change):
    """Changes the table of the only base."""

    def damage(folder):
        path = folder / "Annotation_Base21.csv"
        change(pd.read_csv(path)).to_csv(path, index=False)

    return damage


def image(change):
    def damage(folder):
        change(folder / "Base21" / NAME)

    return damage


def corrupt(path):
    raw = bytearray(path.read_bytes())
    with Image.open(path) as opened:
        start = opened.tag_v2[273][0]
    raw[start : start + 200] = b"\xff" * 200
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "Base21").rename(f / "Base"), FileNotFoundError, "Base21: no such folder. Get the files from"),
        (lambda f: (f / "Annotation_Base21.csv").unlink(), FileNotFoundError, "Annotation_Base21.xls: no such table"),
        (
            lambda f: (f / "Base21" / "Annotation_Base21.csv").write_text(""),
            ValueError,
            "a second table of Base21 beside .*Annotation_Base21.csv; keep one",
        ),
        (lambda f: (f / "Annotation_Base21.csv").write_text(""), ValueError, "csv is not a readable CSV"),
        (edit(lambda t: t.drop(columns="Retinopathy grade")), ValueError, "csv: no column 'Retinopathy grade', only '"),
        (edit(lambda t: t.iloc[:0]), ValueError, r"20052010_1_0200_PP.tif: not listed in Annotation_Base21.csv"),
        (edit(lambda t: t.replace({"Retinopathy grade": 1}, 4)), ValueError, f"{NAME}: expected a .* 3, got 4"),
        (edit(lambda t: t.replace({"Retinopathy grade": 1}, "x")), ValueError, f"{NAME}: expected a .* 3, got x"),
        (edit(lambda t: pd.concat([t, t.iloc[1:2]])), ValueError, f"{NAME} is listed twice"),
        (edit(lambda t: t.replace(NAME, np.nan)), ValueError, "csv: expected an image name .* row 3 has none"),
        (edit(lambda t: t.replace(NAME, " ")), ValueError, "csv: expected an image name .* row 3 has none"),
        (
            edit(lambda t: t.assign(**{"Retinopathy grade ": 0})),
            ValueError,
            "csv: two columns are called 'Retinopathy grade'",
        ),
        (edit(lambda t: t.drop(index=1)), ValueError, f"{NAME}: not listed in Annotation_Base21.csv"),
        (image(lambda p: p.unlink()), FileNotFoundError, f"{NAME}: no such image; Annotation_Base21.csv lists it"),
        (image(lambda p: p.with_suffix(".png").write_bytes(b"")), ValueError, "the same image is there as"),
        (image(lambda p: p.write_bytes(b"no image")), ValueError, f"{NAME}: cannot be decoded"),
        (image(lambda p: p.write_bytes(p.read_bytes()[:900])), ValueError, f"{NAME}: (truncated|cannot be decoded)"),
        (
            image(lambda p: Image.fromarray(np.full((72, 90), 30_000, np.uint16)).save(p)),
            ValueError,
            f"{NAME}: cannot be decoded: expected 8 bits a channel",
        ),
        (image(corrupt), ValueError, f"{NAME}: cannot be decoded"),
        (
            image(lambda p: Image.fromarray(np.zeros((72, 10, 3), np.uint8)).save(p)),
            ValueError,
            f"{NAME}: 10 × 72 pixels, too small for patches of 24 × 24",
        ),
        (
            image(lambda p: Image.fromarray(np.full((72, 90, 3), 10, np.uint8)).save(p)),
            ValueError,
            f"{NAME}: every patch is more than 70% black",
        ),
    ],
)
def test_broken_files_are_named(one, damage, error, message):
    damage(one)
    with pytest.raises(error, match=message):
        load_one(one)


def test_a_table_of_nothing(one):
    edit(lambda t: t.iloc[:0])(one)
    for path in (one / "Base21").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="csv: no image is listed"):
        load_one(one)


def test_a_grade_that_errata_do_not_know(tmp_path):
    folder = write_messidor(tmp_path, 1, height=48, bases=["Base13"], errata=True)
    path = folder / "Annotation_Base13.csv"
    pd.read_csv(path).replace({"Retinopathy grade": {2: 1}}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="20060523_48477_0100_PP: grade 1, but 2 was published and corrected to 3"):
        load(folder, bases=["Base13"])
    assert len(load(folder, bases=["Base13"], errata=False)) == 2


def test_headers_are_checked_before_anything_is_decoded(one, monkeypatch):
    (one / "Base21" / "20052010_4_0200_PP.tif").write_bytes(b"")
    monkeypatch.setattr(photographs, "_read", lambda path, shape: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"20052010_4_0200_PP.tif: cannot be decoded"):
        load_one(one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size, stride and height: expected at least 1, got 0, 0 and 72"),
        ({"stride": 0}, "size, stride and height: expected at least 1, got 24, 0 and 72"),
        ({"height": 0}, "size, stride and height: expected at least 1, got 24, 24 and 0"),
        ({"max_black": 70}, "max_black: expected a share from 0 to 1 or None, got 70"),
        ({"black_level": -1}, "black_level: expected a value from 0 to 255, got -1"),
        ({"black_level": 256}, "black_level: expected a value from 0 to 255, got 256"),
        ({"bases": ["Base15"]}, "bases: expected names from Base11, .*, Base34, got 'Base15'"),
        ({"bases": ["Base11"] * 2}, "bases: expected at least one name, each once"),
        ({"bases": []}, "bases: expected at least one name, each once"),
    ],
)
def test_bad_arguments_are_named(messidor, options, message):
    with pytest.raises(ValueError, match=message):
        load(messidor, **options)


def test_bad_arguments_of_the_stand_in(tmp_path):
    with pytest.raises(ValueError, match="expected 1 image, 32 pixels or more, csv or xls, got 2, 96, 'xlsx'"):
        write_messidor(tmp_path, tables="xlsx")


def test_real_images():
    root = os.environ.get("SAMIL_DATA")
    if not root or not os.path.isdir(os.path.join(root, "messidor")):
        pytest.skip("the Messidor images are not here; set SAMIL_DATA to the folder that has messidor/")
    table = messidor_table()
    assert len(table) == 1187
    assert len(messidor_bags(bases=["Base11"])) == 100
