"""The typed schema of a run, the combinations of keys that are not allowed, and messages about mistakes."""
