"""Train one run, or with -m a sweep of runs: python train.py --help.

Composes and checks the config, skips a run that has already ended, and otherwise starts the worker: in this
process, or in several processes with

    python train.py runtime=ddp runtime.processes=2 m=64

torchrun --nproc_per_node=2 train.py m=64 works too, for one run but not for a sweep.
"""

import shlex

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sam.config.compose import CONFIGS, checked
from sam.config.mistakes import refuses_mistakes, report_failures_at_once, report_mistakes
from sam.config.schema import TrainConfig
from sam.record.directory import read_result
from sam.record.identity import path_of
from sam.run.launch import start
from sam.run.sweep import RunSweeper  # noqa: F401 - importing it registers it with Hydra
from sam.system.processes import this_process


@refuses_mistakes(TrainConfig)
@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def main(composed: DictConfig) -> None:
    """Train one run."""
    with report_failures_at_once():
        train(checked(composed, TrainConfig))


def train(config: TrainConfig) -> None:
    """Skip the run if it has ended, else train it; print how it ended."""
    directory = path_of(config)
    result = None if config.force else read_result(directory)
    skipped = result is not None
    if result is None:
        result = start(config, command())
    if not this_process().is_main:
        return  # under torchrun, only the main process prints
    split = "test" if config.dataset.validation == "none" else "validation"
    # A run with epochs=0 has no train error.
    ending = result["message"] or ", ".join(
        f"{name} error {error:.2f} %"
        for name, error in ((split, result["test_error_pct"]), ("train", result["train_error_pct"]))
        if error is not None
    )
    note = "; ended before, skipped (force=true starts it from the beginning)" if skipped else ""
    print(f"{result['status']}: {ending}, {result['seconds']:.0f} s{note}\n  {directory}", flush=True)


def command() -> str:
    """Return the command that continues this run. It leaves out force, which would delete the run."""
    overrides = [item for item in HydraConfig.get().overrides.task if not item.startswith("force=")]
    return shlex.join(["python", "train.py", *overrides])


if __name__ == "__main__":
    report_mistakes(main)
