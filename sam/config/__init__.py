"""The typed schema of a run, what does not go together in it, and clear messages about mistakes."""
