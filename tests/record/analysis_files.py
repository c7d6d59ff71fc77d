"""Writes analyses into run directories in the format of evaluate.py, for the tests of their readers."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam.record.analyses import Analysis, read_analyses
from sam.report.groups import Group
from tests.figures.drawn import groups_of
from tests.record.run_directories import write_run

SETTINGS: dict[str, dict[str, Any]] = {
    "sharpness": {
        "rho": 0.05,
        "adaptive": False,
        "m": [1, 4],
        "ascent_steps": [1],
        "ascent_step_size": 1.0,
    },
    "hessian": {"top": 5, "steps": 20, "probes": 3, "seed": 0, "save_vectors": False},
    "landscape": {
        "directions": "random",
        "dimensions": 2,
        "span": 1.0,
        "points": 5,
        "seed": 0,
        "other": None,
    },
    "second_order": {"num_batches": 8},
}


def write_analysis(
    directory: Path,
    name: str,
    result: Mapping[str, Any],
    epoch: int = 200,
    arrays: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **record: Any,
) -> Analysis:
    """Write one analysis of a run and return it.

    Args:
        directory: The run directory.
        name: Kind of analysis.
        result: The numbers that it computed.
        epoch: The epoch after which the network was analysed.
        arrays: Content of the npz file; None writes no npz file.
        settings: Settings that differ from SETTINGS.
        record: Other values of the JSON file that differ from those below.
    """
    asked = {**SETTINGS[name], **(settings or {})}
    content = {
        "analysis": name,
        "epoch": epoch,
        "step": 0,
        "split": "train",
        "num_images": 500,
        "statistics": "evaluation",
        "settings": asked,
        "loss": 0.1,
        "error_pct": 2.0,
        "result": result,
        **record,
    }
    digits = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    path = directory / "analysis" / f"{name}-epoch{epoch}-{digits}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    if arrays is not None:
        np.savez(path.with_suffix(".npz"), **{key: np.asarray(value) for key, value in arrays.items()})
    (made,) = (found for found in read_analyses(directory, name)[0] if found.path == path)
    return made


def rise_row(m: int, loss: float, ascent_steps: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a row of a sharpness analysis; its error rises by ten points per unit of loss."""
    row = {
        "m": m,
        "ascent_steps": ascent_steps,
        "loss_rise": loss,
        "loss_rise_standard_error": 0.1 * loss,
        "error_rise_points": 10 * loss,
        "num_subsets": 500 // m,
    }
    return {**row, **changes}


def write_sharpness(directory: Path, rises: Mapping[int, float], steps: Sequence[int] = (1,)) -> Analysis:
    """Write the m-sharpness for some m, equal for all numbers of ascent steps."""
    rows = [rise_row(m, rise, count) for m, rise in rises.items() for count in steps]
    settings = {"m": list(rises), "ascent_steps": list(steps)}
    return write_analysis(directory, "sharpness", {"rows": rows}, settings=settings)


def write_hessian(directory: Path, eigenvalues: Sequence[float], epoch: int = 200, **record: Any) -> Analysis:
    """Write a Hessian with some top eigenvalues and a bulk around 0, the same for all probes."""
    nodes = np.array([*eigenvalues, *np.linspace(-0.05, 0.1, 15) * max(eigenvalues)])
    weights = np.array([1e-4] * len(eigenvalues) + [1 / 15] * 15)
    weights /= weights.sum()
    result = {
        "eigenvalues": list(eigenvalues),
        "residuals": [1e-4] * len(eigenvalues),
        "smallest": float(nodes.min()),
        "lambda_max": eigenvalues[0],
        "lambda_max_over_5": eigenvalues[0] / eigenvalues[4] if len(eigenvalues) > 4 else None,
        "trace": float(sum(eigenvalues)),
        "trace_standard_error": 1.5,
        "num_parameters": 10000,
        "num_products": 60,
    }
    arrays = {"nodes": np.tile(nodes, (3, 1)), "weights": np.tile(weights, (3, 1))}
    return write_analysis(directory, "hessian", result, epoch, arrays, **record)


def write_surface(
    directory: Path, height: float, epoch: int = 200, holes: int = 0, **record: Any
) -> Analysis:
    """Write a bowl with a rim of the given height; its last `holes` points are not yet computed."""
    steps_1, steps_2 = np.linspace(-1, 1, 9), np.linspace(-1, 1, 7)
    loss = 0.1 + height * (steps_1[:, None] ** 2 + 0.5 * steps_2**2)
    loss.reshape(-1)[loss.size - holes :] = np.nan
    arrays = {"steps_1": steps_1, "steps_2": steps_2, "loss": loss, "error_pct": 10 * loss}
    result = {"loss_at_centre": 0.1, "lowest": 0.1, "highest": 0.1 + 1.5 * height}
    return write_analysis(directory, "landscape", result, epoch, arrays, **record)


def write_population(root: Path, **changes: object) -> list[Group]:
    """Write eight runs; their sharpness ranks them like their gap for m = 1, and at random for m = 500."""
    random = np.random.default_rng(0)
    for name in ("sgd", "sam"):
        for lr in (0.1, 0.2):
            for seed in (0, 1):
                gap = 1 + 10 * (name == "sgd") + 100 * lr + seed
                errors = {"test_error_pct": gap + 2, "train_error_pct": 2.0}
                directory = write_run(
                    root, errors, optimizer__name=name, optimizer__lr=lr, seed=seed, **changes
                )
                rows = [rise_row(1, gap**2), rise_row(500, random.random()), rise_row(1, 99.0, 3)]
                write_analysis(directory, "sharpness", {"rows": rows})
                write_analysis(directory, "sharpness", {"rows": [rise_row(1, 1.0)]}, 100)
    return groups_of(root)
