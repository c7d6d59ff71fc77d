#!/usr/bin/env bash
# Train with SGD and with SAM on real images, then print a table and draw a picture:
#     bash scripts/quickstart.sh [KEY=VALUE...]
# The keys are those of train.py, such as outputs=FOLDER, seed=0,1,2 or epochs=5. Complete runs are skipped.
set -euo pipefail
here=$PWD
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

outputs=$PWD/outputs/quickstart
overrides=()
for override in "$@"; do
    case $override in
    -*)
        sed -n 2,4p scripts/quickstart.sh
        exit 2
        ;;
    outputs=/*) outputs=${override#outputs=} ;;
    outputs=*) outputs=$here/${override#outputs=} ;;
    *) overrides+=("$override") ;;
    esac
done

bash scripts/setup.sh requirements.txt
# Hydra needs the inner quotes if the path contains a space or a quote.
.venv/bin/python train.py -m experiment=quickstart optimizer=sgd,sam "outputs='${outputs//\'/\\\'}'" ${overrides[@]+"${overrides[@]}"}
.venv/bin/python scripts/compare.py "$outputs"
