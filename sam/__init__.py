"""Sharpness-Aware Minimization (Foret et al. 2021): optimizer, experiment runner, comparison."""

__version__ = "0.1.0"
