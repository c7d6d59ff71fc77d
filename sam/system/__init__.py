"""Files, signals, errors, the machine: nothing in here knows of SAM."""
