"""Damages files of every format that is read and watches what the readers do: make fuzz.

Each damaged file is read in a child process, so that a crash, a hang or a hunger for memory ends the child and is
counted. `test_fuzz.py` does the same with few files.
"""

import argparse
import random
import resource
import selectors
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTING = 1200  # seconds until a child has imported what it needs, on a machine with much else to do
SECONDS = 60  # for one file, which takes a few milliseconds
BYTES = 2**31  # of memory, beside what the imports took
NUMBERS = (
    0,
    1,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63,
    2**64 - 1,
)
WORDS = (b"nan", b"-1", b"1e999", b"", b",", b";", b'"', b"\0", b"\xff", b"\n", b"9" * 400, b"inf", b"None", b"=1+1")
BAD = ("crash", "hang", "unnamed", "silent")


@dataclass(frozen=True)
class Format:
    """How a file is written, which one is damaged, and how it is read."""

    file: str  # below the folder
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    checked: bool = False  # whether the format has a sum by which damage to the numbers shows


def formats() -> dict[str, Format]:
    import h5py
    import numpy as np
    import torch
    from PIL import Image
    from scipy.io import savemat
    from tifffile import imwrite

    import samil_lite as sl
    from samil_lite.data import arrays, images, musk
    from samil_lite.data.synthetic import write_colon, write_difas, write_features, write_messidor, write_musk
    from samil_lite.files import load_torch, read_gzip

    rng = np.random.RandomState(0)
    x, xy = rng.standard_normal((30, 8)).astype(np.float32), rng.randint(0, 9, (30, 2))
    rgb = rng.randint(0, 255, (24, 32, 3)).astype(np.uint8)

    def h5(folder: Path, version: str, **options: Any) -> None:
        write_features(folder, 2, 8, 6)
        with h5py.File(folder / "slide_1.h5", "w", libver=version) as file:
            file.create_dataset("features", data=x, **options)
            file.create_dataset("coords", data=xy)
            file["coords"].attrs.update(patch_size_level0=512, target_magnification=20, name="slide")

    def features(folder: Path) -> Any:
        bags = sl.data.feature_bags(folder, folder / "labels.csv")
        together = bags[:]
        return together.instances, together.coordinates, bags.labels, bags.classes, bags.names

    def torch_file(folder: Path, **options: Any) -> None:
        write_features(folder, 2, 8, 6, format="pt")
        torch.save(torch.from_numpy(x), folder / "slide_1.pt", **options)

    def torch_features(folder: Path) -> None:
        write_features(folder, 2, 8, 6, format="pt")
        torch.save({"feats": torch.from_numpy(x), "coords": torch.from_numpy(xy)}, folder / "slide_1.pt")

    def npy_features(folder: Path) -> None:
        write_features(folder, 2, 8, 6)
        (folder / "slide_1.h5").unlink()
        np.save(folder / "slide_1.npy", x[None])

    def saved(folder: Path) -> None:
        sl.save(sl.build("gsa-abmilp", torch.nn.Linear(8, 6), dim=6), folder / "model.sl", classes=("a", "b"))

    def mat(folder: Path, compressed: bool) -> None:
        write_colon(folder, 1, 40, 6)
        path = next(folder.rglob("img1_epithelial.mat"))
        path.rename(folder / "was.mat")
        savemat(path, {"note": "text", "detection": rng.uniform(5, 30, (9, 2))}, do_compression=compressed)

    def colon(folder: Path) -> Any:
        bags = sl.data.colon_bags(folder, 9)
        return bags.instances, bags.coordinates, bags.labels

    def image(folder: Path, name: str, **options: Any) -> None:
        Image.fromarray(rgb).save(folder / name, **options)

    def retina(folder: Path) -> Any:
        bags = sl.data.messidor_bags(folder, 24, height=32, bases=["Base11"], progress=False)
        return bags.instances, bags.labels

    def fungi(folder: Path) -> Any:
        bags = sl.data.difas_bags(folder, 8, 3, species=["CA"], progress=False)
        return bags.instances, bags.coordinates

    def trained(folder: Path, epochs: int) -> Any:
        torch.manual_seed(0)
        bags = sl.Bags.from_list([torch.from_numpy(x[:5]), torch.from_numpy(x[5:])], [0, 1])
        model = sl.build("abmilp", torch.nn.Identity(), dim=8, hidden=4)
        history = sl.fit(model, bags, epochs=epochs, progress=False, checkpoint=folder / "run.pt", device="cpu")
        return history.train_loss, list(model.state_dict().values())

    colon_folder = "CRCHistoPhenotypes_2016_04_28/Classification/img1"
    return {
        "h5": Format("slide_1.h5", lambda d: h5(d, "earliest"), features),
        "h5 gzip": Format("slide_1.h5", lambda d: h5(d, "earliest", chunks=(8, 8), compression="gzip"), features),
        "h5 latest": Format("slide_1.h5", lambda d: h5(d, "latest", chunks=(8, 8), fletcher32=True), features),
        "pt": Format("slide_1.pt", torch_file, features),
        "pt old": Format("slide_1.pt", lambda d: torch_file(d, _use_new_zipfile_serialization=False), features),
        "pt dict": Format(
            "a.pt", lambda d: torch.save({"x": [torch.ones(3, 2)]}, d / "a.pt"), lambda d: load_torch(d / "a.pt")
        ),
        "checkpoint": Format("run.pt", lambda d: trained(d, 1), lambda d: trained(d, 2)),
        "pt features": Format("slide_1.pt", torch_features, features),
        "npy features": Format("slide_1.npy", npy_features, features),
        "saved": Format("model.sl", saved, lambda d: list(sl.load(d / "model.sl").state_dict().values()), checked=True),
        "npy": Format("a.npy", lambda d: np.save(d / "a.npy", x), lambda d: arrays.read_npy(d / "a.npy")),
        "npz": Format("musk1.npz", write_musk, lambda d: musk.musk_bags(1, d).instances, checked=True),
        "mat": Format(f"{colon_folder}/img1_epithelial.mat", lambda d: mat(d, False), colon),
        "mat packed": Format(f"{colon_folder}/img1_epithelial.mat", lambda d: mat(d, True), colon, checked=True),
        "bmp": Format(f"{colon_folder}/img1.bmp", lambda d: write_colon(d, 1, 40, 6), colon),
        "png": Format("a.png", lambda d: image(d, "a.png"), lambda d: images.read_rgb(d / "a.png"), checked=True),
        "jpeg": Format("a.jpg", lambda d: image(d, "a.jpg"), lambda d: images.read_rgb(d / "a.jpg")),
        "tiff": Format("a.tif", lambda d: image(d, "a.tif"), lambda d: images.read_rgb(d / "a.tif")),
        "tiff lzw": Format(
            "a.tif", lambda d: image(d, "a.tif", compression="tiff_lzw"), lambda d: images.read_rgb(d / "a.tif")
        ),
        "tiff 16": Format(
            "a.tif",
            lambda d: imwrite(d / "a.tif", rgb.astype(np.uint16), photometric="rgb"),
            lambda d: images.read_rgb(d / "a.tif"),
        ),
        "mask": Format(
            "masks/CA/CA1.png", lambda d: write_difas(d, n_images=2, species=["CA"], masks=True), fungi, checked=True
        ),
        "gzip": Format("a.gz", _gz, lambda d: read_gzip(d / "a.gz"), checked=True),
        "csv": Format("labels.csv", lambda d: write_features(d, 4, 8, 6), features),
        "retina csv": Format("Annotation_Base11.csv", lambda d: write_messidor(d, bases=["Base11"]), retina),
        "retina xls": Format(
            "Annotation_Base11.xls", lambda d: write_messidor(d, bases=["Base11"], tables="xls"), retina
        ),
    }


