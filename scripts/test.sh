#!/usr/bin/env bash
# Set up .venv and run the tests, one process per core: bash scripts/test.sh [pytest arguments]
# Examples of arguments: -m slow, tests/optim, or -n 0 for a single process, which a debugger needs.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh requirements.txt requirements-dev.txt
# Each test process uses one thread. Tests of one group (a cluster, a port, a costly fixture) share a process.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest -n auto --maxprocesses=8 --dist=loadgroup "$@"
