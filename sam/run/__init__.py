"""One run, a sweep of runs, several processes, a rehearsal: what the entry points call."""
