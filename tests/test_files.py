"""Hostile files: none is followed outside, starts a program, is waited for, or is given memory that it cannot fill."""

import io
import os
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat

import samil_lite as sl
from samil_lite.data import arrays, download, feature_bags, images, musk_bags
from samil_lite.data.synthetic import write_colon, write_features
from samil_lite.files import load_torch, read_bytes, read_csv, read_gzip
from samil_lite.tables import number_classes
from samil_lite.writing import write_atomically

X, XY = np.ones((3, 8), np.float32), np.zeros((3, 2))
SECRET = 42


@pytest.fixture
def folder(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["features"], file["coords"] = np.full((3, 8), SECRET, "f4"), np.full((3, 2), SECRET)
    (tmp_path / "raw").write_bytes(np.full(100, SECRET, "f4").tobytes())
    return write_features(tmp_path / "features", 4, 8, 6)


def external_link(file, name, folder):
    file[name] = h5py.ExternalLink(str(folder / "secret.h5"), name)


def soft_link(file, name, folder):
    file["other"] = h5py.ExternalLink(str(folder / "secret.h5"), name)
    file[name] = h5py.SoftLink("/other")


def raw_storage(file, name, folder):
    shape = (3, 8 if name == "features" else 2)
    file.create_dataset(name, shape=shape, dtype="f4", external=[(str(folder / "raw"), 0, 400)])


def virtual(file, name, folder):
    shape = (3, 8 if name == "features" else 2)
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), name, shape)
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("make", [external_link, soft_link, raw_storage, virtual])
@pytest.mark.parametrize("name", ["features", "coords"])
def test_hdf5_does_not_point_outside(folder, make, name):
    with h5py.File(folder / "slide_1.h5", "w") as file:
        if name == "coords":
            file["features"] = X
        make(file, name, folder.parent)
    with pytest.raises(ValueError, match=rf"slide_1.h5: (the numbers of )?{name} .*in the file itself"):
        feature_bags(folder, folder / "labels.csv")


def test_a_group_that_is_a_link_is_not_followed(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["20x/features"] = X
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["20x"] = h5py.ExternalLink("secret.h5", "20x")
    with arrays.open_h5(tmp_path / "secret.h5") as file:
        assert arrays.h5_dataset(tmp_path, file, "20x/features").shape == (3, 8)
    with arrays.open_h5(tmp_path / "a.h5") as file, pytest.raises(ValueError, match="link to elsewhere"):
        arrays.h5_dataset(tmp_path, file, "20x/features")


def h5_of_nothing(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", shape=(10**9, 8), dtype="f4", chunks=(1024, 8), **options)


def h5_with_a_large_chunk(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (4, 8), "f4", maxshape=(None, 8), chunks=(2**26, 8), compression="gzip")
        file["features"].id.write_direct_chunk((0, 0), zlib.compress(b"\0" * 128))


def pt_of_one_number(path):
    torch.save(torch.zeros(1, 1).expand(10**9, 8), path)


def pt_of_many_dimensions(path):
    torch.save(torch.zeros(1, 1).expand(10**5, 10**5), path)


def pt_that_is_packed(path):
    whole = io.BytesIO()
    torch.save(torch.zeros(2**25), whole)
    with zipfile.ZipFile(whole) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in good.infolist():
            packed.writestr(entry.filename, good.read(entry))


def pt_of_old_that_lies(path):
    whole = io.BytesIO()
    torch.save(torch.zeros(70_000), whole, _use_new_zipfile_serialization=False)
    number, large = (b"J" + n.to_bytes(4, "little") for n in (70_000, 2**31 - 1))
    assert number in whole.getvalue()
    path.write_bytes(whole.getvalue()[:2000].replace(number, large))


@pytest.mark.parametrize(
    "make",
    [
        h5_of_nothing,
        lambda path: h5_of_nothing(path, compression="gzip"),
        h5_with_a_large_chunk,
        pt_of_one_number,
        pt_of_many_dimensions,
        pt_that_is_packed,
        pt_of_old_that_lies,
    ],
)
def test_features_that_are_declared_larger_than_their_file(folder, make):
    suffix = ".pt" if getattr(make, "__name__", "").startswith("pt") else ".h5"
    path = (folder / "slide_1.h5").with_suffix(suffix)
    (folder / "slide_1.h5").unlink()
    make(path)
    with pytest.raises(ValueError, match=path.name):
        feature_bags(folder, folder / "labels.csv")[0]


def test_sparse_chunks_would_be_zeros(folder):
    """A file whose writing was cut short: what was never written would be read as zeros."""
    with h5py.File(folder / "slide_1.h5", "w") as file:
        file.create_dataset("features", (64, 8), "f4", chunks=(8, 8))[:8] = 1
    with pytest.raises(ValueError, match=r"slide_1.h5: features of shape \(64, 8\) would be 2,048 bytes, but 256"):
        feature_bags(folder, folder / "labels.csv")


def npy(shape: tuple[int, ...], dtype: str, body: bytes) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + body


@pytest.mark.parametrize(
    "data", [npy((10**12,), "<f4", b"\0" * 8), npy((2,), "|O", b"\0" * 16), npy((-1, 2), "<f4", b""), b"\x93NUMPY", b""]
)
def test_numpy_files_that_do_not_hold_what_they_say(tmp_path, data):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.npy is broken"):
        arrays.read_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "musk1.npz", "w") as archive:
        for name in ("X", "bag", "y"):
            archive.writestr(f"{name}.npy", data)
    with pytest.raises(ValueError, match=r"musk1.npz is broken"):
        musk_bags(1, tmp_path)


def test_numpy_files_are_read_as_numpy_does(tmp_path):
    for x in (X, X.T[:2], np.asfortranarray(X), np.arange(3), X.astype(">f8"), np.zeros((0, 4), np.float16)):
        np.save(tmp_path / "a.npy", x)
        np.savez_compressed(tmp_path / "a.npz", x=x, other=x + 1)
        for y in (arrays.read_npy(tmp_path / "a.npy"), *arrays.read_npz(tmp_path / "a.npz", ("x",))):
            assert y.dtype == x.dtype
            np.testing.assert_array_equal(y, x)


def test_archives_that_unpack_to_gigabytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "musk1.npz", "w", zipfile.ZIP_BZIP2) as archive, archive.open("X.npy", "w") as out:
        out.write(npy((2**26,), "<f4", b""))
        for _ in range(2**8):
            out.write(bytes(2**20))
        out.close()
        archive.writestr("bag.npy", npy((0,), "<f4", b""))
        archive.writestr("y.npy", npy((0,), "<f4", b""))
    assert (tmp_path / "musk1.npz").stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"musk1.npz: says that it holds 268,435,\d+ bytes of arrays"):
        musk_bags(1, tmp_path)
    (tmp_path / "a.gz").write_bytes(zlib.compress(bytes(2**22), wbits=31))
    with pytest.raises(ValueError, match=r"a.gz is broken: expected at most 1,000 bytes"):
        read_gzip(tmp_path / "a.gz", most=1000)
    assert read_gzip(tmp_path / "a.gz") == bytes(2**22)


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_files_are_read_as_scipy_does(tmp_path, packed):
    path = tmp_path / "a.mat"
    for x in (X, X[:0], np.zeros((0, 0)), np.arange(6, dtype=np.int16).reshape(3, 2), np.array([[3.5]]), X[None]):
        savemat(path, {"text": "abc", "one": {"part": 1}, "detection": x, "last": X}, do_compression=packed)
        y = arrays.read_mat(path, "detection")
        assert y.shape == x.shape
        np.testing.assert_array_equal(y, loadmat(path)["detection"])


