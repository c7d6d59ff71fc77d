#!/usr/bin/env bash
# Set up .venv and run the tests in several processes: bash scripts/test.sh [pytest arguments]
# Examples of arguments: -m slow, tests/optim, or -n 0 for a single process, which a debugger needs.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh requirements.txt requirements-dev.txt
# One process more than cores, because tests sometimes wait; at most eight. Each test process uses one thread.
processes=$(($(getconf _NPROCESSORS_ONLN) + 1))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Tests of one group (a cluster, a port, a costly fixture) share a process.
exec .venv/bin/python -m pytest -n "$((processes < 8 ? processes : 8))" --dist=loadgroup "$@"
