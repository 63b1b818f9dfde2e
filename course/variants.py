r"""What a seed changes in the text of an assignment: its formulas.

Each list has one dictionary for every variant; seed s takes number s modulo their count. The first is what stands in
the source notebook, and a release puts another one's text in the place of the first one's. A private fork adds its own.
The hidden tests have the same formulas as functions, in the same order.
"""

VARIANTS: dict[str, list[dict[str, str]]] = {
    "a1": [
        {"formula": r"w^\top \tanh(V h_i)", "score": "torch.tanh(h @ V.T) @ w"},
        {
            "formula": r"w^\top \big(\tanh(V h_i) \odot \operatorname{sigmoid}(V h_i)\big)",
            "score": "(torch.tanh(h @ V.T) * torch.sigmoid(h @ V.T)) @ w",
        },
        {
            "formula": r"w^\top \operatorname{softplus}(V h_i)",
            "score": "nn.functional.softplus(h @ V.T) @ w",
        },
        {"formula": r"-\lVert V h_i - w \rVert_1", "score": "-(h @ V.T - w).abs().sum(-1)"},
    ],
    "a2": [
        # Rules that no AbMILP can follow; "half 9s or more" and "a 9 without a 7" are none, it can follow them.
        {
            "rule": "a 9 and a 7",
            "bags": "[[9, 7, 1], [9, 7, 2], [9, 9, 1], [7, 7, 2]]",
            "positive": "(9 in bag) and (7 in bag)",
            "verdict": "c[9], c[7], c[0], c_0 = 0, -2, 0.2, -1",
        },
        {
            "rule": "a 9 or a 7, but not both",
            "bags": "[[9, 9, 1], [7, 7, 2], [9, 7, 1], [9, 7, 2]]",
            "positive": "(9 in bag) != (7 in bag)",
            "verdict": "c[9], c[7], c[0], c_0 = 2, 4, -0.2, -1",
        },
        {
            "rule": "both a 9 and a 7, or neither",
            "bags": "[[9, 7, 3], [1, 2, 3], [9, 1, 3], [7, 2, 3]]",
            "positive": "(9 in bag) == (7 in bag)",
            "verdict": "c[9], c[7], c[0], c_0 = -2, -4, 0.2, 1",
        },
        {
            "rule": "anything but a 9 together with a 7",
            "bags": "[[9, 9, 3], [7, 7, 4], [9, 7, 3], [9, 7, 4]]",
            "positive": "not ((9 in bag) and (7 in bag))",
            "verdict": "c[9], c[7], c[0], c_0 = 0, 2, -0.2, 1",
        },
    ],
    "a3": [
        {
            "t": r"$t = \lVert k - q \rVert_2^2$, the squared Euclidean distance",
            "statistic": '"squared_distance"',
            "known": r"$e^{-\alpha t}$, $1 / (1 + \alpha t)$, $-\alpha t$, $-\sqrt{\alpha t}$, $-\log(1 + \alpha t)$",
        },
        {
            "t": r"$t = \lVert k - q \rVert_1$, the L1 distance",
            "statistic": '"l1_distance"',
            "known": r"$e^{-\alpha t}$, $1 / (1 + \alpha t)$, $-\alpha t$, $e^{-\alpha t^2}$, $1 / (1 + \alpha t^2)$",
        },
    ],
    "a4": [
        {"cell": "presence, sa-abmilp, 100 bags", "aucs": "[0.7682, 0.7481, 0.7779, 0.8012, 0.7848]"},
        {"cell": "threshold, gsa-abmilp, 100 bags", "aucs": "[0.8218, 0.8091, 0.8806, 0.8339, 0.9129]"},
        {"cell": "presence, lsa-abmilp, 150 bags", "aucs": "[0.7234, 0.7582, 0.7967, 0.7364, 0.925]"},
        {"cell": "threshold, iqsa-abmilp, 150 bags", "aucs": "[0.8917, 0.8795, 0.9055, 0.9279, 0.8975]"},
    ],
}


def variant(assignment: str, seed: int) -> dict[str, str]:
    """The formulas of an assignment for a class's seed."""
    known = VARIANTS[assignment]
    return known[seed % len(known)]
