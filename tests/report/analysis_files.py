"""Writes analyses into run directories as evaluate.py leaves them, for the tests of all that reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_analysis(
    directory: Path, name: str, result: Mapping[str, Any], settings: Mapping[str, Any], epoch: int = 200
) -> Path:
    """Write one analysis and return its JSON file.

    Args:
        directory: Of the run.
        name: Kind of analysis.
        result: Its figures.
        settings: What it was asked for.
        epoch: After which it looked at the network.
    """
    path = directory / "analysis" / f"{name}-epoch{epoch}-0123abcd.json"
    path.parent.mkdir(exist_ok=True)
    record = {"analysis": name, "epoch": epoch, "step": 195 * epoch, "split": "test", "num_images": 1000}
    record |= {"statistics": "evaluation", "dtype": "float32", "seconds": 1.0, "device": "cpu", "threads": 1}
    record |= {"commit": "0123abcd", "versions": {}, "loss": 0.1, "error_pct": 3.0}
    path.write_text(json.dumps({**record, "settings": settings, "result": result}), encoding="utf-8")
    return path


def write_hessian(directory: Path, lambda_max: float, **result: Any) -> Path:
    """Write the spectrum of a Hessian with 5 eigenvalues, all probes alike."""
    eigenvalues = [lambda_max / (1 + place) for place in range(5)]
    figures = {"eigenvalues": eigenvalues, "residuals": [0.0] * 5, "smallest": -1.0, "lambda_max": lambda_max}
    figures |= {"lambda_max_over_5": 5.0, "trace": 10 * lambda_max, "trace_standard_error": 1.0}
    figures |= {"num_parameters": 100, "num_products": 120}
    settings = {"top": 5, "steps": 30, "probes": 2, "seed": 0, "save_vectors": False}
    path = write_analysis(directory, "hessian", {**figures, **result}, settings)
    nodes = np.linspace(-1.0, lambda_max, 30)
    np.savez(path.with_suffix(".npz"), nodes=[nodes, nodes], weights=np.full((2, 30), 1 / 30))
    return path


def write_sharpness(directory: Path, rises: Mapping[int, float], steps: Sequence[int] = (1,)) -> Path:
    """Write the m-sharpness for some m, equal for all numbers of ascent steps."""
    rows = [
        {"m": m, "ascent_steps": count, "loss_rise": rise, "loss_rise_standard_error": 0.01}
        | {"error_rise_points": 1.0, "num_subsets": 1000 // m}
        for m, rise in rises.items()
        for count in steps
    ]
    settings = {"rho": 0.05, "adaptive": False, "m": list(rises), "ascent_steps": list(steps)}
    return write_analysis(directory, "sharpness", {"rows": rows}, {**settings, "ascent_step_size": 1.0})
