"""Evaluate ended or interrupted runs, or analyse them: python evaluate.py run=RUN_DIRECTORY [analysis=NAME].

Without an analysis, prints loss, top-1, top-5 and per-class error and the expected calibration error of the
newest checkpoint, and writes them to evaluation-<split>.json in the run directory. An analysis (sharpness,
hessian, landscape, second_order) leaves numbers and a picture in the folder analysis/ there.
"""

import pathlib
import sys

import hydra
from omegaconf import DictConfig

from sam.config.compose import CONFIGS, checked
from sam.config.mistakes import refuses_mistakes, report_mistakes, told_at_once
from sam.config.schema import EvaluateConfig
from sam.record.reader import find_runs
from sam.system.errors import ConfigError


@refuses_mistakes(EvaluateConfig)
@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Evaluate or analyse one run, or all below a folder."""
    with told_at_once():
        config = checked(composed, EvaluateConfig)
        found = directories(config.run)
        from sam.run.evaluation import look_at_all  # after the mistakes that need no torch

        look_at_all(found, config)


def directories(run: str) -> list[pathlib.Path]:
    """Return the run directory that is named, or those below the folder that is."""
    if not run:
        raise ConfigError("run is empty; name a run directory: python evaluate.py run=outputs/...")
    named = pathlib.Path(run)
    runs, problems = find_runs([named])
    for problem in problems if runs else []:  # one run that is damaged says so when it is read
        print(f"warning: {problem.path}: {problem.reason}", file=sys.stderr)
    return [found.directory for found in runs] or [named]


if __name__ == "__main__":
    report_mistakes(main)
