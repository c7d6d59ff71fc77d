#!/usr/bin/env bash
# Set up and run the tests, as many at once as there are cores: bash scripts/test.sh [pytest arguments]
# Such arguments are -m slow, tests/optim, or -n 0 for one after the other, which a debugger needs.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh requirements.txt requirements-dev.txt
# Cores are for tests, not for threads. Tests of one group (a cluster, a port, a costly fixture) share a process.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest -n auto --maxprocesses=8 --dist=loadgroup "$@"
