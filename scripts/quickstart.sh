#!/usr/bin/env bash
# SGD beside SAM on real images, from nothing to a table and a picture: bash scripts/quickstart.sh [KEY=VALUE...]
# Keys are those of train.py, such as outputs=FOLDER, seed=0,1,2 or epochs=5. What is complete is skipped.
set -euo pipefail
here=$PWD
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh requirements.txt

outputs=$PWD/outputs/quickstart
overrides=()
for override in "$@"; do
    case $override in
    -*)
        sed -n 2,3p scripts/quickstart.sh
        exit 2
        ;;
    outputs=/*) outputs=${override#outputs=} ;;
    outputs=*) outputs=$here/${override#outputs=} ;;
    *) overrides+=("$override") ;;
    esac
done

# The quotes inside are for Hydra: a path may hold a space, or a quote.
.venv/bin/python train.py -m experiment=quickstart optimizer=sgd,sam "outputs='${outputs//\'/\\\'}'" ${overrides[@]+"${overrides[@]}"}
.venv/bin/python scripts/compare.py "$outputs"
