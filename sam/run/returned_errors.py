"""Replacing a function of a library for a while by one that returns errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def errors_returned(owner: Any, name: str, made: Callable[[Exception], Any]) -> Iterator[None]:
    """Have a function return what is made of an error, instead of raising it.

    Args:
        owner: The module or class that has the function.
        name: The function's name.
        made: Called with an error that says in one line what happened; its result is returned.
    """
    original = getattr(owner, name)

    def returning(*arguments: Any, **keywords: Any) -> Any:
        try:
            return original(*arguments, **keywords)
        except Exception as error:  # its first lines say what happened to the job, and where its output is
            return made(RuntimeError(" ".join(str(error).splitlines()[:2])))

    setattr(owner, name, returning)
    try:
        yield
    finally:
        setattr(owner, name, original)
