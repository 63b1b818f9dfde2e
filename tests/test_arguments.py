from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from samil_lite.arguments import above, at_least, between, checked, columns, filled, one_of, shown


@checked(lr=above(0), epochs=at_least(1), level=between(0, 1, ends=False), name=one_of(["dot", "rbf"]), title=filled())
def example(
    x: Tensor | None = None,
    lr: float = 0.1,
    epochs: int = 3,
    level: float | None = None,
    name: str = "dot",
    title: str = "-",
    balanced: bool = True,
    values: Sequence[float] | np.ndarray = (1.0,),
    device: torch.device | str | None = None,
    path: str | Path | None = None,
    encoder: nn.Module | None = None,
) -> dict:
    return {key: value for key, value in locals().items() if value is not None}


NUMBERS = st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=3), st.none(), st.just(object()))


@given(NUMBERS)
def test_a_number_is_taken_or_named(value):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 < value < float("inf"):
        assert example(lr=value)["lr"] == pytest.approx(value)
    else:
        with pytest.raises(ValueError, match=r"^lr: expected a number above 0, got "):
            example(lr=value)


@given(NUMBERS)
def test_a_whole_number_is_taken_or_named(value):
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 1 <= value < float("inf") and value == int(value):
        assert example(epochs=value)["epochs"] == value
        assert type(example(epochs=value)["epochs"]) is int
    else:
        with pytest.raises(ValueError, match=r"^epochs: expected a whole number of at least 1, got "):
            example(epochs=value)


@pytest.mark.parametrize(
    "value", [torch.tensor([1.0, 2.0]), np.array([1, 2]), [1, 2], (1.0, 2.0), pd.Series([1, 2], index=[7, 8])]
)
def test_what_becomes_a_tensor_is_taken(value):
    assert example(value)["x"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": "a"}, r"x: expected a tensor \(dense, of real numbers\) or None, got 'a'"),
        ({"x": [[1], [1, 2]]}, "x: expected a tensor"),
        ({"x": torch.eye(2).to_sparse()}, r"x: .*got a sparse tensor of float32, shape \(2, 2\)"),
        ({"x": torch.zeros(2, dtype=torch.cfloat)}, r"x: .*got a tensor of complex64, shape \(2,\)"),
        ({"level": 95}, "level: expected a number above 0 and below 1 or None, got 95"),
        ({"name": "rbff"}, "name: expected one of dot, rbf, got 'rbff'; did you mean rbf"),
        ({"title": " "}, "title: expected a text that is not empty, got ' '"),
        ({"balanced": "no"}, "balanced: expected True or False, got 'no'"),
        ({"balanced": 1}, "balanced: expected True or False, got 1"),
        ({"values": ["a"]}, "values: expected a list of numbers or an array, got"),
        ({"values": "abc"}, "values: expected a list of numbers"),
        ({"device": "gpu"}, "device: expected a device that this machine has, such as 'cpu' or None, got 'gpu'"),
        ({"path": ""}, "path: expected a path or None, got ''"),
        ({"encoder": nn.Identity}, "encoder: expected a Module or None, got the class Identity itself"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        example(**arguments)


def test_what_fits_is_converted():
    found = example(lr=np.float32(0.5), epochs=torch.tensor(4), level=0.5, balanced=np.bool_(False), path="a/b")
    assert found["lr"] == 0.5
    assert found["epochs"] == 4
    assert found["balanced"] is False
    assert found["path"] == Path("a/b")
    assert example(device="cpu")["device"] == torch.device("cpu")


def test_missing_and_unknown_arguments_are_pythons_own_errors():
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        example(rate=1)
    assert example.__name__ == "example"


def test_a_rule_for_no_argument_is_a_mistake_of_ours():
    @checked(rate=above(0))
    def wrong(lr: float = 1.0) -> None: ...

    with pytest.raises(TypeError, match=r"wrong has no arguments \['rate'\]"):
        wrong(1.0)


def test_missing_columns_are_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"table: expected a column 'label', got labels, n; did you mean 'labels'\?"):
        columns("table", pd.DataFrame({"labels": [1], "n": [2]}), "n", "label")


def test_values_are_shown_short():
    assert shown([1] * 100) == "a list of 100"
    assert shown("x" * 100).endswith("…")
    assert shown(object()) == "an object of type object"
    assert shown(torch.tensor(2.5)) == "a tensor, 2.5"