def _gz(folder: Path) -> None:
    import gzip

    (folder / "a.gz").write_bytes(gzip.compress(bytes(range(256)) * 9, mtime=0))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy that differs in one to four places, more often near the beginning, where headers are."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(min(len(data), rng.choice((64, 1024, len(data) + 1))) or 1)
        end = min(len(data), at + rng.choice((1, 2, 8, 60, 400)))
        size = rng.choice((1, 2, 4, 8))
        number = (rng.choice(NUMBERS) % 256**size).to_bytes(size, rng.choice(("little", "big")))
        some = bytes(rng.randrange(256) for _ in range(size))
        data = rng.choice(
            (
                data[:at] + number + data[at + size :],
                data[:at] + some + data[at + size :],
                data[:at] + bytes(b ^ 1 << rng.randrange(8) for b in data[at : at + 1]) + data[at + 1 :],
                data[:at] + some + data[at:],
                data[:at] + rng.choice(WORDS) + data[end:],
                data[:at] + data[end:],
                data[:at] + bytes(end - at) + data[end:],
                data[:end] + data[at:],
                data[:at],
            )
        )
    return data


def child() -> None:
    """Reads "format<tab>number" lines and answers each with "outcome<tab>details"."""
    known = formats()
    base = Path(tempfile.mkdtemp())  # the parent's folder, which it clears
    good: dict[str, tuple[bytes, Any]] = {}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # some readers print
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name, number = line.rstrip("\n").split("\t")
        one, folder = known[name], base / name.replace(" ", "_")
        path = folder / one.file
        if name not in good:
            folder.mkdir()
            one.write(folder)
            data = path.read_bytes()  # before it is read: a checkpoint grows
            good[name] = data, _digest(one.read(folder))
        data, expected = good[name]
        path.write_bytes(damaged(data, random.Random(f"{name}/{number}")))
        try:
            found = _digest(one.read(folder))
            answer = "same" if found == expected else "silent" if one.checked else "changed"
        except BaseException as error:  # whatever it is, it is counted
            named = isinstance(error, ValueError | OSError) and path.name in str(error)
            answer = "named" if named else f"unnamed\t{type(error).__name__}: {str(error)[:200]!r}"
        print(answer, file=answers, flush=True)


