#!/usr/bin/env bash
# VNN-COMP: install_tool.sh v1
# Installs into .venv of this checkout; set VERIFIER_PYTHON to have the other two scripts use another interpreter.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "usage: install_tool.sh v1" >&2; exit 2; }
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
python3 -m venv .venv
.venv/bin/pip install -e .
.venv/bin/verifier --version
