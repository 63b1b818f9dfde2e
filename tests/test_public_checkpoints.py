"""Logits and attention of the public code, run on weights and inputs that both sides draw from the same seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import samil_lite as sl

CASES = json.loads((Path(__file__).parent / "public_checkpoints.json").read_text())


def state_of(case):
    """Normal numbers by the place of each tensor, over the square root of what goes into one output."""
    state = {}
    for i, (name, shape) in enumerate(case["tensors"].items()):
        fan = max(1, int(np.prod(shape[1:])) if len(shape) > 1 else 2)
        scale = (0.03 if "query" in name or "key" in name else 1) * (2 / fan) ** 0.5  # near 0 all kernels differ
        state[name] = torch.from_numpy(np.random.RandomState(i).standard_normal(shape) * scale).float()
    return state


def bag_of(case):
    shape = case["input"]
    powers = np.linspace(0.2, 6, shape[0]).reshape(-1, *[1] * (len(shape) - 1))  # so that instances differ
    return sl.Bags.from_list([torch.from_numpy(np.random.RandomState(99).random_sample(shape) ** powers).float()])


@pytest.mark.parametrize("name", CASES)
def test_the_same_logits_and_attention(name, tmp_path):
    case = CASES[name]
    torch.save(state_of(case), tmp_path / "s.pt")
    model = sl.load_public(tmp_path / "s.pt", kernel=case["kernel"])
    output = sl.predict(model, bag_of(case))
    torch.testing.assert_close(output.logits.flatten(), torch.tensor(case["logits"]), atol=2e-5, rtol=2e-6)
    torch.testing.assert_close(output.attention, torch.tensor(case["attention"]), atol=5e-6, rtol=0)
    again = sl.load(sl.save(model, tmp_path / "s.safetensors"))
    assert torch.equal(sl.predict(again, bag_of(case)).logits, output.logits)


def test_the_stored_examples_tell_kernels_apart():
    logits = {case["kernel"]: case["logits"][0] for name, case in CASES.items() if "CNN.py " in name}
    assert len(logits) == 4
    assert min(abs(a - b) for k, a in logits.items() for other, b in logits.items() if k != other) > 2e-4


def test_what_is_no_public_checkpoint(tmp_path):
    sa, clam, cnn = (
        CASES[name] for name in ("Kernel_SA-AbMILP, model.py", "CLAM_SB, small, gated", "Kernel_SA-AbMILP, CNN.py")
    )
    with pytest.raises(ValueError, match="which this state does not tell, got None"):
        sl.load_public(state_of(sa))
    with pytest.raises(ValueError, match="got 'laplace'"):
        sl.load_public(state_of(sa), kernel="laplace")
    with pytest.raises(ValueError, match="has no self-attention"):
        sl.load_public(state_of(cnn), kernel="rbf")
    state = state_of(clam)
    mb = {"classifiers.0.weight": state.pop("classifiers.weight"), **state}
    with pytest.raises(ValueError, match="CLAM_MB"):
        sl.load_public(mb)
    with pytest.raises(ValueError, match="does not fit a known model: extra"):
        sl.load_public({**state_of(cnn), "extra": torch.zeros(2)})
    two = state_of(cnn)
    for name in ("attention.2.weight", "classifier.0.weight"):
        two[name] = torch.cat([two[name]] * 2, 0 if name.startswith("attention") else 1)
    with pytest.raises(ValueError, match=r"this state has 2 attention branches \(K = 2\); models here have one"):
        sl.load_public(two)
    with pytest.raises(ValueError, match=r"expected attention.0.weight"):
        sl.load_public({"x": torch.zeros(2)})
    (tmp_path / "x.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="without running code"):
        sl.load_public(tmp_path / "x.pt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sl.load_public(tmp_path / "nowhere.pt")
