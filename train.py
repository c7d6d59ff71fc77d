"""Train one run, or with -m a sweep of runs: python train.py --help.

Composes and checks the config, skips a run that has ended, and hands the rest to the one worker.
"""

import pathlib

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sam.cli import MISTAKES, checked, report_mistakes, tell
from sam.config import TrainConfig
from sam.run_directory import path_of, read_result

# Absolute, so that this module may also be imported, as worker processes and tests do.
CONFIGS = str(pathlib.Path(__file__).resolve().parent / "configs")


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="train")
def main(composed: DictConfig) -> None:
    """Do one run."""
    try:
        train(checked(composed, TrainConfig))
    except MISTAKES as error:
        tell(error)
        raise


def train(config: TrainConfig) -> None:
    """Skip the run if it has ended; train it otherwise, and say how it ended."""
    directory = path_of(config)
    result = None if config.force else read_result(directory)
    skipped = result is not None
    if result is None:
        from sam.worker import run  # brings torch, which help, faults and ended runs do without

        result = run(config, command())
    ending = result["message"] or (
        f"test error {result['test_error_pct']:.2f} %, train error {result['train_error_pct']:.2f} %"
    )
    note = "; ended before, skipped (force=true starts it anew)" if skipped else ""
    print(f"{result['status']}: {ending}, {result['seconds']:.0f} s{note}\n  {directory}", flush=True)


def command() -> str:
    """Return the command that runs this job again."""
    return " ".join(["python train.py", *HydraConfig.get().overrides.task])


if __name__ == "__main__":
    report_mistakes(main)
