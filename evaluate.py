"""Evaluate an ended or interrupted run: python evaluate.py run=RUN_DIRECTORY.

Prints loss, top-1, top-5 and per-class error and the expected calibration error of its newest checkpoint,
and writes them to evaluation-<split>.json in the run directory.
"""

import dataclasses
import json
import pathlib

import hydra
from omegaconf import DictConfig

from sam.cli import MISTAKES, checked, report_mistakes, tell
from sam.config import ConfigError, EvaluateConfig
from sam.run_directory import read_config, write_text

# Absolute, so that this module may also be imported, as worker processes and tests do.
CONFIGS = str(pathlib.Path(__file__).resolve().parent / "configs")


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Evaluate one run."""
    try:
        evaluate(checked(composed, EvaluateConfig))
    except MISTAKES as error:
        tell(error)
        raise


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate, print, write."""
    if not config.run:
        raise ConfigError("run is empty; name a run directory: python evaluate.py run=outputs/...")
    directory = pathlib.Path(config.run)
    training = read_config(directory)
    if config.root is not None:
        training.dataset.root = config.root
    from sam.worker import evaluate_run  # brings torch, which faults and help do without

    epoch, class_names, evaluation = evaluate_run(training, directory, config.split, config.device)
    print(f"{directory}\n{config.split} split, {evaluation.num_images} images, after {epoch} epochs")
    for label, value in (
        ("loss", f"{evaluation.loss:.4f}"),
        ("top-1 error", f"{evaluation.error_pct:.2f} %"),
        ("top-5 error", f"{evaluation.top5_error_pct:.2f} %"),
        ("calibration error", f"{evaluation.calibration_error_pct:.2f} %"),
        *((f"  {n}", f"{e:.2f} %") for n, e in zip(class_names, evaluation.class_error_pct, strict=True)),
    ):
        print(f"{label:<24}{value:>10}")
    path = directory / f"evaluation-{config.split}.json"
    record = {"split": config.split, "epoch": epoch, "class_names": class_names}
    write_text(path, json.dumps(record | dataclasses.asdict(evaluation), indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    report_mistakes(main)
