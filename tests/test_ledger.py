"""The verdicts on the paper's claims, on made-up runs whose truth is known."""

import pandas as pd
import pytest

from samil_lite.experiments.ledger import image_ledger, ledger
from samil_lite.models import KERNEL_OF

NOISE = [0.0, 0.01, -0.01, 0.005]


def made_up(**changes: float) -> pd.DataFrame:
    """AbMILP 0.8, SA models 0.9; `changes` are keyed model_assumption_bags or model_assumption."""
    rows = []
    for assumption in ("standard", "presence", "threshold"):
        for n_bags in (50, 200, 500):
            for model in ("abmilp", *KERNEL_OF):
                short = model.removesuffix("-abmilp")
                base = 0.8 if model == "abmilp" or assumption == "standard" else 0.9
                mean = changes.get(f"{short}_{assumption}_{n_bags}", changes.get(f"{short}_{assumption}", base))
                for gamma in (0.0, 1.0) if model in KERNEL_OF else (None,):
                    for seed, noise in enumerate(NOISE):
                        rows.append(
                            {
                                "assumption": assumption, "n_bags": n_bags, "model": model, "gamma": gamma,
                                "seed": seed, "auc": mean + noise, "validation_loss": 1 - mean + noise,
                                "every_key_stands_out": mean,
                            }
                        )  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame, claim: int) -> dict[tuple, str]:
    rows = ledger(table)
    rows = rows[(rows["claim"] == claim) & (rows["gamma"] == 1)]
    return {(row.what, row.assumption, row.n_bags): row.verdict for row in rows.itertuples()}


def test_effects_are_differences_in_pairs():
    row = ledger(made_up()).query("claim == 3 and gamma == 0").iloc[0]
    assert (row["what"], row["assumption"], row["n_bags"], row["pairs"]) == ("SA − AbMILP", "presence", 200, 4)
    assert (row["effect"], row["low"], row["high"]) == pytest.approx((0.1, 0.1, 0.1))  # the common noise cancels


@pytest.mark.parametrize(
    ("auc", "verdict"), [(0.8, "reproduced"), (0.79, "reproduced"), (0.85, "contradicted"), (0.7, "contradicted")]
)
def test_claim_2_is_about_equality(auc, verdict):
    assert verdicts(made_up(sa_standard=auc), 2) == {("SA − AbMILP", "standard", 200): verdict}


def test_claim_2_is_undecided_where_runs_vary_too_much():
    table = made_up()
    table.loc[table["model"] == "sa-abmilp", "auc"] += [0.05 * (seed % 2) for seed in table["seed"]][:72]
    assert set(verdicts(table, 2).values()) == {"undecided"}


def test_claim_3_and_who_is_best_on_validation():
    found = verdicts(made_up(lsa_presence=0.7, msa_presence=0.8, iqsa_presence=0.95), 3)
    assert found["SA − AbMILP", "presence", 200] == "reproduced"
    assert found["LSA − AbMILP", "presence", 200] == "contradicted"
    assert found["MSA − AbMILP", "presence", 200] == "not seen"
    assert found["best on validation (IQSA) − AbMILP", "presence", 200] == "reproduced"


def test_claim_4_wants_the_dot_product_first_and_kernels_last():
    changes = {f"{model}_presence_50": 0.8 for model in ("lsa", "iqsa")} | {"sa_presence_500": 0.85}
    found = verdicts(made_up(**changes), 4)
    assert [found["SA − LSA", "presence", n] for n in (50, 500)] == ["reproduced", "reproduced"]
    assert found["SA − LSA", "threshold", 50] == "not seen"


def test_claim_5_compares_shares():
    assert set(verdicts(made_up(), 5).values()) == {"reproduced"}


def test_claim_10_needs_two_winners():
    found = verdicts(made_up(lsa_presence=0.95, gsa_threshold=0.95), 10)
    assert found == {("LSA − GSA", "presence", 200): "reproduced", ("GSA − LSA", "threshold", 200): "reproduced"}
    assert verdicts(made_up(lsa_presence=0.95, lsa_threshold=0.95), 10) == {}


def test_what_has_no_runs_is_left_out():
    table = made_up()
    assert ledger(table[table["seed"] < 2]).empty
    assert ledger(table[table["n_bags"] == 200]).query("claim == 4").empty
    with pytest.raises(ValueError, match="expected one run for each seed"):
        ledger(pd.concat([table, table]))


def colon_runs(sa_logit: float, top_tenth: float, to_kind: float) -> pd.DataFrame:
    """Four folds of two positive and two negative bags; AbMILP ranks three of four pairs right, misses a positive."""
    rows = []
    variants = [("abmilp", None), ("embedding-max", None), *((m, g) for m in KERNEL_OF for g in (0.0, 1.0))]
    for model, gamma in variants:
        of_sa = model in KERNEL_OF
        for fold in range(4):
            rows.append(
                {
                    "data": "colon", "grouped": False, "model": model, "gamma": gamma, "repeat": 0, "fold": fold,
                    "n_folds": 4, "n_validation": 1, "labels": [1, 1, 0, 0],
                    "logits": [2.0, sa_logit if of_sa else -2.0, -1.0, -3.0],
                    "validation_loss": 0.5 - 0.1 * (model in ("abmilp", "lsa-abmilp")),
                    "top_tenth": [top_tenth if of_sa else 0.4, 0.4 + 0.01 * fold], "entropy": [0.5, None],
                    "to_kind": [to_kind + 0.01 * fold, to_kind] if of_sa else None,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def image_verdicts(table: pd.DataFrame) -> dict[tuple, str]:
    return {(row.what, row.score): row.verdict for row in image_ledger(table).query("gamma == 1").itertuples()}


def test_images_where_self_attention_wins():
    found = image_verdicts(colon_runs(sa_logit=1.0, top_tenth=0.6, to_kind=1.5))
    assert len(found) == 2 + 3 * len(KERNEL_OF)
    assert {what: verdict for what, verdict in found.items() if "LSA" in what[0]} == {
        ("best SA (LSA) − AbMILP", "auc"): "reproduced",
        ("best SA (LSA) − AbMILP", "recall"): "reproduced",
        ("LSA − AbMILP, share of the top tenth", "top_tenth"): "reproduced",
        ("LSA − AbMILP, entropy", "entropy"): "not seen",
        ("LSA, β between epithelial nuclei − even weight", "above_even"): "reproduced",
    }


def test_images_where_it_loses():
    found = image_verdicts(colon_runs(sa_logit=-4.0, top_tenth=0.3, to_kind=0.8))
    assert set(found.values()) == {"contradicted", "not seen"}
    assert found["best SA (LSA) − AbMILP", "auc"] == "contradicted"
    assert found["best SA (LSA) − AbMILP", "recall"] == "not seen"  # both miss one of two


def test_no_model_is_the_best_before_all_have_run():
    table = colon_runs(sa_logit=1.0, top_tenth=0.6, to_kind=1.5)
    some = image_ledger(table[table["model"] != "msa-abmilp"])
    assert set(some["claim"]) == {7}


def test_the_best_other_model_is_chosen_on_validation():
    table = colon_runs(sa_logit=1.0, top_tenth=0.6, to_kind=1.5)
    table.loc[table["model"] == "embedding-max", "validation_loss"] = 0.1
    assert ("best SA (LSA) − best other (embedding-max)", "auc") in image_verdicts(table)
    effect = image_ledger(table).query("score == 'auc' and gamma == 0")["effect"]
    assert effect.tolist() == [0.25, 0.25]
