"""Functions that use internals of Hydra. No other file uses them. Imports no torch.

Tested with hydra-core 1.3.8. tests/config/test_hydra_adapter.py fails if a new version changes these
internals.
"""

from collections.abc import Iterable
from typing import NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.plugin import Plugin


class CommandLine(NamedTuple):
    """The arguments of a command line.

    Attributes:
        overrides: All arguments of the form KEY=VALUE.
        is_sweep: Whether keys may have several values.
        is_completion: Whether a shell asks for the completion of a word.
    """

    overrides: list[str]
    is_sweep: bool
    is_completion: bool


def command_line() -> CommandLine:
    """Return this process's command line as hydra.main reads it.

    Raises:
        SystemExit: With code 2, after a message, if there is an unknown option.
    """
    options = get_args_parser().parse_args()
    is_sweep = options.multirun or "hydra.mode=MULTIRUN" in options.overrides
    return CommandLine(options.overrides, is_sweep, options.shell_completion)


def prefer_our_launchers(names: Iterable[str]) -> None:
    """Remove the configs of installed launchers that have the same names as ours.

    Hydra would prefer our files to the configs of plugins, but print a warning.

    Args:
        names: File names in configs/hydra/launcher.
    """
    Plugins.instance()  # loads the installed launchers, which add their configs
    for name in names:
        ConfigStore.instance().repo["hydra"]["launcher"].pop(name, None)


def register_plugin(target: str, plugin: type[Plugin]) -> None:
    """Register a plugin class with Hydra.

    Hydra itself finds plugins only in the namespace package hydra_plugins, which a program does not have.

    Args:
        target: The name of the class in configs: hydra_plugins.PACKAGE.CLASS.
        plugin: The class.
    """
    Plugins.instance().class_name_to_class[target] = plugin


def combinations(overrides: list[Override]) -> list[list[str]]:
    """Return the overrides of every run of a sweep, in the order of Hydra's own sweeper."""
    [jobs] = BasicSweeper.split_arguments(overrides, None)
    return jobs


def error_of(job: JobReturn) -> BaseException | None:
    """Return the error of a job; None if it did not fail.

    JobReturn.return_value would raise the error, but it prints a line first.
    """
    if job.status is JobStatus.COMPLETED:
        return None
    error: BaseException = job._return_value
    return error
