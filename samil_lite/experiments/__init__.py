"""The paper's protocols as grids of independent, resumable runs. From the shell: python -m samil_lite.experiments."""

from samil_lite.experiments import crossval, mnist, scores, tabular
from samil_lite.experiments.grid import FailedCellsError, run_grid
from samil_lite.experiments.ledger import image_ledger, ledger
from samil_lite.experiments.records import RESULTS, load_table

__all__ = [
    "RESULTS",
    "FailedCellsError",
    "crossval",
    "image_ledger",
    "ledger",
    "load_table",
    "mnist",
    "run_grid",
    "scores",
    "tabular",
]
