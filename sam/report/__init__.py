"""What runs left behind and what the paper printed: read, grouped and shown, from files alone."""
