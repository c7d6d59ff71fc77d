"""Turns every mistake of the user into one clear message.

Exit codes: 0 done; 2 a mistake of the user (no traceback); 130 / 143 stopped by Ctrl-C / SIGTERM with the
state saved (138 / 140 by SIGUSR1 / SIGUSR2, which schedulers send); 1 a fault of the program (with
traceback). HYDRA_FULL_ERROR=1 shows every traceback.
"""

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)

from sam.config import hydra_adapter
from sam.config.overrides import (
    HINT_ON_INTERPOLATION,
    KEYS,
    explain_key,
    explain_type,
    near_names,
    refuse_mistakes,
    unreadable,
)
from sam.config.schema import TrainConfig
from sam.system.errors import ConfigError, first_line

MISTAKES = (ConfigError, OmegaConfBaseException, OSError)

_wants_tracebacks = False
_crashed_jobs: list[str] = []


def report_mistakes(main: Callable[[], None]) -> None:
    """Run a Hydra entry point; turn mistakes into one message and exit code 2.

    Args:
        main: The return value of hydra.main.
    """
    global _wants_tracebacks
    _wants_tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors instead of printing its own text
    _crashed_jobs.clear()
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint, if there is one", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if getattr(error, "already_told", False):
            sys.exit(1 if _crashed_jobs else 2)
        if _wants_tracebacks or not isinstance(error, (HydraException, *MISTAKES)):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(2)


def refuses_mistakes(schema: type[Any]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Return a decorator that checks the command line against a schema before a Hydra entry point starts."""

    def decorated(main: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(main)
        def checked_main() -> None:
            line = hydra_adapter.command_line()
            if not line.is_completion:
                refuse_mistakes(line.overrides, schema, in_sweep=line.is_sweep)
            main()

        return checked_main

    return decorated


@contextmanager
def report_failures_at_once() -> Iterator[None]:
    """Report the failure of a job when it happens.

    Hydra itself reports only the first failure of a sweep, at the end.

    Raises:
        SystemExit: With code 2 for a mistake, 1 for a process that failed. Not in a sweep, because it would
            end the other jobs too.
    """
    try:
        yield
    except Exception as error:
        in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        mistake = isinstance(error, MISTAKES)
        theirs = getattr(error, "worker_traceback", None)  # that of the process that failed, see ProcessError
        if not in_sweep and theirs is None and (_wants_tracebacks or not mistake):
            raise
        job = f" (job {' '.join(HydraConfig.get().overrides.task)})" if in_sweep else ""
        if theirs is not None:
            print(theirs, end="", file=sys.stderr)
        elif not mistake or _wants_tracebacks:
            traceback.print_exc()
        if not mistake:
            _crashed_jobs.append(job)
        print(f"error: {explain(error)}{job}", file=sys.stderr, flush=True)
        if not in_sweep:
            sys.exit(2 if mistake else 1)
        error.already_told = True  # type: ignore[attr-defined]
        raise


def explain(error: BaseException) -> str:
    """Return one message for a mistake: the key, the value, what is allowed, what to do."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, ConfigError):  # it may come from a resolver, through OmegaConf
            return str(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: {_allowed(choice, error.options or ())}"
    if isinstance(error, OverrideParseException):
        return unreadable(error)
    told = first_line(error)
    for cause in chain:
        if isinstance(cause, OmegaConfBaseException):
            return _explain_value(cause, told)
    # OSError: a full disk, a missing permission, too many open files.
    return f"{told}; correct this and give the same command again" if isinstance(error, OSError) else told


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explain_value(cause: OmegaConfBaseException, told: str) -> str:
    """Explain an error of OmegaConf: a wrong value, an interpolation, or an unknown key."""
    key = cause.full_key or ""
    if isinstance(cause, ValidationError) and key in KEYS[TrainConfig]:
        return explain_type(key, cause.value)
    if isinstance(cause, InterpolationResolutionError | GrammarParseError):
        return f"{told}; {HINT_ON_INTERPOLATION}"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and key:
        if key.startswith("hydra."):
            return f"{key}: Hydra has no such key; see {os.path.basename(sys.argv[0])} --hydra-help"
        return explain_key(key)
    reason = first_line(cause)
    return told if reason == told else f"{told}: {reason}"


def _allowed(choice: str, options: Iterable[str]) -> str:
    options = sorted(options)
    near = near_names(choice, options)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no such choice; allowed is one of {', '.join(options)}{hint}"
