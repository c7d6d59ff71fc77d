"""What the paper printed, and the runs that a table or a figure of it takes."""
