"""Sharpness-Aware Minimization (Foret et al. 2021): the optimizer, and the runner of its experiments."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sam.optim import SAM
else:

    def __getattr__(name: str) -> object:
        """Import SAM, and with it torch, when it is first asked for (PEP 562)."""
        if name == "SAM":
            from sam.optim import SAM

            return SAM
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["SAM"]
__version__ = "0.1.0"