def _digest(value: Any) -> int:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return zlib.crc32(np.ascontiguousarray(value).tobytes() + repr((value.shape, value.dtype)).encode())
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        return zlib.crc32(repr([_digest(part) for part in value]).encode())
    return zlib.crc32(repr(value).encode())


def watch(tasks: list[tuple[str, int]]) -> Iterator[tuple[str, int, str, str]]:
    """Outcomes of tasks, in a child process that is begun anew when it ends or hangs."""
    process = None
    with tempfile.TemporaryDirectory() as folder:
        for name, number in tasks:
            if process is None:
                process = subprocess.Popen(
                    [sys.executable, __file__, "--child"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                    env={**_environment(), "TMPDIR": folder},
                )  # fmt: skip
                assert _line(process, STARTING) == "ready"
            assert process.stdin is not None
            process.stdin.write(f"{name}\t{number}\n")
            process.stdin.flush()
            answer = _line(process, SECONDS)
            if answer in ("hang", ""):
                code = _ended(process)
                process = None
                answer = answer or f"crash\tended with {code}"
            outcome, _, details = answer.partition("\t")
            yield name, number, outcome, details
    if process is not None:
        _ended(process)


def _ended(process: subprocess.Popen[str]) -> int:
    """Exit status of a child, which is killed unless it has ended by itself."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
    with process:
        return process.wait()


def _environment() -> dict[str, str]:
    import os

    root = str(Path(__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": root}


def _line(process: subprocess.Popen[str], seconds: float) -> str:
    """The next line, "" at the end, "hang" if none comes in time."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline().rstrip("\n") if ready.select(seconds) else "hang"


def run(names: list[str], first: int, last: int, workers: int) -> list[tuple[str, int, str, str]]:
    """Outcomes of files `first` to `last` of each format."""
    tasks = [(name, number) for name in names for number in range(first, last)]
    parts = [tasks[i::workers] for i in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        return [one for part in pool.map(lambda part: list(watch(part)), parts) for one in part]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="formats; all if none is named")
    parser.add_argument("--files", type=int, default=250, help="damaged files of each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first, to see one again")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child()
        return 0
    found = run(args.names or list(formats()), args.first, args.first + args.files, args.workers)
    table: dict[str, Counter[str]] = {}
    for name, number, outcome, details in sorted(found):
        table.setdefault(name, Counter())[outcome] += 1
        if outcome in BAD:
            print(f"{name} {number}: {outcome} {details}")
    columns = ("named", "same", "changed", *BAD)
    print(f"{'':12}" + "".join(f"{column:>9}" for column in columns))
    for name, counts in table.items():
        print(f"{name:12}" + "".join(f"{counts[column]:9}" for column in columns))
    total = sum(table.values(), Counter())
    print(f"{'all':12}" + "".join(f"{total[column]:9}" for column in columns))
    # Changed numbers show in no format without a sum; those with one must not let them pass.
    return int(total["crash"] + total["hang"] + total["silent"] > 0 or total["unnamed"] > 0.01 * total.total())


if __name__ == "__main__":
    sys.exit(main())
