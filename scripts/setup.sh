#!/usr/bin/env bash
# Make .venv if it is missing, and install requirements files into it: bash scripts/setup.sh FILE...
# A file is installed again only if it has changed. PYTHON=python3.12 chooses the interpreter (default: python3).
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

fail() {
    echo "error: $*" >&2
    exit 2
}

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
}

# A .venv without a working pip is made again: its installation was interrupted, or its Python was removed.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null || fail "$python was not found; install Python 3.10 to 3.13"
    is_supported "$python" ||
        fail "$python is $("$python" --version 2>&1), but Python 3.10 to 3.13 is needed; choose one with PYTHON=python3.12"
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || fail "$python -m venv .venv failed; on Debian, apt install python3-venv"
fi
is_supported .venv/bin/python ||
    fail ".venv has $(.venv/bin/python --version 2>&1), but Python 3.10 to 3.13 is needed; delete .venv and start again"

for file in "$@"; do
    stamp=.venv/installed-$file
    if ! cmp -s "$file" "$stamp"; then
        echo "Installing $file into .venv (the first time takes minutes and several GB: torch brings its GPU libraries)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$file" ||
            fail "installing $file failed; see pip's message above, then start again"
        cp "$file" "$stamp"
    fi
done
