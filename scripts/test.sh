#!/usr/bin/env bash
# Set up and run the tests: bash scripts/test.sh [pytest arguments, such as -m slow or tests/optim]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh requirements.txt requirements-dev.txt
exec .venv/bin/python -m pytest "$@"
