"""The numbers that the paper printed, and the runs that repeat its tables and figures."""
