"""Tables of bags: their columns, names and labels, cleaned in one way wherever a table comes from."""

import re
from collections import Counter
from collections.abc import Container, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from samil_lite.files import read_csv

MISSING = {
    "", "?", "-", "--", "na", "n/a", "<na>", "#n/a", "#na", "nan", "-nan", "null", "none", "nat", "[not available]",
}  # fmt: skip
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)  # matched in linear time


def read_table(table: str | Path | pd.DataFrame, bag: str, known: Container[str] = ()) -> pd.DataFrame:
    """A table with blanks taken off its names and texts, without rows that are blank all over.

    Args:
        table: a data frame, or the path of a CSV file in UTF-8 with commas, semicolons or tabs. All columns of a file
            are read as text, or slide 007 would become 7.
        bag: column that it must have.
        known: names of bags, by which a file without a header is told.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or has not one column `bag`.
    """
    if isinstance(table, pd.DataFrame):
        rows = table.reset_index(drop=True)
    else:
        if not Path(table).exists():
            raise FileNotFoundError(f"table: {table} is not a file; expected a CSV with a row for each bag")
        options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False}
        rows = read_csv(Path(table), **options)
        if bag not in map(_clean, rows.columns):
            header = ",".join(map(str, rows.columns))
            for separator in ";\t|":
                if bag in map(_clean, header.split(separator)):
                    rows = read_csv(Path(table), sep=separator, **options)
                    break
    rows = rows.rename(columns=_clean)
    if bag not in rows.columns and (first := next((c for c in rows.columns if str(c) in known), None)) is not None:
        raise ValueError(
            f"table: expected a header with a column {bag!r}, but the first row is of {first}: "
            f"{', '.join(map(str, rows.columns))}"
        )
    check_columns(rows, bag)
    # Assigned as a whole and by place, since two columns may have one name.
    cleaned = [
        rows.iloc[:, c].map(_clean) if _is_text(rows.iloc[:, c]) else rows.iloc[:, c] for c in range(rows.shape[1])
    ]
    rows = pd.concat(cleaned, axis=1) if cleaned else rows
    blank = rows.map(is_missing).all(axis=1)
    return rows[~blank].reset_index(drop=True)


