"""Trials for processes of tests/run/test_rehearsal.py that end in every way; quick, for without torch."""

import os
import signal

from sam.config.schema import TrainConfig


def attempt(config: TrainConfig, num_updates: int) -> None:
    """End as the learning rate asks for."""
    if config.optimizer.lr == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError(f"lr is {config.optimizer.lr:g},\n  updates {num_updates}")
