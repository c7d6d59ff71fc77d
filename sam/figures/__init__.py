"""Every picture: plain data in, a matplotlib figure out."""
