"""Trials for tests/run/test_rehearsal.py that end in every way; they are fast, since they load no torch."""

import os
import signal

from sam.config.schema import TrainConfig


def run_trial(config: TrainConfig, num_updates: int) -> None:
    """End in the way that the learning rate selects."""
    if config.optimizer.lr == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError(f"lr is {config.optimizer.lr:g},\n  updates {num_updates}")
