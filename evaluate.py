"""Evaluate or analyse ended or interrupted runs: python evaluate.py run=RUN_DIRECTORY [analysis=NAME].

Without an analysis, it evaluates the newest checkpoint. It prints the loss, the top-1, top-5 and per-class
error and the expected calibration error, and writes them to evaluation-<split>.json in the run directory. An
analysis (sharpness, hessian, landscape, second_order) writes its numbers and a picture to the folder
analysis/ of the run directory.
"""

import pathlib
import sys

import hydra
from omegaconf import DictConfig

from sam.config.compose import CONFIGS, checked
from sam.config.mistakes import refuses_mistakes, report_failures_at_once, report_mistakes
from sam.config.schema import EvaluateConfig
from sam.record.reader import find_runs
from sam.system.errors import ConfigError


@refuses_mistakes(EvaluateConfig)
@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Evaluate or analyse one run, or all runs below a folder."""
    with report_failures_at_once():
        config = checked(composed, EvaluateConfig)
        found = directories(config.run)
        from sam.run.evaluation import evaluate_or_analyse_all  # imports torch: report mistakes first

        evaluate_or_analyse_all(found, config)


def directories(run: str) -> list[pathlib.Path]:
    """Return the named run directory, or all run directories below the named folder."""
    if not run:
        raise ConfigError("run is empty; name a run directory: python evaluate.py run=outputs/...")
    named = pathlib.Path(run)
    runs, problems = find_runs([named])
    for problem in problems if runs else []:  # without runs, reading the named one reports the fault
        print(f"warning: {problem.path}: {problem.reason}", file=sys.stderr)
    return [found.directory for found in runs] or [named]


if __name__ == "__main__":
    report_mistakes(main)
