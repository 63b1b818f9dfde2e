"""What attention and self-attention do on the nuclei of colon images, whose types are known but never trained on."""

from typing import Any

import torch
from torch import Tensor

from samil_lite.bags import Bags
from samil_lite.metrics import attention_auc, attention_entropy, precision_at_k, top_share
from samil_lite.models import MILClassifier, MILOutput
from samil_lite.training import predict

EPITHELIAL = 1
DISTANCES = (0, 25, 50, 100, 150, 200, 300, 400, 710)  # between two nuclei of an image of 500 × 500 pixels


def attention_scores(model: MILClassifier, bags: Bags) -> dict[str, list[float | None]]:
    """For each bag: how attention ranks the epithelial nuclei, how concentrated it is; None if undefined."""
    attention = predict(model, bags, bags_per_step=4).attention
    assert attention is not None
    key = _is_key(bags)
    scores = {
        "attention_auc": torch.as_tensor(attention_auc(attention, key, bags.offsets)),
        "precision_at_k": precision_at_k(attention, key, bags.offsets),
        "top_tenth": top_share(attention, bags.offsets),
        "entropy": attention_entropy(attention, bags.offsets),
    }
    return {name: [_rounded(x) for x in values] for name, values in scores.items()}


@torch.no_grad()
def neighbours(model: MILClassifier, bags: Bags) -> dict[str, Any]:
    """How much weight β goes from epithelial nuclei to the others of their image, by kind and by distance.

    Weights are in units of the even weight, so 1 is no preference; a nucleus' weight on itself is left out.

    Returns:
        `to_kind`, for each bag: mean weight on epithelial nuclei. `decay`: for each range between DISTANCES, its upper
        end included, over all bags, the sum of weights on epithelial nuclei and on others, and the number of pairs.
    """
    edges = torch.tensor(DISTANCES[1:-1], dtype=torch.float32)
    sums, pairs = torch.zeros(2, len(DISTANCES) - 1), torch.zeros(2, len(DISTANCES) - 1)
    to_kind = []
    for bag in bags:
        beta, places, key = _attention(model, bag)[1], _places(bag), _is_key(bag)  # (n, n), (n, 2), (n,)
        assert beta is not None
        weights = beta[key] * len(key)  # (k, n), of k epithelial queries
        distance = torch.bucketize(torch.cdist(places[key], places), edges)  # (k, n)
        others = ~torch.eye(len(key), dtype=torch.bool)[key]  # (k, n)
        for row, kind in enumerate((key, ~key)):
            chosen = others & kind  # (k, n)
            sums[row] += torch.bincount(distance[chosen], weights[chosen], sums.shape[1])
            pairs[row] += torch.bincount(distance[chosen], minlength=sums.shape[1])
        to_kind.append(_rounded(weights[others & key].mean()))
    decay = {"sums": [[_rounded(x) for x in row] for row in sums], "pairs": pairs.long().tolist()}
    return {"to_kind": to_kind, "decay": decay}


@torch.no_grad()
def example(model: MILClassifier, bag: Bags) -> dict[str, Any]:
    """One image for a figure: places and kinds of the nuclei, attention, and β of the key nucleus in the middle.

    Places are rounded to 5 pixels: enough for a figure, and not the set's own annotation, which may not be passed on.
    Weights are in units of the even weight.
    """
    attention, beta = _attention(model, bag)
    places, key = _places(bag), _is_key(bag)
    found: dict[str, Any] = {
        "places": (places / 5).round().mul(5).int().tolist(),
        "epithelial": key.int().tolist(),
        "attention": [_rounded(x) for x in attention * len(key)],
    }
    if beta is not None:
        off_centre = (places - places.mean(0)).norm(dim=1).where(key, torch.inf)  # (n,)
        query = int(off_centre.argmin())
        found |= {"query": query, "self_attention": [_rounded(x) for x in beta[query] * len(key)]}
    return found


def _attention(model: MILClassifier, bag: Bags) -> tuple[Tensor, Tensor | None]:
    """Attention (n,) of one bag, and β (n, n) where the model has it, on the CPU."""
    output: MILOutput = model(bag.to(next(model.parameters()).device), return_weights=True)
    assert output.attention is not None
    return output.attention.cpu(), None if output.self_attention is None else output.self_attention[0].cpu()


def _is_key(bags: Bags) -> Tensor:
    assert bags.instance_labels is not None
    return bags.instance_labels == EPITHELIAL


def _places(bag: Bags) -> Tensor:
    assert bag.coordinates is not None
    return bag.coordinates


def _rounded(x: Tensor) -> float | None:
    return round(float(x), 4) if x.isfinite() else None
