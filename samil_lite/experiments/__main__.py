"""python -m samil_lite.experiments run mnist --models abmilp lsa-abmilp --gammas 0 1 --seeds 5 --workers 2"""

import argparse
import json
from typing import Any

from samil_lite.data import KEY_DIGITS
from samil_lite.experiments import load_table, mnist, run_grid
from samil_lite.models import MODELS


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m samil_lite.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run every cell that has no record yet, then print the summary")
    run.add_argument("experiment", choices=["mnist"])
    run.add_argument("--assumptions", nargs="+", choices=list(KEY_DIGITS), default=list(KEY_DIGITS))
    run.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    run.add_argument("--n-bags", nargs="+", type=int, default=[200], help="training bags")
    run.add_argument("--seeds", type=int, default=5, help="how many: 0, 1, …")
    run.add_argument("--gammas", nargs="+", type=float, default=[0.0, 1.0], help="starts of γ in self-attention")
    run.add_argument("--paper", action="store_true", help="the paper's learning rate and batch (mnist.PAPER)")
    run.add_argument("--set", nargs="+", type=_setting, default=[], metavar="NAME=VALUE", help="as in lr=0.001")
    run.add_argument("--workers", type=int, default=1, help="processes")
    summary = commands.add_parser("summary", help="mean test AUC of every setting, and its difference to AbMILP")
    summary.add_argument("experiment", choices=["mnist"])
    for command in (run, summary):
        command.add_argument("--folder", default="book/results/mnist", help="of the records")
    args = parser.parse_args(arguments)
    if args.command == "run":
        changes = {**(mnist.PAPER if args.paper else {}), **dict(args.set)}
        cells = mnist.cells(args.assumptions, args.models, args.n_bags, range(args.seeds), args.gammas, **changes)
        run_grid(cells, mnist.run, args.folder, args.workers)
    table = mnist.summary(load_table(args.folder)).sort_values(["assumption", "n_bags", "model"])
    print(table.to_string(index=False, float_format="{:.4f}".format, na_rep="—"))


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        if equals and value:
            return name, value
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}") from None


if __name__ == "__main__":
    main()
