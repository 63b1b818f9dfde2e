"""One file of features, in the layouts that tools for whole slides write."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samil_lite.data.arrays import h5_dataset, open_h5, read_npy, read_npz
from samil_lite.files import load_torch

H5, TORCH, NUMPY = (".h5", ".hdf5"), (".pt", ".pth"), (".npy",)
SUFFIXES = (*H5, *TORCH, *NUMPY)
FEATURES = ("features", "feats", "feat", "embeddings", "embedding")  # names that are looked for, in this order
COORDINATES = ("coords", "coordinates", "coord")
BLOCK = 2**22  # numbers that are converted at a time


@dataclass(frozen=True)
class Header:
    """What is known of a file before its numbers are read: size, width, whether it has coordinates, attributes."""

    n: int
    width: int
    has_coordinates: bool
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def patch_size(self) -> float:
        """Side of a patch in the unit of the coordinates, if an attribute tells it, else NaN.

        TRIDENT writes `patch_size_level0`; CLAM `patch_size`, at a level whose `downsample` it gives; STAMP
        `tile_size_um` beside coordinates in micrometres.
        """
        known = self.attributes
        for name in ("patch_size_level0", "tile_size_um"):
            if isinstance(known.get(name), int | float):
                return float(known[name])
        size, scale = known.get("patch_size"), known.get("downsample", math.nan if known.get("patch_level") else 1)
        return float(size) * float(scale) if isinstance(size, int | float) else math.nan


def read_header(path: Path, features: str | None = None, coordinates: str | bool = True) -> Header:
    """Checks a file and reads no features; see `feature_bags` for the arguments.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if it is broken, empty, or in no known layout.
    """
    with _opened(path, features, coordinates) as (x, xy, attributes):
        n, width = _shape(x)
        return Header(n, width, xy is not None, attributes)


def read_into(
    out: Tensor, path: Path, features: str | None, coordinates: str | bool, rows: np.ndarray | None = None
) -> Tensor | None:
    """Reads the features of all rows, or of some in ascending order, into `out`, float32; returns coordinates (n, 2).

    Raises:
        ValueError: if the file is no longer what it was when `out` was made, or coordinates are not finite.
    """
    with _opened(path, features, coordinates) as (x, xy, _):
        shape = _shape(x)
        if (
            (rows is None and shape[0] != len(out))
            or shape[1] != out.shape[1]
            or (rows is not None and rows[-1] >= shape[0])
        ):
            raise ValueError(f"{path} has changed: it had {len(out)} × {out.shape[1]} features, now {shape}")
        _copy(x, rows, out)
        if xy is None:
            return None
        places = torch.empty(len(out), 2)
        _copy(xy, rows, places)
    if not places.isfinite().all():
        raise ValueError(f"{path}: expected finite coords, got NaN or infinity")
    return places


@contextmanager
def _opened(path: Path, features: str | None, coordinates: str | bool) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Features, coordinates (or None) and attributes of an open file, checked; the numbers are read by `_copy`."""
    if path.suffix.lower() in H5:
        with open_h5(path) as file:
            x = _named(path, file, features, FEATURES, "features")
            xy = _named(path, file, coordinates, COORDINATES, "coordinates") if coordinates else None
            _check(path, x, xy)
            yield x, xy, _attributes(file, x, xy)
        return
    x, xy = _from_numpy(path, coordinates) if path.suffix.lower() in NUMPY else _from_torch(path, features, coordinates)
    _check(path, x, xy)
    yield x, xy, {}


def _named(path: Path, file: Any, name: str | bool | None, candidates: Sequence[str], what: str) -> Any:
    """The dataset of this name, or of the first candidate that is there, in the file or in one of its groups."""
    if isinstance(name, str):
        found = h5_dataset(path, file, name)
        if found is None:
            raise ValueError(f"{path}: expected a dataset named {name}, got {_contents(file)}")
        return found
    for candidate in candidates:
        if (found := h5_dataset(path, file, candidate)) is not None:
            return found
        deeper = [
            f"{group}/{candidate}" for group in file if h5_dataset(path, file, f"{group}/{candidate}") is not None
        ]
        if len(deeper) > 1:
            raise ValueError(f"{path}: {' and '.join(deeper)} are there; say which, such as {what}={deeper[0]!r}")
        if deeper:
            return h5_dataset(path, file, deeper[0])
    if what == "features":
        raise ValueError(
            f"{path}: expected a dataset named {' or '.join(candidates)}, got {_contents(file)}; if one of them is "
            "meant, say features='its name'"
        )
    return None


def _contents(file: Any) -> str:
    names = list(map(str, file))
    return ", ".join(names[:20]) + ("" if len(names) <= 20 else f" and {len(names) - 20} more") or "an empty file"


def _from_numpy(path: Path, coordinates: str | bool) -> tuple[Any, Any]:
    return read_npy(path), None