def check_columns(table: pd.DataFrame, *columns: str) -> None:
    """Raises ValueError unless the table has each of the columns once."""
    for column in columns:
        if (times := list(table.columns).count(column)) != 1:
            which = f"{'one' if times else 'a'} column {column!r}"
            there = list(map(str, table.columns))
            near = get_close_matches(str(column), there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near and not times else ""
            if len(there) == 1 and str(column) in there[0]:
                hint = "; that is one column: separate columns by commas, semicolons, tabs or |"
            raise ValueError(f"table: expected {which}, got {', '.join(there)}{hint}")


def is_missing(value: Any) -> bool:
    """Whether a cell has no value: blank, NaN, or a word such as NA, null or None."""
    return bool(pd.isna(value)) or str(value).strip().lower() in MISSING


def names_in(column: pd.Series, repeated: bool = False) -> list[str]:
    """The names in a column as text.

    Raises:
        ValueError: if a row has none or, unless `repeated`, two have the same.
    """
    names = ["" if is_missing(name) else str(name).strip() for name in column]
    if "" in names:
        raise ValueError(
            f"column {column.name!r}: expected a name in each row, but row {names.index('')} of the table has none"
        )
    doubled = [f"{name} is listed {n} times" for name, n in Counter(names).items() if n > 1]
    if doubled and not repeated:
        raise ValueError(
            f"column {column.name!r}: {_some(doubled)}; leave one row of each, or if these are the slides of a "
            f"patient, give the slides' column as `bag` and say merge={column.name!r}"
        )
    return names


def number_classes(
    names: Sequence[str], column: pd.Series, classes: Sequence[Any] | None = None
) -> tuple[Tensor, tuple[str, ...] | None]:
    """Labels (B,) as numbers, and the names of the classes, or None if the labels are their numbers already.

    With `classes` the first is 0, the second 1, and so on. Without, whole numbers are kept if they are 0 and 1, or 0 to
    C - 1 without a gap, and names are numbered in sorted order.

    Raises:
        ValueError: if a label is missing, is none of `classes`, or numbers and names are mixed, have gaps or
            fractions; what was found is listed.
    """
    label = column.name
    texts = [_label_text(value) for value in column]
    if missing := [name for name, text in zip(names, texts, strict=True) if is_missing(text)]:
        raise ValueError(f"column {label!r}: expected a label for each bag, but {_some(missing)} has none")
    if classes is not None:
        order = [_label_text(one) for one in classes]
        if len(set(order)) != len(order) or not order:
            raise ValueError(f"classes: expected each class once, got {', '.join(order) or 'none'}")
        if unknown := [f"{text} ({name})" for name, text in zip(names, texts, strict=True) if text not in order]:
            raise ValueError(f"column {label!r}: expected the classes {', '.join(order)}, got {_some(unknown)}")
        return _numbers(texts, order), None if order == list(map(str, range(len(order)))) else tuple(order)
    if not any(NUMBER.fullmatch(text) for text in set(texts)):
        order = sorted(set(texts))
        return _numbers(texts, order), tuple(order)
    for text, name in zip(texts, names, strict=True):
        if not re.fullmatch(r"[+-]?\d{1,9}", text):
            raise ValueError(
                f"column {label!r}: expected whole numbers in all rows, or names of classes, got {text!r} for {name}"
            )
    values = sorted({int(text) for text in texts})
    if not set(values) <= {0, 1} and values != list(range(len(values))):
        written = ", ".join(map(str, values[:20]))
        raise ValueError(
            f"column {label!r}: expected classes 0, 1, … without a gap, got {written}; name all that there are, in the "
            f"order of their numbers, such as classes=({written})"
        )
    return torch.tensor([int(text) for text in texts]), None


def parts_of_frame(
    frame: pd.DataFrame,
    bag: str,
    label: str | None,
    features: Sequence[str] | None,
    coordinates: tuple[str, str] | None,
    classes: Sequence[Any] | None,
) -> dict[str, Any]:
    """The fields of `Bags.from_frame`."""
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(f"frame: expected a pandas data frame, got {type(frame).__name__}")
    if isinstance(features, str):
        raise ValueError(f"features: expected a list of columns, got {features!r}; for one column [{features!r}]")
    places = [] if coordinates is None else list(coordinates)
    known = [bag, *([] if label is None else [label]), *places]
    columns = [c for c in frame.columns if c not in known] if features is None else list(features)
    check_columns(frame, *known, *columns)
    if not columns or len(frame) == 0:
        raise ValueError(f"frame: expected rows and columns of features, got {len(frame)} × {len(columns)}")
    names = names_in(frame[bag], repeated=True)
    codes, order_of_names = pd.factorize(np.array(names, dtype=object))  # (N,), numbered as they first appear
    order = torch.from_numpy(codes).argsort(stable=True)
    sizes = torch.from_numpy(codes).bincount()
    labels, named = None, None
    if label is not None:
        each = frame[label].reset_index(drop=True)
        firsts = order[sizes.cumsum(0) - sizes].numpy()
        texts = each.map(_label_text).to_numpy()
        if (other := texts != texts[firsts][codes]).any():
            row = int(other.argmax())
            both = f"{texts[firsts][codes[row]]!r} and {texts[row]!r}"
            raise ValueError(f"column {label!r}: expected one label for each bag, but {names[row]} has {both}")
        labels, named = number_classes(list(map(str, order_of_names)), each.iloc[firsts].rename(label), classes)
    return {
        "instances": _numeric(frame, columns, "features")[order],
        "offsets": torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
        "labels": labels,
        "coordinates": _numeric(frame, places, "coordinates")[order] if places else None,
        "names": list(map(str, order_of_names)),
        "classes": named,
    }


def _numeric(frame: pd.DataFrame, columns: Sequence[str], what: str) -> Tensor:
    """Columns of finite numbers as float32, shape (N, columns)."""
    for column in columns:
        if not pd.api.types.is_numeric_dtype(frame[column]) or pd.api.types.is_complex_dtype(frame[column]):
            raise ValueError(
                f"column {column!r}: expected numbers, got {frame[column].dtype}; name the {what} to leave it out"
            )
    x = frame[list(columns)].to_numpy(np.float32, na_value=np.nan)
    if (broken := ~np.isfinite(x)).any():
        row, column = np.argwhere(broken)[0]
        raise ValueError(f"column {columns[column]!r}: expected finite numbers, but row {row} has {x[row, column]}")
    return torch.tensor(x)


def _numbers(texts: Sequence[str], order: Sequence[str]) -> Tensor:
    number_of = {text: number for number, text in enumerate(order)}
    return torch.tensor([number_of[text] for text in texts])


def _label_text(value: Any) -> str:
    """A label as text; 1.0, as columns with gaps are read, is 1."""
    text = "" if pd.isna(value) else str(value).strip()
    return text[:-2] if re.fullmatch(r"[+-]?\d{1,9}\.0", text) else text


def _clean(value: Any) -> Any:
    return value.strip().removeprefix("\ufeff") if isinstance(value, str) else value


def _is_text(column: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column))


def _some(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
