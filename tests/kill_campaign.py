"""Kill real runs with SIGKILL, let them go on, and compare bits.

    python tests/kill_campaign.py FOLDER KILLS SEED

A child process per life: forked from this one, which has everything imported, so that a life takes a second.
Every child dies at a point of its own choosing: before an update, in the middle of writing a checkpoint,
between its parts, at the n-th fsync or rename of any file, or from outside after a random time. Prints
one line per kill and, last, "N kills, M unequal".
"""

import csv
import io
import os
import pathlib
import random
import signal
import sys
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sam import worker  # noqa: E402
from sam.config import TrainConfig  # noqa: E402
from sam.run_directory import path_of, read_result  # noqa: E402
from sam.training.update import Update  # noqa: E402


def config_for(outputs, optimizer):
    """A run of 12 updates that saves after each of them."""
    config = TrainConfig(epochs=3, batch_size=8, m=4, outputs=str(outputs))
    config.dataset.name = config.dataset.reader = "synthetic"
    config.dataset.num_train, config.dataset.num_test = 32, 16
    config.dataset.image_size, config.dataset.num_classes = 12, 4
    config.augmentation.flip, config.augmentation.crop_padding = True, 2
    config.augmentation.name = "basic"
    config.model.width = 4
    config.optimizer.name = optimizer
    config.runtime.checkpoint_minutes = 1e-9
    config.runtime.threads = 1
    return config


def die():
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(owner, name, number):
    """Replace a function by one that dies at its n-th call."""
    original, calls = getattr(owner, name), []

    def dying(*arguments, **keywords):
        calls.append(1)
        if len(calls) == number:
            die()
        return original(*arguments, **keywords)

    setattr(owner, name, dying)


def die_inside_save(number, share):
    """Write only a share of the bytes of the n-th checkpoint, then die."""
    original, calls = torch.save, []

    def dying(state, file):
        calls.append(1)
        if len(calls) < number:
            return original(state, file)
        whole = io.BytesIO()
        original(state, whole)
        file.write(whole.getvalue()[: int(share * len(whole.getvalue()))])
        file.flush()
        die()

    torch.save = dying


def live(config, kill):
    """Run once in a forked child that dies as told; return how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            kind, *arguments = kill or ("never",)
            if kind == "update":
                die_at_call(Update, "__call__", *arguments)
            elif kind in ("fsync", "replace"):
                die_at_call(os, kind, *arguments)
            elif kind == "save":
                die_inside_save(*arguments)
            worker.run(config, "again")
            code = 0
        finally:
            os._exit(code)
    if kill and kill[0] == "time":
        time.sleep(kill[1])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def choose_kill(draw):
    """Draw a way to die."""
    kind = draw.choice(["update", "save", "save", "fsync", "replace", "time"])
    if kind == "save":
        return kind, draw.randint(1, 6), draw.random()
    if kind == "time":
        return kind, draw.uniform(0.05, 0.6)
    return kind, draw.randint(1, 8)


def outcome(directory):
    """Return all that must be equal: weights, optimizer, random state, rows and metrics without times."""
    state = torch.load(directory / "checkpoint.pt", weights_only=True)
    del state["progress"]["total_seconds"]
    with open(directory / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    result = read_result(directory)
    for row in [*state["progress"]["rows"], *rows, result]:
        for key in ("seconds", "images_per_second", "peak_memory_mib", "ended_at"):
            row.pop(key, None)
    return state, rows, result


def equal(one, other):
    """Compare nested values, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def campaign(folder, num_kills, seed):
    """Kill and continue runs until enough kills have happened; return kills and unequal runs."""
    draw, kills, unequal, number = random.Random(seed), 0, 0, 0
    expected = {}
    for optimizer in ("sam", "sgd"):
        config = config_for(folder / "undisturbed", optimizer)
        assert live(config, None) == 0
        expected[optimizer] = outcome(path_of(config))
    while kills < num_kills:
        number += 1
        optimizer = draw.choice(["sam", "sgd"])
        config = config_for(folder / f"run{number}", optimizer)
        lives = []
        for _ in range(draw.randint(1, 3)):
            kill = choose_kill(draw)
            code = live(config, kill)
            lives.append(f"{kill} -> {code}")
            kills += code == -signal.SIGKILL
        assert live(config, None) == 0
        good = equal(outcome(path_of(config)), expected[optimizer])
        unequal += not good
        print(f"{optimizer}: {'; '.join(lives)}: {'equal' if good else 'UNEQUAL'}", flush=True)
    return kills, unequal


if __name__ == "__main__":
    torch.set_num_threads(1)
    num_kills, num_unequal = campaign(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print(f"{num_kills} kills, {num_unequal} unequal")
