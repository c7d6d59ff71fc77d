"""Writes thousands of run directories of the paper's conditions, to test the readers with many runs.

python -m tests.report.many_runs FOLDER [--runs 10000] [--epochs 200]

It uses the functions with which the trainer writes, and made-up errors. It writes every condition of the
paper's tables with its seeds, then SGD and SAM at each rho of the paper's grid on held-out images, then all
conditions with other values of some keys. One run in 50 has diverged, one in 25 has not ended, and one in 500
is damaged. Two folders with the same name get the same files.
"""

import argparse
import dataclasses
import hashlib
import random
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import torch

from sam.config.schema import TrainConfig
from sam.logs.csv_log import CsvLog
from sam.paper.cells import CELLS, read_cells
from sam.paper.runs import runs_of
from sam.record.directory import write_config, write_result
from sam.record.identity import identity, path_of
from sam.run.result import make_result
from tests.record.run_directories import quick_writers

RHO_GRID = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
DAMAGES = {
    "config.yaml": "a: [",
    "metrics.csv": "epoch,test_error_pct\n1,abc\n",
    "result.json": '{"status": "comp',
}


def write_many(root: Path, num_runs: int, max_epochs: int = 200) -> None:
    """Write run directories.

    Args:
        root: Folder of all runs.
        num_runs: Number of runs.
        max_epochs: Largest number of rows of a metrics.csv.
    """
    with quick_writers():
        condition = first_text = ""
        for position, config in enumerate(islice(_configs(str(root)), num_runs)):
            directory = path_of(config)
            directory.mkdir(parents=True)
            path = directory / "config.yaml"
            if directory.name.rpartition("-")[2] != condition:
                write_config(directory, config, "python train.py")
                condition, first_seed = identity(config), config.seed
                first_text = path.read_text("utf-8")
            else:
                # Seeds of a condition follow each other; their texts are copied, since writing YAML is slow.
                seeds = (f"\nseed: {seed}\n" for seed in (first_seed, config.seed))
                path.write_text(first_text.replace(*seeds), "utf-8")
            _end(directory, config, position, max_epochs)


def _configs(root: str) -> Iterator[TrainConfig]:
    """Yield configs in the order that the module describes, each run directory once."""
    planned: list[TrainConfig] = []
    seen: set[Path] = set()
    for config in chain(_planned(root, planned), _sweeps(planned), _variants(planned)):
        if (directory := path_of(config)) not in seen:
            seen.add(directory)
            yield config


def _planned(root: str, planned: list[TrainConfig]) -> Iterator[TrainConfig]:
    """Yield the runs of the tables, and also append them to a list."""
    for cell in read_cells(CELLS):
        for run in runs_of(cell, range(cell.num_seeds), [f"outputs={root}"]):
            planned.append(run.config)
            yield run.config


def _sweeps(planned: list[TrainConfig]) -> Iterator[TrainConfig]:
    """Yield SGD and SAM at each rho, on held-out images, condition by condition."""
    held_out = [
        dataclasses.replace(config, dataset=dataclasses.replace(config.dataset, validation="last"))
        for config in planned
        if config.seed == 0 and config.dataset.relabel_from is None
    ]
    for config in held_out:
        for rho in RHO_GRID if config.optimizer.name == "sam" else (config.optimizer.rho,):
            for seed in range(5):
                yield dataclasses.replace(
                    config, seed=seed, optimizer=dataclasses.replace(config.optimizer, rho=rho)
                )


def _variants(planned: list[TrainConfig]) -> Iterator[TrainConfig]:
    """Yield all conditions without clipping, then with other micro-batches."""
    for config in planned:
        yield dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, clip_norm=None))
    for m in (16, 64, 128, 256):
        for config in planned:
            yield dataclasses.replace(config, m=m)


def _end(directory: Path, config: TrainConfig, position: int, max_epochs: int) -> None:
    """Write the other files of a run; its position decides whether it is complete."""
    has_ended = position % 25 != 7
    diverged = position % 50 == 21
    num_rows = min(config.epochs, max_epochs)
    if diverged or not has_ended:
        num_rows //= 3
    # A run with epochs=0 has one row too: the evaluation of the initial network.
    rows = _rows(config, directory.name, max(1, num_rows))
    CsvLog(directory / "metrics.csv").restart(rows)
    if has_ended:
        result = make_result(
            config,
            rows,
            complete=not diverged,
            num_parameters=36_500_000,
            num_passes=sum(row["passes"] for row in rows),
            total_seconds=sum(row["seconds"] for row in rows),
            device=torch.device("cpu"),
            num_processes=1,
            graph=False,
        )
        write_result(directory, result)
    if position % 500 == 111:
        name = list(DAMAGES)[position // 500 % len(DAMAGES)]
        (directory / name).write_text(DAMAGES[name], encoding="utf-8")


def _rows(config: TrainConfig, name: str, num_rows: int) -> list[dict[str, float]]:
    is_sam = config.optimizer.name == "sam"
    draw = random.Random(hashlib.sha256(name.encode()).hexdigest())
    error = draw.gauss(3.4 if is_sam else 4.0, 0.15) + 10 * config.dataset.label_noise
    rows = []
    for epoch in range(1, num_rows + 1):
        left = (1 - epoch / num_rows) ** 2
        test, train = error + 60 * left, 50 * left
        row = {
            "epoch": min(epoch, config.epochs),
            "step": epoch * 195,
            "lr": 0.1 * left,
            "train_loss": train / 40 + 0.00123456789,
            "train_error_pct": train,
            "train_top5_error_pct": train / 9,
            "test_loss": test / 30,
            "test_error_pct": test,
            "test_top5_error_pct": test / 11,
            "passes": 195.0 * (1 + is_sam),
            "seconds": 31.55159,
            "images_per_second": 1640.99156,
        }
        if is_sam:
            row |= {
                "perturbed_loss": train / 30 + 0.0123456789,
                "perturbed_error_pct": train + 1.5,
                "loss_rise": 0.3331234567,
                "grad_norm": 2.25472593,
                "cosine": 0.81419813,
                "unperturbed": 0.0,
            }
        rows.append(row)
    return rows


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=200)
    options = parser.parse_args()
    write_many(options.folder, options.runs, options.epochs)


if __name__ == "__main__":
    main()
