"""Evaluate an ended or interrupted run: python evaluate.py run=RUN_DIRECTORY.

Prints loss, top-1, top-5 and per-class error and the expected calibration error of its newest checkpoint,
and writes them to evaluation-<split>.json in the run directory.
"""

import dataclasses
import pathlib

import hydra
from omegaconf import DictConfig

from sam.cli import checked, report_mistakes, told_at_once
from sam.config import ConfigError, EvaluateConfig
from sam.run_directory import read_config, write_json

# Absolute, so that this module may also be imported, as worker processes and tests do.
CONFIGS = str(pathlib.Path(__file__).resolve().parent / "configs")


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Evaluate one run."""
    with told_at_once():
        evaluate(checked(composed, EvaluateConfig))


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate, print, write."""
    if not config.run:
        raise ConfigError("run is empty; name a run directory: python evaluate.py run=outputs/...")
    directory = pathlib.Path(config.run)
    training = read_config(directory)
    if config.root is not None:
        training.dataset.root = config.root
    from sam.trained import evaluate_run  # brings torch, which faults and help do without

    moment, class_names, evaluation = evaluate_run(training, directory, config.split, config.device)
    held_out = config.split == "test" and training.dataset.validation != "none"
    split = "validation" if held_out else config.split
    print(f"{directory}\n{split} split, {evaluation.num_images} images, after {moment}")
    for label, value in (
        ("loss", f"{evaluation.loss:.4f}"),
        ("top-1 error", f"{evaluation.error_pct:.2f} %"),
        ("top-5 error", f"{evaluation.top5_error_pct:.2f} %"),
        ("calibration error", f"{evaluation.calibration_error_pct:.2f} %"),
        *((f"  {n}", f"{e:.2f} %") for n, e in zip(class_names, evaluation.class_error_pct, strict=True)),
    ):
        print(f"{label:<24}{value:>10}")
    path = directory / f"evaluation-{split}.json"
    record = {"split": split, "after": moment, "class_names": class_names}
    write_json(path, record | dataclasses.asdict(evaluation))
    print(f"written to {path}")


if __name__ == "__main__":
    report_mistakes(main)
