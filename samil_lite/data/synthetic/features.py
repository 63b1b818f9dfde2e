"""Synthetic stand-ins in the layouts of feature files and of musk: random numbers with a planted signal."""

from pathlib import Path

import numpy as np

from samil_lite.arguments import at_least, checked
from samil_lite.data.musk import COUNTS, WIDTH
from samil_lite.extras import from_extra

FORMATS = ("h5", "pt", "mixed")


@checked(n_bags=at_least(1), width=at_least(1), mean_size=at_least(2), seed=at_least(0))
def write_features(
    folder: str | Path,
    n_bags: int = 8,
    width: int = 16,
    mean_size: int = 30,
    format: str = "h5",  # noqa: A002, the word that pandas and PIL use
    shift: float = 3.0,
    seed: int = 0,
) -> Path:
    """Writes a synthetic stand-in for the extracted features of a few slides. Not real data.

    Each slide has patches on a square grid of 256 pixels and standard normal features. In a slide labelled "tumor" a
    round group of about one patch in eight, at least one, has its first four features shifted: next to each other, as
    a tumour would be. Slides come in pairs of one patient and one label. Files: one for each slide;
    `labels.csv` with slide_id, label, patient; `planted.csv` with slide_id and row of each shifted patch.

    Args:
        folder: where to write; made if it is not there.
        n_bags: number of slides.
        width: number of features, at least 4.
        mean_size: patches in a slide; they vary from half of it to one and a half times.
        format: "h5" (features and coords), "pt" (a tensor of features), or "mixed", one and the other in turn.
        shift: of the planted patches, in standard deviations.
        seed: the same seed gives the same numbers.

    Returns:
        The folder.

    Raises:
        ValueError: if an argument is not as above.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if n_bags < 1 or width < 4 or mean_size < 2:
        raise ValueError(f"n_bags, width, mean_size: expected at least 1, 4 and 2, got {n_bags}, {width}, {mean_size}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    labels, planted = ["slide_id,label,patient"], ["slide_id,instance"]
    for b in range(n_bags):
        name, patient = f"slide_{b + 1}", b // 2
        coords, features, chosen = one_slide(rng, mean_size, 256, width, shift if patient % 2 else None)
        planted += [f"{name},{row}" for row in chosen]
        labels.append(f"{name},{'tumor' if patient % 2 else 'normal'},patient_{patient + 1}")
        as_h5 = format == "h5" or (format == "mixed" and b % 2 == 0)
        (_write_h5 if as_h5 else _write_pt)(folder / name, features, coords)
    (folder / "labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (folder / "planted.csv").write_text("\n".join(planted) + "\n", encoding="utf-8")
    return folder


@checked(seed=at_least(0))
def write_musk(folder: str | Path, number: int = 1, shift: float = 150.0, seed: int = 0) -> Path:
    """Writes a synthetic stand-in for musk1 or musk2. Not real data, but of the same shape and number of bags.

    Rows are random integers; the first row of each positive bag is shifted in its first ten columns.

    Args:
        folder: where to write `musk1.npz` or `musk2.npz`; made if it is not there.
        number: 1 or 2.
        shift: of the planted rows; the deviation of a column is 70.
        seed: the same seed gives the same numbers.

    Returns:
        The folder.
    """
    n_bags, n_positive, n = COUNTS[number]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    bag = np.sort(np.concatenate([np.arange(n_bags), rng.randint(0, n_bags, n - n_bags)]))
    rows = np.rint(70 * rng.standard_normal((n, WIDTH)))
    rows[np.searchsorted(bag, np.arange(n_positive)), :10] += shift
    y = (np.arange(n_bags) < n_positive).astype(np.int8)
    np.savez_compressed(folder / f"musk{number}.npz", X=rows.astype(np.int16), bag=bag.astype(np.int32), y=y)
    return folder


def one_slide(
    rng: np.random.RandomState, mean_size: int, side: int, width: int, shift: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the patches of a slide, (n, 2), their features, (n, width), and the rows that `shift` has moved."""
    n = rng.randint(mean_size // 2, mean_size + mean_size // 2 + 1)
    coords = side * _grid(rng, n)
    features = rng.standard_normal((n, width)).astype(np.float32)
    if shift is None:
        return coords, features, np.array([], dtype=int)
    distance = ((coords - coords[rng.randint(n)]) ** 2).sum(1)
    chosen = np.sort(np.argsort(distance, kind="stable")[: max(1, n // 8)])
    features[chosen, :4] += np.float32(shift)
    return coords, features, chosen


def _grid(rng: np.random.RandomState, n: int) -> np.ndarray:
    """Column and row of n different cells of a square grid that they fill by about two thirds, row after row."""
    side = int(np.ceil(np.sqrt(1.5 * n)))
    cells = np.sort(rng.permutation(side**2)[:n])
    return np.stack([cells % side, cells // side], 1)  # (n, 2)


def _write_h5(path: Path, features: np.ndarray, coords: np.ndarray) -> None:
    with from_extra("features", "writing .h5 files needs h5py"):
        import h5py

    with h5py.File(path.with_name(path.name + ".h5"), "w") as file:
        file["features"] = features
        file["coords"] = coords


def _write_pt(path: Path, features: np.ndarray, coords: np.ndarray) -> None:
    import torch

    torch.save(torch.from_numpy(features), path.with_name(path.name + ".pt"))
