"""Runs with logger=trackio and logger=wandb, with the real packages in a virtual environment of their own.

The packages need other versions of libraries than the tests. They are installed from a folder, without a
network, and see the other libraries of this environment. To make the folder (65 MB) and run the tests:

    pip download --dest FOLDER trackio wandb
    SAM_WHEELS=FOLDER bash scripts/test.sh -m slow tests/logs/test_real_trackers.py
"""

import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import sysconfig

import pytest

from tests.quick_process import TRAIN
from tests.test_train import metrics, only_run
from tests.tiny import TINY

WHEELS = os.environ.get("SAM_WHEELS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("trackers"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        WHEELS is None, reason="SAM_WHEELS names no folder with the wheels of trackio and wandb"
    ),
]
CURVES = {"train/loss": "train_loss", "test/error_pct": "test_error_pct", "other/lr": "lr"}

# wandb's file of an offline run is a log of LevelDB: blocks of 32 KiB, with records in parts. Each part has a
# header: checksum, length, and kind (1 whole, 2 first, 3 middle, 4 last). The file begins with 7 other bytes.
READ_WANDB = """
import json, pathlib, struct, sys
from wandb.proto.wandb_internal_pb2 import Record

def records(content):
    place, parts = 7, []
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(b"".join(parts))
            parts = []

def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

(path,) = pathlib.Path("wandb").glob("offline-run-*/*.wandb")
found = {"rows": []}
for record in records(path.read_bytes()):
    if record.WhichOneof("record_type") == "run":
        found |= {"name": record.run.display_name, "settings": values(record.run.config.update)}
    if record.WhichOneof("record_type") == "history":
        row = values(record.history.item)
        found["rows"].append([row["_step"], row])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the Python of an environment with both packages and all libraries of this one."""
    folder = tmp_path_factory.mktemp("trackers") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    done = subprocess.run(
        [*install, "--no-index", "--find-links", WHEELS, "trackio", "wandb"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"trackio and wandb cannot be installed from {WHEELS}: {done.stderr[-300:]}")
    return python


def run_with(logger, python, folder):
    """Train for two epochs in an empty folder; return the rows of metrics.csv and the environment."""
    environment = {**os.environ, "HOME": str(folder), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    environment["TRACKIO_DIR"] = str(folder / "trackio")
    arguments = [python, TRAIN, *TINY, "epochs=2", f"logger={logger}"]
    ended = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return metrics(only_run(folder)), environment


def check(found, rows):
    """Check that a tracker has the name, the settings and the curves of a run."""
    assert found["name"] == "synthetic/resnet8/none/sam-rho0.05 seed 0"
    expected = {"optimizer.rho": 0.05, "model.name": "resnet8", "batch_size": 16, "seed": 0}
    assert expected.items() <= found["settings"].items()
    assert [step for step, _ in found["rows"]] == [1, 2]
    for (_, values), row in zip(found["rows"], rows, strict=True):
        for curve, column in CURVES.items():
            assert values[curve] == pytest.approx(float(row[column]), rel=1e-6), curve


def test_wandb_has_the_settings_and_curves_of_an_offline_run(python, tmp_path):
    rows, environment = run_with("wandb", python, tmp_path)
    reading = [python, "-c", READ_WANDB]
    read = subprocess.run(reading, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    check(json.loads(read.stdout), rows)


def test_trackio_has_the_settings_and_curves_of_a_run(python, tmp_path):
    rows, _ = run_with("trackio", python, tmp_path)
    (path,) = pathlib.Path(tmp_path, "trackio").glob("*.db")
    database = sqlite3.connect(path)
    logged = database.execute("select step, metrics from metrics order by step").fetchall()
    ((name, settings),) = database.execute("select run_name, config from configs").fetchall()
    database.close()
    found = {"name": name, "settings": json.loads(settings)}
    check({**found, "rows": [(step, json.loads(values)) for step, values in logged]}, rows)
