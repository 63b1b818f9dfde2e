"""Where β goes on a bag whose answer can be counted by hand."""

import pytest
import torch
from torch import nn

import samil_lite as sl
from samil_lite.experiments import nuclei

PLACES = torch.tensor([[0.0, 0], [0, 10], [0, 60], [0, 120]])  # distances from the first: 10, 60, 120
KINDS = torch.tensor([1, 1, 0, 1])


@pytest.fixture
def bag() -> sl.Bags:
    return sl.Bags.from_list([torch.randn(4, 16)], [1], [KINDS], [PLACES])


def model(kernel: str) -> nn.Module:
    torch.manual_seed(0)
    return sl.build("sa-abmilp", nn.Identity(), dim=16, gamma=1, kernel=kernel).eval()


def test_even_weights_are_one_everywhere(bag):
    even = model("dot")
    nn.init.zeros_(even.self_attention.W_q.weight)
    found = nuclei.neighbours(even, bag)
    assert found["to_kind"] == [1]
    sums, pairs = (torch.tensor(found["decay"][name]).float() for name in ("sums", "pairs"))
    assert torch.equal(sums, pairs)
    # Queries 0, 1, 3 with keys of their kind at 10, 120; 10, 110; 120, 110; and with the other one at 60, 50, 60.
    assert pairs.tolist() == [[2, 0, 0, 4, 0, 0, 0, 0], [0, 1, 2, 0, 0, 0, 0, 0]]


def test_sums_are_those_of_a_loop(bag):
    laplace = model("laplace")
    beta = laplace(bag, return_weights=True).self_attention[0] * 4
    same = sum(beta[i, j].item() for i in (0, 1, 3) for j in (0, 1, 3) if i != j)
    other = sum(beta[i, 2].item() for i in (0, 1, 3))
    found = nuclei.neighbours(laplace, bag)
    assert [sum(row) for row in found["decay"]["sums"]] == pytest.approx([same, other], abs=1e-3)
    assert found["to_kind"] == pytest.approx([same / 6], abs=1e-3)


def test_example_has_the_row_of_the_key_nucleus_in_the_middle(bag):
    laplace = model("laplace")
    found = nuclei.example(laplace, bag)
    assert found["query"] == 1  # the centre is (0, 47.5), nucleus 2 is nearer but not epithelial
    assert found["places"] == PLACES.int().tolist()
    assert sum(found["attention"]) == pytest.approx(4, abs=1e-3)
    assert sum(found["self_attention"]) == pytest.approx(4, abs=1e-3)
    assert "query" not in nuclei.example(sl.build("abmilp", nn.Identity(), dim=16), bag)


def test_scores_of_one_bag(bag):
    scores = nuclei.attention_scores(model("dot"), bag)
    assert set(scores) == {"attention_auc", "precision_at_k", "top_tenth", "entropy"}
    assert all(len(values) == 1 and 0 <= values[0] <= 1 for values in scores.values())
