"""python -m samil_lite.experiments run mnist --models abmilp --seeds 5 --workers 2"""

import argparse

from samil_lite.data import KEY_DIGITS
from samil_lite.experiments import load_table, mnist, run_grid
from samil_lite.metrics import mean_interval
from samil_lite.models import MODELS


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m samil_lite.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run every cell that has no record yet")
    run.add_argument("experiment", choices=["mnist"])
    run.add_argument("--assumptions", nargs="+", choices=list(KEY_DIGITS), default=list(KEY_DIGITS))
    run.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    run.add_argument("--n-bags", nargs="+", type=int, default=[200], help="training bags")
    run.add_argument("--seeds", type=int, default=5, help="how many: 0, 1, …")
    run.add_argument("--pool", choices=["full", "subset"], default="full")
    run.add_argument("--workers", type=int, default=1, help="processes")
    summary = commands.add_parser("summary", help="mean test AUC and 95 %% interval of every setting")
    summary.add_argument("experiment", choices=["mnist"])
    for command in (run, summary):
        command.add_argument("--folder", default="book/results/mnist", help="of the records")
    args = parser.parse_args(arguments)
    if args.command == "run":
        cells = mnist.cells(args.assumptions, args.models, args.n_bags, range(args.seeds), pool=args.pool)
        run_grid(cells, mnist.run, args.folder, args.workers)
    for keys, group in load_table(args.folder).groupby(["assumption", "model", "n_bags"]):
        name = "{:10} {:15} {:4} bags".format(*keys)
        if len(group) > 1:
            print(name, "{:.4f} ({:.4f} to {:.4f}),".format(*mean_interval(group["auc"])), len(group), "runs")


if __name__ == "__main__":
    main()
