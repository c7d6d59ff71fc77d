"""The training loop and what it stands on; it never asks which optimizer it has."""
