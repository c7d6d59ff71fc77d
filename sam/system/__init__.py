"""Files, signals, errors and the machine; nothing here depends on SAM."""
