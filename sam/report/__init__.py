"""Compares runs with each other and with the paper's numbers, as tables and as a page; reads files only."""
