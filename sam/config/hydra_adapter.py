"""What this program takes from inside Hydra: all of it stands here, and nowhere else. Imports no torch.

Tried with hydra-core 1.3.8. tests/config/test_hydra_adapter.py says so when a new version changes any of it.
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
    """The words of a command line.

    Attributes:
        overrides: All KEY=VALUE.
        is_sweep: Whether keys may have several values.
        is_completion: Whether a shell asks how a word can go on.
    """

    overrides: list[str]
    is_sweep: bool
    is_completion: bool


def command_line() -> CommandLine:
    """Return this process's command line as hydra.main reads it.

    Raises:
        SystemExit: 2, after a message, if there is an unknown option.
    """
    options = get_args_parser().parse_args()
    is_sweep = options.multirun or "hydra.mode=MULTIRUN" in options.overrides
    return CommandLine(options.overrides, is_sweep, options.shell_completion)


def prefer_our_launchers(names: Iterable[str]) -> None:
    """Remove the configs that installed launchers bring under the names of ours.

    Hydra takes the file of a program before the config of a plugin of the same name, but prints a warning.

    Args:
        names: File names in configs/hydra/launcher.
    """
    Plugins.instance()  # loads the installed launchers, which add their configs
    for name in names:
        ConfigStore.instance().repo["hydra"]["launcher"].pop(name, None)


def register_plugin(target: str, plugin: type[Plugin]) -> None:
    """Make a plugin known under a name.

    Hydra takes plugins only from packages in the namespace hydra_plugins; a program has none.

    Args:
        target: Its name in configs: hydra_plugins.PACKAGE.CLASS.
        plugin: The class.
    """
    Plugins.instance().class_name_to_class[target] = plugin


def combinations(overrides: list[Override]) -> list[list[str]]:
    """Return the overrides of every run of a sweep, in the order of Hydra's own sweeper."""
    [jobs] = BasicSweeper.split_arguments(overrides, None)
    return jobs


def error_of(job: JobReturn) -> BaseException | None:
    """Return why a job failed, None if it did not.

    JobReturn.return_value raises the error, but first prints a line of its own.
    """
    if job.status is JobStatus.COMPLETED:
        return None
    error: BaseException = job._return_value
    return error
