"""The run directory and all that is in it: written and read here, and nowhere else."""
