"""Temporarily replace a function of a library by one that returns errors instead of raising them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def errors_returned(owner: Any, name: str, made: Callable[[Exception], Any]) -> Iterator[None]:
    """Make a function return a value for an error instead of raising it.

    Args:
        owner: The module or class of the function.
        name: The function's name.
        made: Called with an error whose message is one line; the function returns its result.
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
