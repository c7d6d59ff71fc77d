"""The run directory and its files. Only this package writes and reads them."""
