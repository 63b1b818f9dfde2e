"""Slides of the book's figures: make slides [CHAPTERS="03_attention_pooling …"] writes slides/NAME.pdf and pictures.

Each page has the chapter's title, a picture as it is stored in the notebook, and its alt text.
"""

import argparse
import base64
import io
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
from matplotlib.backends.backend_pdf import PdfPages

ROOT = Path(__file__).parents[1]


def pictures(path: Path) -> list[tuple[bytes, str]]:
    """The PNG pictures of a stored notebook with their alt text, in order."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs if output.get("data", {}).get("image/png")]
    return [(base64.b64decode(o.data["image/png"]), o.metadata["image/png"]["alt"]) for o in outputs]


def write(path: Path, folder: Path) -> Path:
    """Writes the slides of one chapter; returns the PDF file."""
    title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
    target = folder / f"{path.stem}.pdf"
    with PdfPages(target) as pdf:
        for number, (png, alt) in enumerate(pictures(path), 1):
            (folder / f"{path.stem}_{number:02}.png").write_bytes(png)
            figure = plt.figure(figsize=(13.33, 7.5))  # inches, 16 : 9
            figure.text(0.05, 0.93, title, size=24, va="center")
            figure.text(0.05, 0.02, textwrap.fill(alt, 150), size=11, va="bottom", color="0.3")
            axis = figure.add_axes((0.05, 0.16, 0.9, 0.7))
            axis.imshow(plt.imread(io.BytesIO(png)), interpolation="lanczos")
            axis.axis("off")
            pdf.savefig(figure, dpi=200)
            plt.close(figure)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="such as 03_attention_pooling; all if none is named")
    parser.add_argument("--out", type=Path, default=ROOT / "slides")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    paths = [ROOT / "notebooks" / f"{name}.ipynb" for name in args.chapters]
    for path in paths or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        print(write(path, args.out))


if __name__ == "__main__":
    main()
