"""Numbers together with their nouns, for messages."""


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: "1 run", "2 runs".

    Args:
        number: How many there are.
        noun: The singular of a noun whose plural ends with "s".
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
