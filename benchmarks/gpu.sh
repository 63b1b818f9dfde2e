#!/usr/bin/env bash
# What needs a graphics card, in eight minutes on one: correctness natively, then times and memory, then the chapters.
#   bash benchmarks/gpu.sh          # from the repository's root; PYTHON=… chooses the interpreter
#   bash benchmarks/gpu.sh --quick  # on a CPU, tiny, to see that it works
# What comes after the first part runs even if that fails; the exit status is the first failure.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
failed=0
if [ "${1:-}" = --quick ]; then
    "$PYTHON" benchmarks/gpu.py --quick --device cpu || failed=1
    exit "$failed"
fi
timeout 120 "$PYTHON" -m pytest -q -p no:cacheprovider tests/test_triton.py || failed=1
timeout 240 "$PYTHON" benchmarks/gpu.py --seconds 200 || failed=1
# Each chapter's run time there, the shortest first, as long as there is time.
end=$((SECONDS + 110))
for notebook in notebooks/[0-9]*.ipynb; do
    left=$((end - SECONDS))
    [ "$left" -gt 5 ] || break
    begin=$SECONDS
    if timeout "$left" "$PYTHON" -m nbclient "$notebook" > /dev/null 2>&1; then
        echo "$notebook: $((SECONDS - begin)) s"
    else
        echo "$notebook: not done in $((SECONDS - begin)) s"
    fi
done
exit "$failed"
