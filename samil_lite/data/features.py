"""Feature bags: slides whose patches were turned into features before, read from their files when they are needed."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from samil_lite.arguments import checked
from samil_lite.bags import Bags, Key, chosen_bags
from samil_lite.data.layouts import Header, read_into
from samil_lite.data.layouts import read_header as _header
from samil_lite.data.matching import Files, stripped
from samil_lite.fingerprint import digest
from samil_lite.tables import check_columns, is_missing, names_in, number_classes, read_table

LISTED = 10  # faults that a message lists


@dataclass(frozen=True, eq=False, repr=False)
class FeatureBags:
    """Bags that stay on disk: indexing reads the files of the chosen bags, and nothing else is kept.

    Made by `feature_bags`. `fit`, `predict` and `evaluate` take it in place of `Bags`. With PyTorch's loader say how
    bags become a batch: `DataLoader(bags, batch_size=4, collate_fn=sl.Bags.cat, num_workers=2)`.

    Attributes:
        names: of the bags: those of the files without their endings, or those of the patients.
        sizes: number of instances of each bag, shape (B,).
        width: number of features, d.
        labels: integers, shape (B,); None if no label column was named.
        classes: names of the classes 0, 1, …; None if the labels are their numbers.
        table: the rows of the table, one for each bag (of several files, that of the first), in the same order.
        paths: of the files, F in all, bag by bag.
        file_sizes: number of instances of each file, shape (F,).
        files_of_bag: number of files of each bag, shape (B,); 1 unless files were merged.
        with_coordinates: which files have coordinates, shape (F,).
        attributes: what each file tells of itself, such as its magnification: a row for each file.
        patch_sizes: side of a patch of each file in the unit of its coordinates, shape (F,); NaN if it does not say.
        skipped: the rows that were left out, and why: columns `bag` and `reason`.
    """

    names: tuple[str, ...]
    sizes: Tensor
    width: int
    labels: Tensor | None
    classes: tuple[str, ...] | None
    table: pd.DataFrame
    paths: tuple[Path, ...]
    file_sizes: Tensor
    files_of_bag: Tensor
    with_coordinates: Tensor
    attributes: pd.DataFrame
    patch_sizes: Tensor
    skipped: pd.DataFrame
    _datasets: tuple[str | None, str | bool]

    read_ahead = True  # reading draws no random numbers: `fit` reads the next bags while the current ones compute

    @property
    def has_coordinates(self) -> bool:
        """Whether every file has coordinates. A batch has them if all of its files do."""
        return bool(self.with_coordinates.all())

    @property
    def n_instances(self) -> int:
        """Number of instances in all bags, N."""
        return int(self.sizes.sum())

    def __len__(self) -> int:
        """Number of bags, B."""
        return len(self.names)

    def __getitem__(self, key: Key) -> Bags:
        """Reads the chosen bags: an integer, a slice, integers, a mask, a name or names, as for `Bags`.

        Raises:
            IndexError: if a number is out of range, no bag is chosen, or none has a name.
            ValueError: if a file holds NaN or infinity, or is no longer what it was; the message names it.
        """
        return self.read(chosen_bags(key, len(self), names=self.names))

    def read(self, chosen: Tensor, kept: Tensor | None = None) -> Bags:
        """Reads the chosen bags, or some of their instances: of files in one piece, no others are read.

        Args:
            chosen: numbers of bags, shape (b,).
            kept: which of their instances, one bag after the other, shape (n,), at least one of each bag; None: all.
        """
        files = [f for b in chosen.tolist() for f in self._files(b)]
        sizes = self.file_sizes[files]
        rows = [None] * len(files) if kept is None else [k.nonzero()[:, 0].numpy() for k in kept.split(sizes.tolist())]
        counts = sizes if kept is None else torch.tensor([len(row) for row in rows])  # type: ignore[arg-type]
        x = torch.empty(int(counts.sum()), self.width)
        xy = torch.empty(len(x), 2) if self.with_coordinates[files].all() else None
        for f, row, begin, n in zip(files, rows, (counts.cumsum(0) - counts).tolist(), counts.tolist(), strict=True):
            part = x[begin : begin + n]
            if n == 0:
                continue
            names, coordinates = self._datasets
            places = read_into(part, self.paths[f], names, coordinates if xy is not None else False, row)
            if not (part.sum().isfinite() or part.isfinite().all()):  # a finite sum has finite parts, and is fast
                broken = int((~part.isfinite()).any(1).nonzero()[0])
                broken = broken if row is None else int(row[broken])
                raise ValueError(
                    f"{self.paths[f]}: expected finite values, but instance {broken} holds NaN or infinity"
                )
            if xy is not None:
                if places is None:
                    raise ValueError(f"{self.paths[f]} has changed: it had coordinates")
                xy[begin : begin + n] = places
        ends = counts.cumsum(0)[self.files_of_bag[chosen].cumsum(0) - 1]
        labels = None if self.labels is None else self.labels[chosen]
        offsets = torch.cat([ends.new_zeros(1), ends])
        own = [self.names[b] for b in chosen.tolist()]
        return Bags(x, offsets, labels, coordinates=xy, names=own, classes=self.classes)

    def _files(self, b: int) -> range:
        end = int(self.files_of_bag[: b + 1].sum())
        return range(end - int(self.files_of_bag[b]), end)

    def __iter__(self) -> Iterator[Bags]:
        return (self[b] for b in range(len(self)))

    def split(self, x: Tensor) -> list[Tensor]:
        """Cuts a tensor with one row for each instance into one tensor for each bag, as for attention weights."""
        if len(x) != self.n_instances:
            raise ValueError(f"x: expected {self.n_instances} rows, one for each instance, got {len(x)}")
        return list(x.split(self.sizes.tolist()))

    def subset(self, key: Key) -> "FeatureBags":
        """The chosen bags, still on disk: for folds, where indexing would read them."""
        chosen = chosen_bags(key, len(self), names=self.names).tolist()
        files = [f for b in chosen for f in self._files(b)]
        return replace(
            self,
            names=tuple(self.names[b] for b in chosen),
            sizes=self.sizes[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            table=self.table.iloc[chosen].reset_index(drop=True),
            paths=tuple(self.paths[f] for f in files),
            file_sizes=self.file_sizes[files],
            files_of_bag=self.files_of_bag[chosen],
            with_coordinates=self.with_coordinates[files],
            attributes=self.attributes.iloc[files].reset_index(drop=True),
            patch_sizes=self.patch_sizes[files],
        )

    def digest(self) -> str:
        """What tells these bags from others: names, sizes and times of the files, and what their headers say."""
        files = [(path.name, (found := path.stat()).st_size, found.st_mtime_ns) for path in self.paths]
        return digest(files, self.file_sizes, self.files_of_bag, self.width, self.with_coordinates, self._datasets)

    def files(self, b: int) -> pd.DataFrame:
        """The files of one bag: `name`, `size` (its number of instances, in their order in the bag), `patch_size`."""
        files = list(self._files(b))
        return pd.DataFrame(
            {
                "name": [self.paths[f].stem for f in files],
                "size": self.file_sizes[files].tolist(),
                "patch_size": self.patch_sizes[files].tolist(),
            }
        )

    @property
    def patch_size(self) -> Tensor:
        """Side of a patch of each bag in the unit of its coordinates, shape (B,); NaN if not known, or not one size."""
        each = self.patch_sizes.split(self.files_of_bag.tolist())
        return torch.stack([one[0] if (one == one[0]).all() else one.new_tensor(torch.nan) for one in each])

    def group(self, column: str) -> np.ndarray:
        """A column of the table, one value for each bag: the patients, say, that must not be in two folds.

        Raises:
            ValueError: if there is no such column, or a bag has no value in it.
        """
        check_columns(self.table, column)
        values = self.table[column]
        if missing := [name for name, value in zip(self.names, values, strict=True) if is_missing(value)]:
            some = ", ".join(missing[:LISTED])
            raise ValueError(f"column {column!r}: expected a value for each bag, but {some} has none")
        return values.to_numpy()  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        labels = "no labels" if self.labels is None else f"labels {dict(sorted(Counter(self.labels.tolist()).items()))}"
        how_many = int(self.with_coordinates.sum())
        with_coordinates = "with" if self.has_coordinates else f"{how_many or 'no'} files with" if how_many else "no"
        return (
            f"FeatureBags({len(self)} bags of {int(self.sizes.min())} to {int(self.sizes.max())} instances, "
            f"{self.n_instances} in all, {self.width} features, {with_coordinates} coordinates, {labels}, "
            f"in {self.paths[0].parent})"
        )


@checked()
def feature_bags(
    folder: str | Path,
    table: str | Path | pd.DataFrame,
    label: str | None = "label",
    bag: str = "slide_id",
    allow_unlisted: bool = False,
    verify: bool = False,
    *,
    merge: str | None = None,
    classes: Sequence[Any] | None = None,
    missing: str = "error",
    features: str | None = None,
    coordinates: str | bool = True,
) -> FeatureBags:
    """Bags of features that were extracted before, one file for each slide, read when they are needed.

    A bag is a slide, or with `merge` all slides of a patient; an instance is one of its patches; the label is that of
    the bag. Known are the layouts of `CLAM <https://github.com/mahmoodlab/CLAM>`__,
    `TRIDENT <https://github.com/mahmoodlab/TRIDENT>`__, `STAMP <https://github.com/KatherLab/STAMP>`__,
    `slideflow <https://github.com/slideflow/slideflow>`__ and others like them:

    ::

        folder/                      or folder/h5_files/, folder/pt_files/, or folders below it
          slide_1.h5                 features or feats (n, d) or (1, n, d), floating point; coords (n, 2), optional
          slide_2.pt                 or a tensor (n, d), or a dictionary of tensors under these names
          slide_3.npy                or an array (n, d)
        table.csv                    slide_id,label,patient,…

    Coordinates are (x, y) as the file has them; in CLAM's, they are the upper left corner of the patch, in pixels of
    the slide's finest level. A `.pt` file is opened by `torch.load(…, weights_only=True)`, so it runs no code. All
    headers are read here and checked, which takes milliseconds a file; features are read by indexing.

    Give the model a layer of its own, `torch.nn.Sequential(torch.nn.Linear(d, 256), torch.nn.ReLU())`, as CLAM does:
    attention straight on features that take both signs (encoder `torch.nn.Identity()`) can start out turned away from
    the key instances, by the seed, and stay so.

    Args:
        folder: that has the files, `.h5`, `.hdf5`, `.pt`, `.pth` or `.npy`; others are left alone. If it has none
            itself, its `h5_files` is looked into, then `pt_files`, then all folders below it.
        table: path of a CSV file (commas, semicolons or tabs; all columns are read as text), or a data frame. The bags
            come in its order. Blanks around texts do not count.
        label: column of the labels: 0 and 1, or 0 to C - 1, kept as they are; or names, numbered in sorted order. A
            blank, NA, null and the like are a missing label. None: the bags have no labels.
        bag: column of the names, which are those of the files; an ending such as `.svs` and a path do not count.
        allow_unlisted: whether the folder may have files that the table does not list; they are left out.
        verify: whether to read all features and coordinates once, in search of NaN and infinity, which are found in
            training otherwise.
        merge: column, such as the patient's, whose equal values make one bag of several slides. They must have one
            label.
        classes: names or numbers of all classes in the order of their numbers; the last of two is the positive one.
        missing: what happens to rows whose file is missing, broken, empty or of another width, or that have no label:
            "error" lists them all, "skip" leaves them out, with a warning, and lists them in `skipped`.
        features: name of the dataset or of the dictionary's entry, such as "20x/features"; None: features, feats,
            feat, embeddings or embedding, in the file or in one of its groups.
        coordinates: name of the dataset; True: coords, coordinates or coord, if there is one; False: none are read.

    Returns:
        `FeatureBags`, whose `labels`, `group(column)` and `patch_size` are at hand without reading.

    Raises:
        FileNotFoundError: if the folder, the table or the files of rows are not there.
        ValueError: if a column is missing, a name is missing or listed twice, a file is not listed or there twice, a
            label is missing or neither a number nor a name as above, or a file is broken, empty or unlike the others.
        ImportError: if there are `.h5` files and h5py is not installed.
    """
    if missing not in ("error", "skip"):
        raise ValueError(f"missing: expected error or skip, got {missing!r}")
    try:
        bags = _feature_bags(
            Path(folder), table, label, bag, allow_unlisted, merge, classes, missing == "skip", (features, coordinates)
        )
    except (ValueError, FileNotFoundError) as error:
        if isinstance(table, pd.DataFrame) or str(table) in str(error):
            raise
        raise type(error)(f"{error} (table: {table})") from error
    if verify:
        for _ in bags:
            pass
    return bags


def _feature_bags(
    folder: Path,
    table: str | Path | pd.DataFrame,
    label: str | None,
    bag: str,
    allow_unlisted: bool,
    merge: str | None,
    classes: Sequence[Any] | None,
    skip: bool,
    datasets: tuple[str | None, str | bool],
) -> FeatureBags:
    files = Files(folder)
    rows = read_table(table, bag, files)
    check_columns(rows, bag, *[column for column in (label, merge) if column is not None])
    names = names_in(rows[bag])
    if not names:
        raise ValueError("table: expected at least one row, got none")
    paths, found, faults = _found(names, files, datasets)
    if label is not None:
        for name, value in zip(names, rows[label], strict=True):
            if is_missing(value):
                faults.setdefault(
                    name, ValueError(f"column {label!r}: expected a label for each bag, but {name} has none")
                )
    if faults and not skip:
        _raise(faults, len(names))
    faults = {name: faults[name] for name in names if name in faults}
    kept = [name not in faults for name in names]
    if not any(kept):
        _raise(faults, len(names))
    unlisted = files.unlisted(list(paths.values()))
    if unlisted and not allow_unlisted:
        raise ValueError(
            f"{unlisted[0]} is not in the table ({len(unlisted)} file(s) are not); allow_unlisted=True leaves them out"
        )
    skipped = pd.DataFrame({"bag": list(faults), "reason": [str(error) for error in faults.values()]})
    if faults:
        warnings.warn(f"left out {_listed(faults, len(names))}", UserWarning, stacklevel=4)
    rows = rows[kept].reset_index(drop=True)
    good = [name for name in names if name not in faults]
    headers = [found[name] for name in good]
    return _merged(rows, good, [paths[n] for n in good], headers, label, merge, classes, skipped, datasets)


def _found(
    names: list[str], files: Files, datasets: tuple[str | None, str | bool]
) -> tuple[dict[str, Path], dict[str, Header], dict[str, Exception]]:
    """Path and header of the file of each name, and what is wrong with the others; all are looked at."""
    paths: dict[str, Path] = {}
    found: dict[str, Header] = {}
    faults: dict[str, Exception] = {}
    for name in names:
        try:
            paths[name] = files[name]
            found[name] = _header(paths[name], *datasets)
        except (FileNotFoundError, ValueError) as error:
            faults[name] = error
    owners: dict[Path, str] = {}
    for name, path in paths.items():
        if (other := owners.setdefault(path, name)) != name:
            raise ValueError(f"{path}: both {other} and {name} in the table name this file")
    if found:
        width, _ = Counter(header.width for header in found.values()).most_common(1)[0]
        first = next(paths[name] for name, header in found.items() if header.width == width)
        for name, header in found.items():
            if header.width != width:
                faults[name] = ValueError(f"{paths[name]}: expected {width} features as in {first}, got {header.width}")
    return paths, found, faults


def _raise(faults: dict[str, Exception], n: int) -> None:
    """All faults as one error: FileNotFoundError if no more than files are missing, else ValueError."""
    kind = FileNotFoundError if all(isinstance(e, FileNotFoundError) for e in faults.values()) else ValueError
    if len(faults) == 1:
        raise kind(f'{next(iter(faults.values()))}; missing="skip" leaves out such rows')
    raise kind(f'cannot use {_listed(faults, n)}\nmissing="skip" leaves them out')


def _listed(faults: dict[str, Exception], n: int) -> str:
    more = f"\n  and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
    return f"{len(faults)} of {n} rows:\n  " + "\n  ".join(map(str, list(faults.values())[:LISTED])) + more


def _merged(
    rows: pd.DataFrame,
    names: list[str],
    paths: list[Path],
    headers: list[Header],
    label: str | None,
    merge: str | None,
    classes: Sequence[Any] | None,
    skipped: pd.DataFrame,
    datasets: tuple[str | None, str | bool],
) -> FeatureBags:
    """The bags of checked rows: one for each, or for each value of the column `merge`."""
    labels, known = (None, None) if label is None else number_classes(names, rows[label], classes)
    if merge is None:
        order, counts, bag_names = (
            list(range(len(names))),
            [1] * len(names),
            tuple(path.stem if path.stem == stripped(name) else name for path, name in zip(paths, names, strict=True)),
        )
        bag_names = bag_names if len(set(bag_names)) == len(bag_names) else tuple(names)
    else:
        groups: dict[str, list[int]] = {}
        for row, value in enumerate(names_in(rows[merge], repeated=True)):
            groups.setdefault(value, []).append(row)
        order, counts = [row for group in groups.values() for row in group], [len(group) for group in groups.values()]
        bag_names = tuple(groups)
        for value, group in groups.items():
            if labels is not None and len(set(labels[group].tolist())) > 1:
                raise ValueError(
                    f"column {label!r}: the slides of {value} have several labels, {rows[label][group[0]]}, …"
                )
    sizes = torch.tensor([headers[row].n for row in order])
    firsts = (np.cumsum(counts) - counts).tolist()
    chosen = [order[first] for first in firsts]
    with_coordinates = torch.tensor([headers[row].has_coordinates for row in order])
    if with_coordinates.any() and not with_coordinates.all():
        lacking = [names[row] for row, there in zip(order, with_coordinates.tolist(), strict=True) if not there]
        warnings.warn(
            f"{len(lacking)} of {len(order)} files have no coordinates, {', '.join(lacking[:5])}: batches with one of "
            "them have none; coordinates=False leaves out those of all",
            UserWarning, stacklevel=5,
        )  # fmt: skip
    return FeatureBags(
        names=bag_names,
        sizes=torch.stack([part.sum() for part in sizes.split(counts)]),
        width=headers[0].width,
        labels=None if labels is None else labels[chosen],
        classes=known,
        table=rows.iloc[chosen].reset_index(drop=True),
        paths=tuple(paths[row] for row in order),
        file_sizes=sizes,
        files_of_bag=torch.tensor(counts),
        with_coordinates=with_coordinates,
        attributes=pd.DataFrame([headers[row].attributes for row in order]),
        patch_sizes=torch.tensor([headers[row].patch_size for row in order], dtype=torch.float64),
        skipped=skipped,
        _datasets=datasets,
    )
