#!/usr/bin/env bash
# VNN-COMP: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULT TIMEOUT
# RESULT gets the verdict (sat, unsat, unknown, timeout, error) in its first line and the witness after it, at once and
# whole. The verifier is told to be done a little before TIMEOUT, and is stopped if it is not: a late answer is void.
set -u
[ "${1:-}" = v1 ] && [ $# -eq 6 ] || { echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULT TIMEOUT" >&2; exit 2; }
onnx=$3 vnnlib=$4 result=$5 limit=$6
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
python=${VERIFIER_PYTHON:-$here/.venv/bin/python}
export PYTHONPATH=$here

# The verifier's own limit leaves room for the interpreter's start and end and for the last batch of the search.
soft=$(awk -v t="$limit" 'BEGIN { s = 0.98 * t - 1; if (s < t / 2) s = t / 2; printf "%.3f", s }') || exit 2
hard=$(awk -v t="$limit" 'BEGIN { h = t - 0.3; if (h < 0.9 * t) h = 0.9 * t; printf "%.3f", h }') || exit 2
draft=$(mktemp "$result.XXXXXX") || exit 2
trap 'rm -f -- "$draft"' EXIT

# In the foreground, so that whoever kills this script's process group takes the verifier with it.
timeout --foreground --signal=KILL "$hard" "$python" -P -m verifier verify "$onnx" "$vnnlib" --timeout "$soft" >"$draft"
case $? in
    0) ;;
    137) echo timeout >"$draft" ;;
    *) echo error >"$draft" ;;
esac
chmod a+r -- "$draft"
mv -f -- "$draft" "$result"
