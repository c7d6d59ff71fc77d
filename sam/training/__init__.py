"""The training loop and its parts. The loop does not depend on which optimizer is used."""
