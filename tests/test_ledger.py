"""The verdicts on the paper's claims, on made-up runs whose truth is known."""

import pandas as pd
import pytest

from samil_lite.experiments.ledger import ledger
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
