"""From every mistake on a command line to one clear message.

Exit codes: 0 done; 2 a mistake of the user (no traceback); 130 / 143 stopped by Ctrl-C / SIGTERM with the
state saved (138 / 140 by SIGUSR1 / SIGUSR2, which schedulers send); 1 a fault of the program (with
traceback). HYDRA_FULL_ERROR=1 shows every traceback.
"""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException, ValidationError

from sam.config.compose import GROUPS, SCHEMAS
from sam.config.schema import EvaluateConfig, TrainConfig, leaves
from sam.system.errors import ConfigError

MISTAKES = (ConfigError, OmegaConfBaseException, OSError)

_wants_tracebacks = False
_crashed_jobs: list[str] = []


def report_mistakes(main: Callable[[], None]) -> None:
    """Run a Hydra entry point; turn mistakes into one message and exit code 2.

    Args:
        main: What hydra.main returned.
    """
    global _wants_tracebacks
    _wants_tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing a text of its own
    _crashed_jobs.clear()
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint, if there is one", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if getattr(error, "already_told", False):
            sys.exit(1 if _crashed_jobs else 2)
        if _wants_tracebacks or not _is_mistake(error):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(2)


def _is_mistake(error: Exception) -> bool:
    # Hydra raises a plain ValueError for a group set to null.
    return isinstance(error, (HydraException, *MISTAKES)) or "Config group override" in str(error)


@contextmanager
def told_at_once() -> Iterator[None]:
    """Tell of a job's failure when it happens: of a sweep's failures, Hydra keeps only the first, to the end.

    Raises:
        SystemExit: 2, for a mistake outside a sweep, 1 for a process that failed; in a sweep that would end
            the other jobs too.
    """
    try:
        yield
    except Exception as error:
        in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        mistake = isinstance(error, MISTAKES)
        theirs = getattr(error, "worker_traceback", None)  # sam.run.launch: of the process that failed
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
    if "Config group override" in str(error):
        nulls = " ".join(item for item in sys.argv[1:] if "=" in item)
        return f"{nulls}: a group needs one choice; leave it out, or see --help"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: {_allowed(choice, error.options or ())}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read ({error}); wanted is KEY=VALUE, with quotes around odd text"
    for cause in chain:
        if isinstance(cause, ValidationError):
            return _explain_type(cause, error)
    text = str(error)
    if "nterpolation" in text:
        return text.splitlines()[0] + "; to mean the characters ${ themselves, write \\${"
    if match := re.search(r"Could not (?:override|append|load|delete)[^']*'([^'=]+)", text):
        return _explain_key(match[1].lstrip("+~").split("@")[0])
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.*?)'", text):
        return (
            f"{match[1]}={match[2]}: several values need a sweep; add -m, "
            f"or write '{match[1]}=[{match[2]}]' if a list is meant"
        )
    for cause in chain:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return _explain_key(cause.full_key)
    told = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    # Of a disk that is full, a folder that is not ours, a file too many.
    return f"{told}; mend that and give the same command again" if isinstance(error, OSError) else told


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _explain_type(fault: ValidationError, outer: BaseException) -> str:
    """Say of a value of the wrong type which key it was given to, and which type is wanted."""
    key = fault.full_key or ""
    value = fault.value
    if value is None and (match := re.search(r"Value '(.*?)' of type", str(fault))):
        value = match[1]
    if match := re.search(r"Error merging override ([^=\s]+)=(.*)", str(outer)):
        key, value = match[1].lstrip("+"), match[2]
    known = {name: field.type for schema in SCHEMAS.values() for name, _, field in leaves(schema())}
    wanted = known.get(key)
    if wanted is None:
        return f"{key}={value}: {_allowed_key(key)}"
    return f"{key}={value}: allowed is {_describe(wanted)}"


def _describe(wanted: Any) -> str:
    if wanted == list[int]:
        return "a list of whole numbers, such as [1,4]"
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    names = [name for name in words if name in str(wanted)]
    return words[names[0]] + (" or null" if "None" in str(wanted) or "Optional" in str(wanted) else "")


def _explain_key(key: str) -> str:
    return f"{key}: {_allowed_key(key)}"


def _allowed_key(key: str) -> str:
    """Say that there is no such key, and name those that come near, or those of its group."""
    if key.startswith("hydra."):
        return f"Hydra has no such key; see {os.path.basename(sys.argv[0])} --hydra-help"
    keys = [name for name, _, _ in leaves(_schema_in_use())]
    group, _, last = key.rpartition(".")
    siblings = [name for name in keys if name.rpartition(".")[0] == group]
    # First a slip inside the group, then a key right but for its group, such as rho for optimizer.rho.
    namesakes = [name for name in keys if name.split(".")[-1] == last]
    of_group = [name for name in namesakes if difflib.get_close_matches(group, [name.rpartition(".")[0]])]
    near = _near(key, siblings) + (of_group or namesakes)
    near = near or _near(key, [*keys, *GROUPS])
    if near:
        return f"there is no such key; did you mean {' or '.join(dict.fromkeys(near))}?"
    if not siblings:
        return "there is no such key; see --help for all"
    has_groups = not group and isinstance(_schema_in_use(), TrainConfig)
    groups = f"; groups are {', '.join(GROUPS)}" if has_groups else ""
    return f"there is no such key; allowed is one of {', '.join(siblings)}{groups}"


def _schema_in_use() -> Any:
    return EvaluateConfig() if "evaluate" in os.path.basename(sys.argv[0]) else TrainConfig()


def _allowed(choice: str, options: Iterable[str]) -> str:
    options = sorted(options)
    near = _near(choice, options)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no such choice; allowed is one of {', '.join(options)}{hint}"


def _near(name: str, names: Iterable[str]) -> list[str]:
    """Return up to two names whose last part resembles that of a name."""
    by_last = {other.split(".")[-1]: other for other in names}
    return [
        by_last[last] for last in difflib.get_close_matches(name.split(".")[-1], by_last, n=2, cutoff=0.7)
    ]