@pytest.mark.parametrize("kind", [0, 8, 10, 14, 15, 17, 0x8000, 2**31, 2**32 - 1])
def test_a_matlab_file_with_any_type_of_element_is_survived(tmp_path, kind):
    """SciPy takes the type for a place in a table of C pointers."""
    savemat(tmp_path / "a.mat", {"detection": np.ones((4, 2))})
    data = bytearray((tmp_path / "a.mat").read_bytes())
    at = data.index(b"detection") + 16
    data[at : at + 4] = kind.to_bytes(4, "little")
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.mat: expected `detection`, a matrix of numbers"):
        arrays.read_mat(tmp_path / "a.mat", "detection")


@pytest.mark.parametrize(
    "read",
    [
        read_bytes,
        read_csv,
        read_gzip,
        load_torch,
        arrays.read_npy,
        lambda path: arrays.read_npz(path, ("x",)),
        lambda path: arrays.read_mat(path, "x"),
        lambda path: arrays.open_h5(path).__enter__(),
        images.image_size,
        images.read_rgb,
    ],
)
def test_pipes_folders_and_devices_are_refused(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        with pytest.raises(ValueError, match=f"{name}: expected a file, got a {name}"):
            read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nothing"):
        read(tmp_path / "nothing")


def test_pipes_in_a_folder_of_features(folder):
    (folder / "slide_1.h5").unlink()
    os.mkfifo(folder / "slide_1.h5")
    with pytest.raises(ValueError, match=r"slide_1.h5: expected a file, got a pipe"):
        feature_bags(folder, folder / "labels.csv")
    os.mkfifo(folder / "table.csv")
    with pytest.raises(ValueError, match=r"table.csv: expected a file, got a pipe"):
        feature_bags(folder, folder / "table.csv")


@pytest.mark.parametrize("name", ["img1.bmp", "img1.png", "img1.tif", "img1.jpg"])
def test_an_image_starts_no_program(tmp_path, monkeypatch, name):
    """Pillow goes by what is inside and hands PostScript to Ghostscript, here a script that leaves a mark."""
    write_colon(tmp_path / "colon", 1, 40, 6)
    path = next(tmp_path.rglob("img1.bmp"))
    path.unlink()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    path.with_name(name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(ValueError, match=rf"{name}: cannot be decoded"):
        sl.data.colon_bags(tmp_path / "colon", 9)
    assert not (tmp_path / "ran").exists()


def png(path: Path, width: int, height: int, bits: int, colour: int, data: bytes) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits_is_not_cut_silently(tmp_path, colour, channels):
    png(tmp_path / "a.png", 8, 8, 16, colour, (b"\0" + bytes([1, 200] * 8 * channels)) * 8)
    with pytest.raises(ValueError, match=r"a.png: .*expected 8 bits a channel"):
        images.read_rgb(tmp_path / "a.png")
    png(tmp_path / "a.png", 8, 8, 8, colour, (b"\0" + bytes([200] * 8 * channels)) * 8)
    assert (images.read_rgb(tmp_path / "a.png") == 200).all()


def test_images_of_more_pixels_than_they_hold(tmp_path):
    png(tmp_path / "a.png", 8000, 8000, 8, 2, b"")
    with pytest.raises(ValueError, match=r"a.png: says that it holds 192,000,000 bytes of pixels in \d+"):
        images.image_size(tmp_path / "a.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b.png: .*expected at most 67,108,864 pixels, got 9000 × 9000"):
        images.read_rgb(tmp_path / "b.png")


@pytest.mark.parametrize("word", ["NA", "N/A", "null", "None", "<NA>", "#N/A", "NULL", " nan ", "?", "", "NaT", "-"])
def test_words_for_a_missing_label_are_no_class(folder, word):
    rows = pd.read_csv(folder / "labels.csv", dtype=str)
    with pytest.raises(ValueError, match="expected a label for each bag, but slide_2 has none"):
        feature_bags(folder, rows.assign(label=["a", word, "b", "a"]))


@pytest.mark.parametrize("text", ["1" * 10**6 + "x", "." + "1" * 10**6 + "x", "1." + "1" * 10**6 + "e", "+" * 10**6])
def test_a_long_label_takes_no_long_time(folder, text):
    """A pattern that backtracks would take hours."""
    rows = pd.read_csv(folder / "labels.csv", dtype=str)
    bags = feature_bags(folder, rows.assign(label=[text, "a", "b", "a"]))
    assert len(bags.classes) == 3


def test_ten_thousand_classes_are_numbered():
    names = [f"c{i}" for i in range(10_000)]
    labels, classes = number_classes(names, pd.Series(names[::-1]))
    assert [classes[i] for i in labels] == names[::-1]


def test_a_full_disk_is_named(tmp_path):
    """A limit on the size of files stands for a disk that ends."""
    path = tmp_path / "run.pt"
    write_atomically(path, lambda file: torch.save({"x": torch.ones(3)}, file))
    before = path.read_bytes()
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from samil_lite.writing import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: write_atomically(Path(sys.argv[1]), lambda file: torch.save({'x': torch.ones(100_000)}, file))\n"
        "except OSError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert f"'{path}'" in done.stdout
    assert "is the disk full?" in done.stdout
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]


@pytest.fixture
def slow_mirror():
    """A mirror that sends a byte now and then, or without end."""
    import http.server

    stop = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            drip = "drip" in self.path
            if "silent" in self.path:
                stop.wait()
            self.send_response(200)
            self.end_headers()
            try:
                while not stop.is_set():
                    self.wfile.write(b"x" if drip else bytes(2**16))
                    self.wfile.flush()
                    stop.wait(0.05 if drip else 0)
            except OSError:
                pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        stop.set()
        server.shutdown()


def test_mirrors_without_end_are_given_up(tmp_path, monkeypatch, slow_mirror):
    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PATIENCE", 1)
    mirrors = [f"{slow_mirror}/{kind}" for kind in ("drip", "silent", "endless")]
    with pytest.raises(OSError, match="cannot get x") as caught:
        download.fetch("set", "x", "0" * 64, mirrors, most=10**6)
    drip, silent, endless = str(caught.value).splitlines()[1:]
    assert "drip: TimeoutError: less than 10,000 bytes a second" in drip
    assert "Timeout" in silent
    assert "endless: OSError: more than 1,000,000 bytes" in endless
    assert not list((tmp_path / "set").iterdir())


def test_a_full_disk_in_a_download_is_named(tmp_path, monkeypatch, slow_mirror):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("SAMIL_DATA", str(tmp_path))
    monkeypatch.setattr(download, "_download", full)
    with pytest.raises(OSError, match=r"No space left on device, while it was downloaded: '.*/set/x'"):
        download.fetch("set", "x", "0" * 64, [slow_mirror, "http://127.0.0.1:1"])
