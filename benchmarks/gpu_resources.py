"""What the Triton programs take of a GPU that is not there: registers, spills, shared memory, tensor-core instructions.

    python benchmarks/gpu_resources.py                                  # all cards and shapes: an hour or two
    python benchmarks/gpu_resources.py --spread                         # what differs most: ten minutes; the record
    python benchmarks/gpu_resources.py --sample                         # a few of each, as the tests do
    python benchmarks/gpu_resources.py --json --arch 75 80 86 89 90 100 # the last line is one JSON object with all rows

Triton compiles for any NVIDIA card without having it, and brings the tools that count. A program whose shared memory is
over the card's limit cannot be launched; every byte that is spilled is written to slow memory by every thread. What is
compiled for a card is what "auto" launches there. On sm_75 it takes blockwise tiles instead ("launched" tells), and the
rows tell why: no program has a tensor-core instruction there. Results are kept in a file as they come, so that a run
that was cut off goes on.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from samil_lite.experiments.records import write_record
from samil_lite.kernel_attention import programs
from samil_lite.kernel_attention import triton as fused
from samil_lite.kernels import FORMS

# Bytes of shared memory that one block may take: T4, A100, RTX 30xx, RTX 40xx and L4, H100, B200.
LIMIT = {75: 65_536, 80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 100: 232_448}
WIDTHS, VALUE_WIDTHS = [8, 16, 64, 128, 256], [16, 64, 500, 512, 1024]
USUAL = (64, 512)  # as in a model of 512 features
SPREAD = [(256, 1024), (8, 16), (128, 500)]  # the corners, and no powers of two
SAMPLE = [
    ("RBF(log_scores=False)", "forward", "fp32", *USUAL),
    ("Module(norm='euclidean')", "pairs", "fp32", 256, 1024),
    ("Laplace()", "gather keys", "bf16", *USUAL),
    ("Dot()", "gather values", "fp16", 64, 500),
]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FUNCTIONS = ("forward", "pairs", "gather queries", "gather keys", "gather values")
Row = dict[str, Any]
Case = tuple[str, str, str, int, int, int]  # kernel, function, type of the values, d, d_v, card


def multiply_adds(d: int, d_v: int) -> float:
    """Multiply-adds of a pair, forward and backward, over those of the blockwise algorithm, 4 d + 3 d_v.

    Forward: scores, once for each chunk of the values, and the sum of values. Backward: scores, do·v, and the gradients
    of values, queries and keys. The zeros that fill widths up to a power of two, 16 at least, are not counted.
    """
    chunks = -(-d_v // fused.tiles("forward", 0, d_v)["C"])
    return ((chunks * d + d_v) + (d + d_v) + (d_v + d + d)) / (4 * d + 3 * d_v)


def compiled_for(kernel: str, function: str, values: str, d: int, d_v: int, arch: int) -> tuple[Any, dict, dict, dict]:
    """The program, its constants, the types of its other arguments, and its warps and stages."""
    form, of_values = fused.FORMS[FORMS[kernel].statistic], function == "gather values"
    program = getattr(programs, function.split()[0])
    chosen = fused.functions(FORMS[kernel])
    assert chosen is not None
    width = d_v if function in ("forward", "pairs", "gather values") else d
    size = fused.tiles(program.__name__, programs.DOT.value if of_values else form, width)
    constants = {
        "D": d_v if of_values else d, "D_PAD": max(16, triton.next_power_of_2(d)), "DV": d_v, "M": fused.M,
        "PHI": chosen[0], "SLOPES": chosen[1], "FORM": programs.DOT.value if of_values else form,
        "HAS_B": FORMS[kernel].key_term(torch.zeros(1, d), torch.ones(())) is not None,
        "OF_QUERIES": function == "gather queries", "SCALE": fused.scale_of(TYPES[values]),
        "PRECISION": fused.PRECISION, **size,
    }  # fmt: skip
    types = dict.fromkeys(("v", "o", "do", "betas"), f"*{values}") | dict.fromkeys(
        ("stripe", "n", "blocks", "total"), "i32"
    )
    types |= {"table": "*i32"} | (dict.fromkeys(("w", "x", "y"), f"*{values}") if of_values else {})
    return program, constants, types, {name: size[name] for name in ("num_warps", "num_stages")}


def resources(kernel: str, function: str, values: str, d: int, d_v: int, arch: int) -> Row:
    """One row: what the compiled program takes."""
    program, constants, types, options = compiled_for(kernel, function, values, d, d_v, arch)
    names = program.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in names}
    attributes = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")}
    source = ASTSource(program, signature, {n: constants[n] for n in names if n in constants}, attributes)
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    tool = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, spilled = map(int, re.findall(r"REG:(\d+) STACK:(\d+)", text)[0])
    return {
        "arch": arch, "kernel": kernel, "function": function, "values": values, "d": d, "d_v": d_v,
        "shared": made.metadata.shared, "registers": registers, "spilled": spilled,
        "mma": len(re.findall(r"\b(?:wgmma|mma|tcgen05)\.", made.asm["ptx"])),
    }  # fmt: skip


def grid(arches: list[int], which: str) -> Iterator[Case]:
    """Kernel, function, type of the values, d, d_v and card of every program: a sample, a spread, or all."""
    for arch in arches:
        if which == "sample":
            ones = SAMPLE
        elif which == "all":
            ones = every([(d, d_v) for d in WIDTHS for d_v in VALUE_WIDTHS])
        else:
            ones = some() + (every([USUAL]) if arch >= fused.SINCE else [])
        for one in ones:
            yield *one, arch


def every(shapes: list[tuple[int, int]]) -> list[tuple[str, str, str, int, int]]:
    """All kernels, functions and types at these widths."""
    return [
        (kernel, function, values, *shape)
        for shape in shapes for kernel in FORMS for function in FUNCTIONS for values in TYPES
    ]  # fmt: skip


def some() -> list[tuple[str, str, str, int, int]]:
    """The kernels with the longest φ in single precision, which takes most, at all of SPREAD.

    They are of squared and of L1 distances; dot products are the first without their squares.
    """
    kernels = ("Module(norm='euclidean')", "Module(norm='l1')")
    return [
        (kernel, function, "fp32", *shape) for shape in SPREAD for kernel in kernels for function in FUNCTIONS
    ]  # fmt: skip


def same_as(case: Case) -> Case:
    """The case that compiles to the same program: sums do not ask for φ, nor for the width that is not theirs."""
    kernel, function, values, d, d_v, arch = case
    if function == "gather values":
        return "Dot()", function, values, 16, d_v, arch
    if function.startswith("gather"):
        first = next(name for name, form in FORMS.items() if form.statistic == FORMS[kernel].statistic)
        return first, function, "fp32", d, 16, arch
    return case


def read(kept: Path) -> dict[Case, Row]:
    """The rows of an earlier run."""
    lines = kept.read_text().splitlines() if kept.exists() else []
    return {tuple(case): row for case, row in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", type=int, default=list(LIMIT), choices=list(LIMIT), help="cards, as 89")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--sample", dest="which", action="store_const", const="sample", help="four programs a card")
    amount.add_argument("--spread", dest="which", action="store_const", const="spread", help="what differs most")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object with all rows")
    parser.add_argument("--record", type=Path, help="where to write the record, as book/results/benchmarks/NAME.json")
    parser.add_argument("--kept", type=Path, default=Path(".gpu_resources.jsonl"), help="where results are kept")
    args = parser.parse_args()
    known, rows = read(args.kept), []
    for case in grid(args.arch, args.which or "all"):
        source = same_as(case)
        if source not in known:
            known[source] = resources(*source)
            with args.kept.open("a") as file:
                file.write(json.dumps([source, known[source]]) + "\n")
        kernel, _, values, d, d_v, arch = case
        rows.append({**known[source], "kernel": kernel, "values": values, "d": d, "d_v": d_v})
        verdict = "CANNOT LAUNCH" if rows[-1]["shared"] > LIMIT[arch] else "spills" if rows[-1]["spilled"] else ""
        if not args.json:
            print(*(f"{name} {value}" for name, value in rows[-1].items()), verdict, flush=True)
    shapes = sorted({(row["d"], row["d_v"]) for row in rows})
    record = {
        "rows": rows,
        "launched": [arch for arch in args.arch if arch >= fused.SINCE],  # elsewhere "auto" takes blockwise
        "multiply_adds": [{"d": d, "d_v": d_v, "over_floor": multiply_adds(d, d_v)} for d, d_v in shapes],
        "limits": LIMIT, "torch": torch.__version__, "triton": triton.__version__,
    }  # fmt: skip
    if args.record:
        print(write_record(args.record, record))
    if args.json:
        print(json.dumps(record))


if __name__ == "__main__":
    main()
