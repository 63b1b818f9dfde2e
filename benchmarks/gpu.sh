#!/usr/bin/env bash
# What needs a graphics card, in eight minutes on one: correctness natively, then times and memory, then the chapters.
#   bash benchmarks/gpu.sh                  # writes book/results/benchmarks/gpu_CARD.json, which the book then shows
#   bash benchmarks/gpu.sh --slides FOLDER  # with a training step on real slides; else $SAMIL_DATA/wsi_bags/eagle
#   bash benchmarks/gpu.sh --quick          # on a CPU, tiny, to see that it works
# PYTHON=… chooses the interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" != --quick ] || set -- --device cpu "$@"
exec timeout --kill-after=5 475 "${PYTHON:-python3}" benchmarks/gpu.py "$@"
