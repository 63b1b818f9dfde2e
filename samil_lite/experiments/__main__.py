"""python -m samil_lite.experiments run mnist --models abmilp lsa-abmilp --gammas 0 1 --seeds 5 --workers 2"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from samil_lite.audit import UNIT_TESTS
from samil_lite.data import KEY_DIGITS
from samil_lite.experiments import (
    FailedCellsError,
    attributions,
    crossval,
    load_table,
    mnist,
    photographs,
    run_grid,
    scores,
    tabular,
    unit_tests,
)
from samil_lite.experiments.records import RESULTS, own_results
from samil_lite.experiments.settings import changed, from_text
from samil_lite.models import MODELS


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m samil_lite.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run every cell that has no record yet, then print the summary")
    for command in (run, commands.add_parser("summary", help="the scores of the records that are there")):
        experiments = command.add_subparsers(dest="experiment", required=True)
        for name, (_, text) in EXPERIMENTS.items():
            options = experiments.add_parser(name, help=text)
            options.add_argument("--folder", help="of the records; in the folder SAMIL_RESULTS if not given")
            if command is run:
                _add_options(options, name)
    args = parser.parse_args(arguments)
    try:
        _run(args)
    except FailedCellsError as error:
        raise SystemExit(f"{parser.prog}: {error}") from None  # exit status 1
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))


def _run(args: argparse.Namespace) -> None:
    """Runs what is missing, then prints the summary, also of a grid in which cells failed."""
    own = own_results() / args.experiment
    published = args.command == "summary" and not own.exists()  # none of one's own yet
    args.folder = Path(args.folder or (RESULTS / args.experiment if published else own))
    failed = None
    if args.command == "run":
        try:
            run_grid(
                _cells(args), EXPERIMENTS[args.experiment][0].run, args.folder, args.workers, scheduler=args.scheduler
            )
        except FailedCellsError as error:
            failed = error
            if not any(args.folder.glob("[!.]*.json")):  # nothing to summarise
                raise
    found = _summary(args)
    text = found.to_string(index=False, float_format="{:.4f}".format, na_rep="—")
    print("no repeat has all of its folds yet" if found.empty else text)
    if failed is not None:
        raise failed


EXPERIMENTS: dict[str, tuple[Any, str]] = {  # name: module, help
    "mnist": (mnist, "MNIST bags under three assumptions"),
    "images": (crossval, "cross-validation on colon and breast"),
    "tables": (tabular, "cross-validation on musk"),
    "photographs": (photographs, "cross-validation on retinas and fungi by frozen features"),
    "audit": (unit_tests, "algorithmic unit tests: does a model use what its assumption forbids?"),
    "attributions": (attributions, "attention, gradient and leave-one-out against key instances: mnist, colon"),
}


def _add_options(options: argparse.ArgumentParser, experiment: str) -> None:
    if experiment == "mnist":
        options.add_argument("--assumptions", nargs="+", choices=list(KEY_DIGITS), default=list(KEY_DIGITS))
        options.add_argument("--n-bags", nargs="+", type=_count, default=[200], help="training bags")
        options.add_argument("--seeds", type=_count, default=5, help="how many: 0, 1, …")
        options.add_argument("--paper", action="store_true", help="the paper's learning rate and batch (mnist.PAPER)")
    elif experiment == "audit":
        options.add_argument("--tests", nargs="+", choices=list(UNIT_TESTS), default=list(UNIT_TESTS))
        options.add_argument("--seeds", type=_count, default=5, help="how many: 0, 1, …")
    else:
        known = list(EXPERIMENTS[experiment][0].DATA)
        options.add_argument("--data", nargs="+", choices=known, default=known)
    if experiment == "attributions":
        options.add_argument("--seeds", type=_count, default=5, help="how many: 0, 1, …; of colon tested folds")
    elif experiment in ("images", "tables", "photographs"):
        options.add_argument("--repeats", type=_count, default=1, help="how many: 0, 1, …")
        if experiment == "images":
            options.add_argument("--folds", nargs="+", type=int, help="tested folds: 0, 1, …; all if not given")
    models = list(getattr(EXPERIMENTS[experiment][0], "TESTED", MODELS))
    options.add_argument("--models", nargs="+", choices=models, default=models)
    gammas = [1.0] if experiment in ("audit", "photographs", "attributions") else [0.0, 1.0]
    options.add_argument("--gammas", nargs="+", type=float, default=gammas, help="starts of γ in self-attention")
    options.add_argument("--set", nargs="+", type=_setting, default=[], metavar="NAME=VALUE", help="as in lr=0.001")
    options.add_argument("--workers", type=int, default=1, help="processes; -1 for one on each core")
    options.add_argument("--scheduler", help="address of a Dask cluster in place of processes, tcp://host:8786")


def _cells(args: argparse.Namespace) -> list[dict[str, Any]]:
    module = EXPERIMENTS[args.experiment][0]
    known: dict[str, Any] = {}
    for names in ("TRAINING", "BAGS", "SELF_ATTENTION", "SETTINGS"):
        known |= getattr(module, names, {})
    changes = from_text(known, dict(args.set))
    changed(known, changes)  # names what is wrong before it could be taken for another argument
    if args.experiment == "mnist":
        changes = {**(mnist.PAPER if args.paper else {}), **changes}
        return mnist.cells(args.assumptions, args.models, args.n_bags, range(args.seeds), args.gammas, **changes)
    if args.experiment == "audit":
        return unit_tests.cells(args.tests, args.models, range(args.seeds), args.gammas, **changes)
    if args.experiment == "attributions":
        return attributions.cells(args.data, args.models, range(args.seeds), args.gammas)
    if args.experiment == "images":
        changes["folds"] = args.folds
    return module.cells(args.data, args.models, range(args.repeats), args.gammas, **changes)  # type: ignore[no-any-return]


def _summary(args: argparse.Namespace) -> pd.DataFrame:
    table = load_table(args.folder)
    try:
        return _summary_of(args.experiment, table)
    except ValueError as error:
        raise ValueError(f"--folder {args.folder}: these are no records of {args.experiment} ({error})") from error


def _summary_of(experiment: str, table: pd.DataFrame) -> pd.DataFrame:
    if experiment == "mnist":
        return mnist.summary(table).sort_values(["assumption", "n_bags", "model"])
    if experiment == "audit":
        return unit_tests.summary(table).sort_values(["test", "committed", "model"])
    if experiment == "attributions":
        return attributions.summary(table)
    if experiment == "photographs":
        return photographs.summary(table).sort_values(["data", "backbone", "split", "auc"])
    return scores.over_repeats(table if experiment == "images" else tabular.by_fold(table))


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
