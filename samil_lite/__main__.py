"""python -m samil_lite train | predict | heatmap: from a folder of features to scores, maps and a report."""

import argparse
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

import samil_lite as sl
from samil_lite.data.features import FeatureBags
from samil_lite.models import KERNEL_OF, MODELS


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status. What cannot be done is one message on the error stream, status 2."""
    args = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            args.run(args)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"{args.command}: {_in_words_of_the_shell(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{args.command}: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    return 0


def _in_words_of_the_shell(message: str) -> str:
    """The message of a function, with the names of its arguments as those of the command."""
    message = message.replace('missing="skip"', "--missing skip").replace("as `bag`", "as --bag")
    message = re.sub(r"merge='([^']*)'", r"--merge \1", message)
    return re.sub(r"^(classes|threshold|folds|epochs|patience): ", r"--\1: ", message)


def train(args: argparse.Namespace) -> None:
    """Cross-validation, an ensemble of its models, tables and a report."""
    slides = sl.data.feature_bags(
        args.folder, args.table, label=args.label, bag=args.bag, merge=args.merge, classes=args.classes,
        missing=args.missing, allow_unlisted=args.allow_unlisted,
    )  # fmt: skip
    print(slides, f"classes {', '.join(slides.classes)}" if slides.classes else "", sep="\n")
    assert slides.labels is not None
    if args.group is None and args.merge is None:
        _warn_of_patients(slides)
    n_classes = max(len(slides.classes or ()), int(slides.labels.max()) + 1)
    options = {"gamma": args.gamma} if args.model in KERNEL_OF else {}

    def build() -> nn.Module:
        encoder = nn.Sequential(nn.Linear(slides.width, args.width), nn.ReLU())
        return sl.build(args.model, encoder, 1 if n_classes == 2 else n_classes, args.width, args.width, **options)

    run = sl.cross_validate(
        slides, build, groups=args.group, folds=args.folds, threshold=_number(args.threshold),
        calibrate=args.calibrate, standardise=args.standardise, seed=args.seed, workers=args.workers,
        folder=args.out / "folds", epochs=args.epochs, patience=args.patience, lr=args.lr,
        bags_per_step=args.bags_per_step, sampling="balanced" if args.balanced else None,
    )  # fmt: skip
    from samil_lite.report import write_report

    run.predictions.to_csv(args.out / "predictions.csv", index=False)
    run.scores.to_csv(args.out / "scores.csv", index=False)
    print(run.scores.round(3).to_string(index=False))
    if len(slides.skipped):
        slides.skipped.to_csv(args.out / "skipped.csv", index=False)
    about = {"extractor": args.extractor, "magnification": args.magnification}
    sl.save(run.ensemble, args.out / "models.safetensors", **{k: v for k, v in about.items() if v is not None})
    page = write_report(
        run, slides, args.out / "report.html", f"{args.model} on {args.folder.name}", args.maps, args.slide_files
    )
    print(f"report {page}\nmodels {args.out / 'models.safetensors'}")


def _warn_of_patients(slides: FeatureBags) -> None:
    """Says so if a column of patients is there, slides share them, and nobody asked to keep them together."""
    for column in slides.table.columns:
        if any(word in str(column).lower() for word in ("patient", "case", "subject")):
            n = slides.table[column].nunique()
            if n < len(slides):
                warnings.warn(
                    f"--group: {len(slides)} slides have {n} values of {column!r}; without --group {column} the same "
                    "one is in training and test, and scores can be too good",
                    stacklevel=2,
                )


def predict(args: argparse.Namespace) -> None:
    """A table of what the models say of each slide."""
    table = sl.predictions(sl.load(args.models), _slides(args))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)
    print(table.round(3).to_string(index=False, max_rows=20))


def heatmap(args: argparse.Namespace) -> None:
    """Maps of attention as pictures, GeoJSON for QuPath and CSV."""
    import matplotlib.pyplot as plt

    model, slides = sl.load(args.models), _slides(args)
    thumbnail, mpp = None, None
    if args.slide_file is not None:
        from samil_lite.data.slides import thumbnail as picture_of
        from samil_lite.data.slides import tiling

        if len(slides) != 1:
            raise ValueError(
                f"--slide-file: expected one slide to draw on it, got {len(slides)}; choose it by --slides"
            )
        thumbnail, mpp = picture_of(args.slide_file), tiling(args.slide_file, tissue=0).mpp
    for b, name in enumerate(slides.names):
        one = slides.subset([b])
        attention = sl.predict(model, one).attention
        if attention is None:
            raise ValueError(f"{args.models}: this model has no attention to draw")
        options = {"patch_size": args.patch_size}
        figure = sl.viz.heatmap(one, attention, thumbnail=thumbnail, mpp=mpp, scale=args.scale, **options)
        args.out.mkdir(parents=True, exist_ok=True)
        figure.savefig(args.out / f"{name}.png", dpi=160, facecolor="white")
        plt.close(figure)
        sl.export.geojson(one, attention, args.out / f"{name}.geojson", downsample=args.downsample, **options)
        sl.export.csv(one, attention, args.out / f"{name}.csv", **options)
        print(args.out / f"{name}.png")


def _slides(args: argparse.Namespace) -> FeatureBags:
    """The slides of a table, or all files of the folder."""
    if args.table is not None:
        slides = sl.data.feature_bags(
            args.folder, args.table, label=args.label, bag=args.bag, allow_unlisted=True, missing=args.missing
        )
    else:
        from samil_lite.data.layouts import SUFFIXES

        paths = [p for p in sorted(args.folder.rglob("*")) if p.suffix in SUFFIXES and not p.name.startswith(".")]
        if not paths:
            raise FileNotFoundError(f"folder: {args.folder} has no file of features ({', '.join(SUFFIXES)})")
        slides = sl.data.feature_bags(
            args.folder, pd.DataFrame({"slide_id": [p.stem for p in paths]}), label=None, missing=args.missing
        )
    if getattr(args, "slides", None):
        if unknown := [name for name in args.slides if name not in slides.names]:
            raise ValueError(f"--slides: {', '.join(unknown)} is not there; there are {', '.join(slides.names[:5])}, …")
        slides = slides.subset([slides.names.index(name) for name in args.slides])
    return slides


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m samil_lite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="train | predict | heatmap")
    of_train = _command(commands, "train", train)
    of_train.add_argument("table", type=Path, help="CSV with a row for each slide")
    of_train.add_argument("--label", default="label", help="column of the labels")
    of_train.add_argument("--bag", default="slide_id", help="column of the slides' names")
    of_train.add_argument("--group", help="column whose equal values are never divided, such as the patient's")
    of_train.add_argument("--merge", help="column whose equal values make one bag, such as the patient's")
    of_train.add_argument(
        "--classes", nargs="+", help="names of the classes in their order; the last is the positive one"
    )
    of_train.add_argument("--model", choices=MODELS, default="abmilp")
    of_train.add_argument("--out", type=Path, required=True, help="folder of the run; the same again goes on with it")
    of_train.add_argument("--folds", type=int, default=5)
    of_train.add_argument("--epochs", type=int, default=40)
    of_train.add_argument("--patience", type=int, default=10)
    of_train.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    of_train.add_argument("--bags-per-step", type=int, default=8)
    of_train.add_argument("--width", type=int, default=128, help="of the layer before the attention, and of its own")
    of_train.add_argument("--gamma", type=float, default=1.0, help="where the weight of self-attention starts")
    of_train.add_argument("--threshold", default="half", help="a probability, half, youden, f_score, 'recall>=0.95', …")
    of_train.add_argument("--balanced", action="store_true", help="as many training slides of every class in an epoch")
    of_train.add_argument("--calibrate", action="store_true", help="choose a temperature in each fold")
    of_train.add_argument("--standardise", action="store_true", help="features to mean 0 and deviation 1")
    of_train.add_argument("--seed", type=int, default=0)
    of_train.add_argument("--workers", type=int, default=1, help="processes")
    of_train.add_argument("--maps", type=int, default=1, help="maps in the report for each class and verdict")
    of_train.add_argument("--slide-files", type=Path, help="folder with the scanner's files: shows the top patches")
    of_train.add_argument("--extractor", help="what made the features, to be stored with the models")
    of_train.add_argument("--magnification", help="of the patches, to be stored with the models")
    of_train.add_argument("--missing", choices=["error", "skip"], default="error", help="of slides without features")
    of_train.add_argument("--allow-unlisted", action="store_true", help="leave out files that the table does not list")
    for name, run, out in (("predict", predict, "CSV to write"), ("heatmap", heatmap, "folder for the maps")):
        command = _command(commands, name, run)
        command.add_argument("models", type=Path, help="models.safetensors of a run")
        command.add_argument("--table", type=Path, help="CSV with the slides; without it, all files of the folder")
        command.add_argument("--label", help="column of the labels, if there is one")
        command.add_argument("--bag", default="slide_id", help="column of the slides' names")
        command.add_argument("--missing", choices=["error", "skip"], default="error", help="of slides without features")
        command.add_argument("--out", type=Path, required=True, help=out)
        if name == "heatmap":
            command.add_argument("--slides", nargs="+", help="names of slides; all if not given")
            command.add_argument("--patch-size", type=float, help="side of a patch, if its file does not say it")
            command.add_argument("--downsample", type=float, default=1.0, help="finest pixels in a unit of coordinates")
            command.add_argument("--scale", choices=["raw", "even", "percentile"], default="even")
            command.add_argument(
                "--slide-file", type=Path, help="the scanner's file, to lie under the map of one slide"
            )
    return parser


def _command(commands: Any, name: str, run: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
    command.set_defaults(run=run)
    command.add_argument("folder", type=Path, help="with a file of features for each slide")
    return command


if __name__ == "__main__":
    sys.exit(main())
