"""The SAM optimizer, which wraps any torch optimizer, and the learning-rate schedule."""

from sam.optim.sam import SAM

__all__ = ["SAM"]
