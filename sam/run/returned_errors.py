"""Temporarily replace a function of a library by one that returns errors instead of raising them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def errors_returned(owner: Any, name: str, made: Callable[[Exception], Any]) -> Iterator[None]:
    """Make a function return a value instead of raising an error.

    Args:
        owner: The module or class of the function.
        name: The function's name.
        made: Makes the returned value from the error, whose message is then one line.
    """
    original = getattr(owner, name)

    def returning(*arguments: Any, **keywords: Any) -> Any:
        try:
            return original(*arguments, **keywords)
        except Exception as error:  # its first two lines name the failure and the job's output files
            return made(RuntimeError(" ".join(str(error).splitlines()[:2])))

    setattr(owner, name, returning)
    try:
        yield
    finally:
        setattr(owner, name, original)
