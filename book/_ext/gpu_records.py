"""What benchmarks/gpu.sh measured on graphics cards: book/results/benchmarks/gpu_CARD.json, none to many of them."""

import json


def gpu_records(folder):
    """The records of cards in a folder, in the order of their names."""
    found = (json.loads(path.read_text()) for path in sorted(folder.glob("gpu_*.json")))
    return [record for record in found if "card" in record]  # what was only compiled has none


def card_lines(record):
    """One card as Markdown: what was tested and ran, then a table of times by the size of the bag."""
    tests = record.get("tests", {})
    told = "".join(f", {tests[what]} {what}" for what in ("failed", "skipped") if what in tests)
    ended = "" if tests.get("ended", True) else "; not all were run in time"
    versions = f"PyTorch {record['versions']['torch']}, commit {(record['commit'] or 'unknown')[:8]}"
    lines = ["", f"**{record['card']}**, {versions}. Tests on the card: {tests.get('passed', 0)} passed{told}{ended}."]
    sizes = sorted({row["n"] for row in record["rows"] if "n" in row})
    lines += ["", *(f"- {row['way']}: {cell(row)}" for row in record["rows"] if "n" not in row)]
    chapters = record["chapters"].items()
    ran = (f"{int(name[:2])} stopped" if s is None else f"{int(name[:2])} in {s:.0f}\u00a0s" for name, s in chapters)
    lines += [f"- chapters run from start to end: {', '.join(ran) or 'none in time'}", ""]
    by_kind = {}
    for row in record["rows"]:
        if "n" in row:
            by_kind.setdefault((row["way"], row["kernel"], row["values"]), {})[row["n"]] = row
    if sizes:
        lines.append(f"| Way | Kernel | Values | {' | '.join(f'{n:,}' for n in sizes)} |")
        lines.append("|---" * (3 + len(sizes)) + "|")
    for kind, of_size in by_kind.items():
        cells = (cell(of_size[n]) if n in of_size else "—" for n in sizes)
        lines.append(f"| {' | '.join((*kind, *cells))} |")
    return lines


def cell(row):
    """Seconds, memory and the seconds over the floor of one row, or that it failed."""
    if "error" in row:
        return f"failed: {row['error'].split(':')[0]}"
    over = f", {row['seconds'] / row['floor']:.1f}\u00a0× floor" if "floor" in row else ""
    seconds = row["seconds"]
    time = f"{1000 * seconds:.2g}\u00a0ms" if seconds < 0.0995 else f"{seconds:.2g}\u00a0s"
    return f"{time}, {row['megabytes'] / 1024:.2g}\u00a0GB{over}"