def _from_torch(path: Path, features: str | None, coordinates: str | bool) -> tuple[Any, Any]:
    """A tensor, or a dictionary of tensors under the names that a `.h5` would have."""
    state = load_torch(path, what=" is broken or holds more than tensors")
    if isinstance(state, Tensor):
        return state.detach(), _slideflow(path) if coordinates is True else None
    names: Sequence[str] = (features,) if features else FEATURES
    x = (
        next((state[name] for name in names if isinstance(state.get(name), Tensor)), None)
        if isinstance(state, dict)
        else None
    )
    if x is None:
        what = (
            f"a dictionary of {', '.join(map(str, list(state)[:20]))}"
            if isinstance(state, dict)
            else type(state).__name__
        )
        raise ValueError(
            f"{path}: expected a tensor of features (n, d), or a dictionary that has it as {' or '.join(names)}, got "
            f"{what}; store it anew by torch.save(features, path)"
        )
    places: Sequence[str] = (coordinates,) if isinstance(coordinates, str) else COORDINATES if coordinates else ()
    xy = next((state[name] for name in places if isinstance(state.get(name), Tensor)), None)
    return x.detach(), None if xy is None else xy.numpy()


def _slideflow(path: Path) -> Any:
    """Coordinates that slideflow puts beside a tensor, in `slide.index.npz`."""
    index = path.with_suffix(".index.npz")
    return read_npz(index, ("arr_0",))[0] if index.exists() else None


def _shape(x: Any) -> tuple[int, ...]:
    """Shape (n, d), without the 1 of a batch of one slide."""
    shape = tuple(x.shape)
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


def _check(path: Path, x: Any, xy: Any) -> None:
    shape = _shape(x)
    is_float = x.dtype.is_floating_point if isinstance(x, Tensor) else x.dtype.kind == "f"
    if len(shape) != 2 or 0 in shape or not is_float:
        raise ValueError(f"{path}: expected features of shape (n, d), floating point, got {x.dtype} of shape {shape}")
    if xy is not None and (_shape(xy) != (shape[0], 2) or xy.dtype.kind not in "iuf"):
        raise ValueError(f"{path}: expected coords of shape ({shape[0]}, 2), numbers, got {xy.dtype} of {_shape(xy)}")


def _attributes(*places: Any) -> dict[str, Any]:
    """Numbers and short texts that a file tells of itself; what it says of its coordinates goes first."""
    known: dict[str, Any] = {}
    for place in places:
        for name in place.attrs if place is not None else ():
            found = place.attrs.get_id(name)
            if math.prod(found.shape or ()) > 4 or found.dtype.kind not in "iufbSO":
                continue
            value = np.ravel(place.attrs[name])
            if len(value) == 0 or (value != value[0]).any():
                continue
            one = value[0].item() if isinstance(value[0], np.generic) else value[0]
            one = one.decode(errors="replace") if isinstance(one, bytes) else one
            if isinstance(one, int | float) or (isinstance(one, str) and len(one) <= 200):
                known[str(name)] = one
    return known


def _copy(x: Any, rows: np.ndarray | None, out: Tensor) -> None:
    """Copies rows of a tensor, of an array or of a dataset, a block at a time, so that little is held twice."""
    n, width = _shape(x)
    lead = len(x.shape) == 3
    step = max(1, BLOCK // width)
    if (chunks := getattr(x, "chunks", None)) is not None:  # whole chunks, since each is unpacked as a whole
        step = max(1, step // chunks[lead]) * chunks[lead]
    if rows is not None and (mapped := _mapped(x)) is not None:
        x, step = mapped, n
    at = 0
    for start in range(0, n, step):
        stop = min(n, start + step)
        if rows is None:
            part, count = (x[0, start:stop] if lead else x[start:stop]), stop - start
        else:
            some = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
            if (count := len(some)) == 0:
                continue
            if chunks is not None:
                part = (x[0, start:stop] if lead else x[start:stop])[some - start]
            else:
                part = x[0, some] if lead else x[some]
        out[at : at + count] = part if isinstance(part, Tensor) else _tensor(part)
        at += count


def _tensor(part: np.ndarray) -> Tensor:
    """An array as a tensor of its own type where PyTorch has it, since PyTorch converts faster, else of float32."""
    native = part.dtype.isnative and part.dtype.itemsize <= 8 and part.dtype.kind in "fi" and part.flags.writeable
    return torch.from_numpy(part if native else part.astype(np.float32))


def _mapped(x: Any) -> np.ndarray | None:
    """A dataset that lies in its file in one piece, mapped to memory, so that only the chosen rows are read."""
    if not hasattr(x, "id"):
        return None
    place = x.id.get_offset()
    if place is None or x.id.get_create_plist().get_nfilters():
        return None
    return np.memmap(x.file.filename, x.dtype, "r", place, x.shape)
