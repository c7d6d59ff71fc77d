"""Watch a long run from outside: does memory grow, or the number of open files, or the time of an epoch?

    python tests/faults/long_run.py FOLDER EPOCHS

Trains a tiny network with train.py and prints ten times on the way, as often as epochs have passed: epoch,
resident memory in MiB, open files, threads, milliseconds per epoch since the line before, and the bytes of
the checkpoint.
"""

import contextlib
import csv
import os
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = [
    "dataset=synthetic",
    "dataset.num_train=4",
    "dataset.num_test=4",
    "dataset.image_size=8",
    "dataset.num_classes=2",
    "model.width=1",
    "batch_size=4",
    "optimizer=sam",
    "runtime.threads=1",
]


class Look(NamedTuple):
    """A run at one moment."""

    epoch: int
    memory_mib: float
    num_files: int
    num_threads: int
    milliseconds_per_epoch: float
    checkpoint_bytes: int


def watched(folder, epochs, num_looks=10):
    """Yield a look after each of so many equal parts of a run; the run is over after the last.

    Raises:
        RuntimeError: If the run fails.
    """
    command = [sys.executable, str(ROOT / "train.py"), *TINY, f"outputs={folder}", f"epochs={epochs}"]
    with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
        child = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
    try:
        epoch, moment = 0, None
        for part in range(1, num_looks):
            while (now := last_epoch(folder)) < part * epochs // num_looks:
                if child.poll() is not None:
                    raise RuntimeError((folder / "err").read_text())
                time.sleep(0.02)
            before, moment = moment, time.monotonic()
            passed = 1000 * (moment - before) / (now - epoch) if before else float("nan")
            epoch = now
            yield observe(child.pid, folder, epoch, passed)
        if child.wait() != 0:
            raise RuntimeError((folder / "err").read_text())
    finally:
        child.kill()
        child.wait()


def last_epoch(folder):
    """Return the number of complete epochs, from the end of metrics.csv."""
    for path in folder.glob("*/*/*/*/*/metrics.csv"):
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 1000))
            *_, line, _ = [b"", *file.read().split(b"\n")]
        number = line.split(b",")[0]
        return int(number) if number.isdigit() else 0
    return 0


def observe(process, folder, epoch, milliseconds):
    """Measure a process."""
    lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return Look(
        epoch,
        int(status["VmRSS"].split()[0]) / 1024,
        len(os.listdir(f"/proc/{process}/fd")),
        int(status["Threads"]),
        milliseconds,
        checkpoint_bytes(folder),
    )


def checkpoint_bytes(folder):
    """Return the size of the checkpoint; for a moment in each epoch, while it is replaced, there is none."""
    while True:
        with contextlib.suppress(StopIteration, FileNotFoundError):
            return next(folder.glob("*/*/*/*/*/checkpoint.pt")).stat().st_size


if __name__ == "__main__":
    table = csv.writer(sys.stdout)
    table.writerow(Look._fields)
    for seen in watched(pathlib.Path(sys.argv[1]), int(sys.argv[2])):
        table.writerow(f"{value:.1f}" if isinstance(value, float) else value for value in seen)
        sys.stdout.flush()
