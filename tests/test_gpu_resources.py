"""What the Triton programs take of cards that are not there; the whole grid is a command, see benchmarks/."""

import json
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from samil_lite.kernels import FORMS

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed (it is for Linux only)")
ROOT = Path(__file__).parents[1]
L1 = "l1_distance"
LIMIT = {
    75: 65_536,
    80: 166_912,
    86: 101_376,
    89: 101_376,
    90: 232_448,
    100: 232_448,
}  # bytes of a block's shared memory
FIELDS = {"arch", "kernel", "function", "values", "d", "d_v", "shared", "registers", "spilled", "mma"}


def test_what_auto_launches_fits_the_cards(tmp_path):
    script = ROOT / "benchmarks" / "gpu_resources.py"
    command = [sys.executable, str(script), "--json", "--sample", "--arch", "75", "89", "100"]
    done = subprocess.run([*command, "--kept", str(tmp_path / "kept")], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout.splitlines()[-1])
    assert {row["arch"] for row in made["rows"]} == {75, 89, 100}
    check(made, spilled=8 if version("triton").startswith("3.6.") else 0)  # 3.6 spills in one function for one card


def test_the_record_fits_the_cards():
    record = json.loads((ROOT / "book" / "results" / "benchmarks" / "gpu_resources.json").read_text())
    assert {row["arch"] for row in record["rows"]} == set(LIMIT)
    assert {(8, 16), (64, 512), (128, 500), (256, 1024)} <= {(row["d"], row["d_v"]) for row in record["rows"]}
    assert {row["kernel"] for row in record["rows"]} == set(FORMS)
    assert {row["values"] for row in record["rows"]} == {"fp32", "bf16", "fp16"}
    check(record)


def check(record: dict, spilled: int = 0) -> None:
    """Everything can be launched and what is launched spills nothing (or so many bytes), and uses tensor cores."""
    for row in record["rows"]:
        assert set(row) == FIELDS
        assert row["shared"] <= LIMIT[row["arch"]], row
        launched = row["arch"] in record["launched"]
        assert row["spilled"] <= spilled or not launched, row
        by_differences = row["function"] in ("gather queries", "gather keys") and FORMS[row["kernel"]].statistic == L1
        assert (row["mma"] > 0) == (launched and not by_differences), row
    assert 75 not in record["launched"]  # no tensor-core product there: "auto" takes blockwise
    assert {(row["d"], row["d_v"]) for row in record["rows"]} == {(r["d"], r["d_v"]) for r in record["multiply_adds"]}
    assert all(1 <= row["over_floor"] <= 1.3 for row in record["multiply_adds"])


def tf32(x: Tensor) -> Tensor:
    """x rounded to the 11 significant bits of TF32, half away from zero, as the hardware does."""
    bits = x.view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def product_of_three(a: Tensor, b: Tensor) -> Tensor:
    """a @ b as tensor cores make it with input_precision="tf32x3": what is rounded off is multiplied too."""
    high_a, high_b = tf32(a), tf32(b)
    low_a, low_b = tf32(a - high_a), tf32(b - high_b)
    return low_a @ high_b + high_a @ low_b + high_a @ high_b


@pytest.mark.parametrize(("n", "scale"), [(200, 0.3), (200, 1.0), (800, 0.5)])
def test_three_tf32_products_are_as_exact_as_float32(n, scale):
    """Attention by the emulated products, beside PyTorch's own in float32, both against float64."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (scale * torch.randn(n, d, generator=generator) for d in (64, 64, 128))
    true = (q.double() @ k.double().T).softmax(1) @ v.double()
    ours = product_of_three(product_of_three(q, k.T.contiguous()).softmax(1), v)
    theirs = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], scale=1.0)[0]
    one = tf32(tf32(q) @ tf32(k).T).softmax(1) @ v
    error = {name: (x - true).abs().max().item() for name, x in {"ours": ours, "theirs": theirs, "one": one}.items()}
    assert error["ours"] <= 1.5 * error["theirs"]
    assert error["one"] > 20 * error["theirs"]  # a single TF32 product would not do
