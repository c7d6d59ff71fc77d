#!/usr/bin/env bash
# Check this machine's GPU in less than 8 minutes, without network: bash scripts/gpu_check.sh [PART...] [--json FILE]
# It sets up .venv first. PYTHON=python3.12 uses that interpreter and its packages instead. DEVICE=cpu rehearses all
# parts on a CPU, with tiny networks. docs/gpus.md explains the output.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    bash "$root/scripts/setup.sh" requirements.txt requirements-dev.txt
    PYTHON=$root/.venv/bin/python
fi
exec "$PYTHON" "$root/scripts/gpu_check.py" "$@"
