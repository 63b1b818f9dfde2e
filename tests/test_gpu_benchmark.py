"""What benchmarks/gpu.sh compares with and what the book makes of its record; the script itself needs a card."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import samil_lite as sl

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("kernel", ["dot", "rbf", "inverse_quadratic", "module"])
def test_peers_compute_the_same(kernel, monkeypatch):
    import gpu_peers
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(gpu_peers, "compiled", lambda: flex_attention)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (0.3 * torch.randn(40, width, generator=generator) for width in (16, 16, 128))
    expected = sl.kernel_attention(q, k, v, kernel, 1.0)
    torch.testing.assert_close(gpu_peers.flex(q, k, v, kernel), expected, rtol=1e-4, atol=1e-5)
    if kernel == "dot":
        torch.testing.assert_close(gpu_peers.flash(q, k, v), expected, rtol=1e-4, atol=1e-5)
    else:
        assert (expected - sl.kernel_attention(q, k, v, "dot")).abs().max() > 1e-3


@pytest.fixture
def record():
    row = {"way": "auto", "kernel": "rbf", "n": 4096, "values": "float32"}
    return {
        "card": "Invented 9000", "commit": "0123456789", "versions": {"torch": "9.9"},
        "tests": {"passed": 60, "failed": 1, "ended": True},
        "chapters": {"01_bags": 90.0, "02_pooling": None},
        "rows": [
            {"way": "a step", "seconds": 0.25, "megabytes": 2048},
            {**row, "seconds": 0.3, "megabytes": 512, "floor": 0.2},
            {**row, "n": 16384, "seconds": 4.0, "megabytes": 1024, "floor": 3.2},
            {"way": "flex", "kernel": "dot", "n": 4096, "values": "bfloat16", "error": "NotImplementedError: not here"},
        ],
    }  # fmt: skip


def test_a_record_of_a_card_is_a_table(record, tmp_path):
    import gpu_records

    (tmp_path / "gpu_invented_9000.json").write_text(json.dumps(record))
    (tmp_path / "gpu_resources.json").write_text(json.dumps({"rows": []}))  # of no card
    assert gpu_records.gpu_records(tmp_path) == [record]
    lines = gpu_records.card_lines(record)
    assert "**Invented 9000**, PyTorch 9.9, commit 01234567. Tests on the card: 60 passed, 1 failed." in lines
    assert "- a step: 0.25\u00a0s, 2\u00a0GB" in lines
    assert "- chapters run from start to end: 1 in 90\u00a0s, 2 stopped" in lines
    assert lines[-4:] == [
        "| Way | Kernel | Values | 4,096 | 16,384 |",
        "|---|---|---|---|---|",
        "| auto | rbf | float32 | 0.3\u00a0s, 0.5\u00a0GB, 1.5\u00a0× floor | 4\u00a0s, 1\u00a0GB, 1.2\u00a0× floor |",
        "| flex | dot | bfloat16 | failed: NotImplementedError | — |",
    ]


def test_without_a_record_nothing_is_said(tmp_path):
    import gpu_records

    assert gpu_records.gpu_records(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it would run")
def test_without_a_card_the_script_says_so():
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no graphics card here that PyTorch finds; --quick --device cpu tries the script" in done.stderr


def test_slides_of_a_folder(tmp_path):
    import gpu
    import numpy as np

    with pytest.raises(ValueError, match="--slides: expected a folder with features of slides"):
        gpu.slide_features(tmp_path)
    for name, n in (("a", 3), ("b", 5)):
        np.save(tmp_path / f"{name}.npy", np.ones((n, 4), dtype=np.float16))
    assert [tuple(x.shape) for x in gpu.slide_features(tmp_path)] == [(3, 4), (5, 4)]
    gpu.training(gpu.slide_features(tmp_path), "cpu")()
