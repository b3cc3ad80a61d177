#!/usr/bin/env bash
# VNN-COMP: prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Brings the program into the file cache; no analysis, nothing killed. Always exits with 0: another code would skip the
# rest of the benchmark.
[ "${1:-}" = v1 ] && [ $# -eq 4 ] || echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHONPATH=$here "${VERIFIER_PYTHON:-$here/.venv/bin/python}" -P -c "import verifier.pipeline, onnxruntime" >&2 ||
    echo "warning: the verifier does not start; see install_tool.sh" >&2
exit 0
