"""Writes thousands of run directories of the paper's conditions, to see what holds at that size.

python -m tests.report.many_runs FOLDER [--runs 10000] [--epochs 200]

They have the configs that train.py would write, and made-up numbers: every condition of the paper's tables
with its seeds, then SGD and SAM at each rho of the paper's grid on held-out images, then all again with other
keys. One run in 50 has diverged, one in 25 has not ended, one in 500 is damaged. A folder of the same name
holds the same whenever it is made.
"""

import argparse
import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sam.config.schema import TrainConfig
from sam.paper.cells import CELLS, read_cells
from sam.paper.runs import num_updates, runs_of
from sam.record.checksums import sealed
from sam.record.identity import identity, path_of

RHO_GRID = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
COLUMNS = (
    "epoch,step,lr,train_loss,train_error_pct,train_top5_error_pct,train_clean_error_pct,test_loss,test_error_pct,"
    "test_top5_error_pct,perturbed_loss,perturbed_error_pct,loss_rise,grad_norm,cosine,unperturbed,passes,seconds,"
    "images_per_second"
)
DAMAGES = {
    "config.yaml": "a: [",
    "metrics.csv": "epoch,test_error_pct\n1,abc\n",
    "result.json": '{"status": "comp',
}


def write_many(root: Path, num_runs: int, max_epochs: int = 200) -> None:
    """Write run directories.

    Args:
        root: Folder of all runs.
        num_runs: How many.
        max_epochs: metrics.csv has no more rows, however long the run.
    """
    texts: dict[str, str] = {}
    for position, config in enumerate(islice(_configs(str(root)), num_runs)):
        name = identity(config)
        if name not in texts:
            texts = {name: OmegaConf.to_yaml(dataclasses.asdict(config))}
            first_seed = config.seed
        # Seeds of one condition come one after the other, and writing YAML takes most of the time.
        text = texts[name].replace(f"\nseed: {first_seed}\n", f"\nseed: {config.seed}\n")
        _write(config, text, position, max_epochs)


def _configs(root: str) -> Iterator[TrainConfig]:
    """Yield configs in the order of the docstring, each directory once."""
    planned: list[TrainConfig] = []
    seen: set[Path] = set()
    for config in chain(_planned(root, planned), _sweeps(planned), _variants(planned)):
        if path_of(config) not in seen:
            seen.add(path_of(config))
            yield config


def _planned(root: str, planned: list[TrainConfig]) -> Iterator[TrainConfig]:
    """Yield the runs of the tables, and leave them in a list."""
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
    """Yield all again without clipping, and with other micro-batches."""
    for config in planned:
        yield dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, clip_norm=None))
    for m in (16, 64, 128, 256):
        for config in planned:
            yield dataclasses.replace(config, m=m)


def _write(config: TrainConfig, text: str, position: int, max_epochs: int) -> None:
    directory = path_of(config)
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(
        f"# Made by: python train.py seed={config.seed}\n{text}", encoding="utf-8"
    )
    draw = random.Random(hashlib.sha256(str(directory.name).encode()).hexdigest())
    error = draw.gauss(4.0 if config.optimizer.name == "sgd" else 3.4, 0.15) + 10 * config.dataset.label_noise
    has_ended = position % 25 != 7
    diverged = position % 50 == 21
    num_rows = (
        min(config.epochs, max_epochs) if has_ended and not diverged else min(config.epochs, max_epochs) // 3
    )
    (directory / "metrics.csv").write_text(_metrics(config, num_rows, error), encoding="utf-8")
    if has_ended:
        result = sealed(directory, _result(config, error, diverged))
        (directory / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if position % 500 == 111:
        name = list(DAMAGES)[position // 500 % len(DAMAGES)]
        (directory / name).write_text(DAMAGES[name], encoding="utf-8")


def _metrics(config: TrainConfig, num_rows: int, error: float) -> str:
    lines = [COLUMNS]
    for epoch in range(1, num_rows + 1):
        left = (1 - epoch / num_rows) ** 2
        test, train = error + 60 * left, 50 * left
        perturbed = f"{train / 30 + 0.0123456789},{train + 1.5},0.3331234567,2.25472593,0.81419813,0.0"
        if config.optimizer.name != "sam":
            perturbed = ",,,,,"
        lines.append(
            f"{epoch},{epoch * 195},{0.1 * left},{train / 40 + 0.00123456789},{train},{train / 9},,"
            f"{test / 30},{test},{test / 11},{perturbed},{2 * epoch},{31.55159 * epoch},1640.99156"
        )
    return "\n".join(lines) + "\n"


def _result(config: TrainConfig, error: float, diverged: bool) -> dict[str, Any]:
    is_sam = config.optimizer.name == "sam"
    steps = num_updates(config)
    return {
        "status": "diverged" if diverged else "complete",
        "message": "loss is nan at epoch 67, step 13000" if diverged else "",
        "identity": identity(config),
        "seed": config.seed,
        "dataset": config.dataset.name,
        "model": config.model.name,
        "augmentation": config.augmentation.name,
        "optimizer": config.optimizer.name,
        "rho": config.optimizer.rho if is_sam else None,
        "epochs": config.epochs,
        "test_error_pct": None if diverged else round(error, 2),
        "test_top5_error_pct": None if diverged else round(error / 11, 2),
        "test_loss": error / 30,
        "train_error_pct": 0.0123,
        "train_loss": 0.00123456789,
        "best": {"epoch": config.epochs, "test_error_pct": round(error, 2)},
        "num_parameters": 36_500_000,
        "steps": steps,
        "forward_backward_passes": float(steps * (1 + is_sam)),
        "seconds": round(150.0 * config.epochs * (1 + is_sam), 2),
        "images_per_second": 1640.0,
        "peak_memory_mib": 5120.4,
        "ended_at": "2026-11-25T20:13:42+00:00",
        "commit": "205bfb5f99a2",
        "versions": {"sam": "0.1.0", "python": "3.11.7", "torch": "2.14.1+cu130", "timm": "1.0.31"},
        "device": "NVIDIA H100 80GB HBM3",
        "threads": None,
        "precision": config.runtime.precision,
        "processes": 1,
    }


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
