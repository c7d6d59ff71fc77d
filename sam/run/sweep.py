"""A sweep of runs: python train.py -m optimizer=sgd,sam seed=0,1,2. Imports no torch.

Hydra's own sweeper passes every combination of values to a launcher. This one finds the run of each
combination, and passes each run that has not ended, once. At the end it prints a summary, and writes the
failed runs to a file, from which train.py can train them again. The launcher (hydra/launcher) trains the
runs: one after the other in this process, on Slurm or on Ray.
"""

import importlib.util
import os
import pathlib
import shlex
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig

from sam.config import hydra_adapter
from sam.config.compose import checked
from sam.config.composer import Composer, write_list
from sam.config.mistakes import MISTAKES, explain
from sam.config.overrides import refuse_mistakes
from sam.config.schema import TrainConfig
from sam.record.directory import read_result, result_if_any
from sam.record.identity import path_of
from sam.run import ray_adapter, submitit_adapter
from sam.run.launch import refuse_sweep_under_torchrun
from sam.system.errors import ConfigError
from sam.system.words import counted

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = {
    f"hydra_plugins.hydra_{name}_launcher": f"'hydra-{name}-launcher>=1.2,<2'" for name in ("submitit", "ray")
}


class SweepRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        overrides: Arguments of train.py.
        directory: The run directory.
        force: Whether the run starts again.
        has_ended: Whether the run has a result and force is false.
    """

    overrides: list[str]
    directory: pathlib.Path
    force: bool
    has_ended: bool


class Failure(NamedTuple):
    """A run that failed, or overrides that make no valid run.

    Attributes:
        overrides: Arguments of train.py that continue the run.
        error: The error.
        directory: The run directory; None if the overrides make no valid run.
    """

    overrides: list[str]
    error: BaseException
    directory: pathlib.Path | None = None


class RunSweeper(Sweeper):
    """Trains the runs of a sweep that have not ended.

    Args:
        file: A file with the overrides of one run per line; those of the command line are added to each line.
            None for a sweep of the command line only.
        max_batch_size: Number of runs that the launcher gets at once; None for all.
        params: Overrides that come before those of the command line.
    """

    def __init__(
        self, file: str | None, max_batch_size: int | None, params: Mapping[str, str] | None
    ) -> None:
        self._file = file
        self._max_batch_size = max_batch_size
        self._first_overrides = [f"{key}={value}" for key, value in (params or {}).items()]

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        """Make the launcher.

        Raises:
            ConfigError: If the launcher is not installed.
        """
        self._loader = hydra_context.config_loader
        self._config = config
        self._name = config.hydra.runtime.choices["hydra/launcher"]
        module = ".".join(config.hydra.launcher.get("_target_", "").split(".")[:2])
        if module in PACKAGES and importlib.util.find_spec(module) is None:
            raise ConfigError(f"hydra/launcher={self._name} is not installed; pip install {PACKAGES[module]}")
        on_slurm = self._name == "submitit_slurm"
        self._logs = str(config.hydra.launcher.submitit_folder).removesuffix("/%j") if on_slurm else ""
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[list[JobReturn]]:
        """Train the runs of a command line that have not ended.

        Raises:
            SystemExit: If a run failed: 2 if all failures are mistakes of the user, else 1.
        """
        refuse_sweep_under_torchrun()
        jobs = self._jobs(arguments)
        refuse_mistakes((word for job in jobs for word in job), TrainConfig)
        runs, failures = self._plan(jobs)
        if self._name != "basic" and any(run.force for run in runs):
            raise ConfigError(
                f"force=true with hydra/launcher={self._name} would delete a run whenever its job is "
                "started again; leave it out, and delete the directories of the runs that must start again"
            )
        missing = [run for run in runs if not run.has_ended]
        num_ended = len(runs) - len(missing)
        if num_ended:
            print(
                f"{num_ended} of {counted(len(runs), 'run')} ended before, skipped "
                "(force=true starts them from the beginning)"
            )
        sys.stdout.flush()
        try:
            failures += self._train(missing)
        except (SystemExit, KeyboardInterrupt) as stop:
            self._report_stop(runs)
            if getattr(stop, "code", None) == signal.SIGTERM:  # the exit code that Ray uses for SIGTERM
                raise SystemExit(128 + signal.SIGTERM) from stop
            raise
        self._report(runs, failures)
        return []

    def _report_stop(self, runs: Sequence[SweepRun]) -> None:
        num_ended = sum(result_if_any(run.directory) is not None for run in runs if not run.force)
        print(f"stopped; {num_ended} of {counted(len(runs), 'run')} ended; the same command goes on", end="")
        print(" without force=true" if any(run.force for run in runs) else "", end="")
        print("; Slurm jobs are still running, scancel ends them" if self._logs else "", flush=True)

    def _jobs(self, arguments: list[str]) -> list[list[str]]:
        """Return the overrides of every combination of values; with a file, for each of its lines."""
        parser = OverridesParser.create(config_loader=self._loader)
        overrides = parser.parse_overrides([*self._first_overrides, *arguments])
        jobs = hydra_adapter.combinations(overrides)
        if self._file is None:
            return jobs
        try:
            lines = pathlib.Path(self._file).expanduser().read_text(encoding="utf-8").splitlines()
            listed = [shlex.split(line) for line in lines if not line.lstrip().startswith("#")]
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"hydra.sweeper.file={self._file} cannot be read ({error}); it must be a text file with the "
                "overrides of one run per line"
            ) from error
        return [[*line, *job] for line in listed if line for job in jobs]

    def _plan(self, jobs: Iterable[list[str]]) -> tuple[list[SweepRun], list[Failure]]:
        """Return the runs, each once, and the jobs that make no valid run.

        Raises:
            HydraException: If the command line has an unknown key or option; then no run is started.
        """
        composed = Composer(self._loader, self._config)
        runs: dict[pathlib.Path, SweepRun] = {}
        failures = []
        for job in jobs:
            try:
                config = checked(composed(job), TrainConfig)
                directory = path_of(config)
                has_ended = read_result(directory) is not None and not config.force
            except HydraException:
                raise
            except MISTAKES as error:
                print(f"error: {explain(error)} (job {' '.join(job)})", file=sys.stderr)
                failures.append(Failure(job, error))
                continue
            runs.setdefault(directory, SweepRun(job, directory, config.force, has_ended))
        return list(runs.values()), failures

    def _train(self, runs: Sequence[SweepRun]) -> list[Failure]:
        """Let the launcher train runs; return those that failed."""
        _export_checkout_path()
        failures = []
        size = self._max_batch_size or max(1, len(runs))
        if runs and self._logs:
            print(f"to Slurm: {counted(len(runs), 'run')}; their output is in {self._logs}", flush=True)
        for first in range(0, len(runs), size):
            batch = runs[first : first + size]
            returns = self._launch([run.overrides for run in batch], first)
            for run, job in zip(batch, returns, strict=True):
                error = job if isinstance(job, Exception) else hydra_adapter.error_of(job)
                if error is not None:
                    failures.append(Failure(_continuing_overrides(run), error, run.directory))
        return failures

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn | Exception]:
        """Give jobs to the launcher; return the result or error of each.

        Raises:
            ConfigError: If the launcher did not accept them.
        """
        try:
            with self._with_errors_returned():
                return self._launcher.launch(jobs, initial_job_idx=first)
        except MISTAKES:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"hydra/launcher={self._name} did not accept the runs: {reason}") from error

    def _with_errors_returned(self) -> AbstractContextManager[None]:
        module = type(self._launcher).__module__.split(".")
        if "hydra_submitit_launcher" in module:
            return submitit_adapter.with_errors_returned()
        if "hydra_ray_launcher" in module:
            return ray_adapter.with_errors_returned()
        return nullcontext()

    def _report(self, runs: Sequence[SweepRun], failures: Sequence[Failure]) -> None:
        """Print a summary of all runs, the failures, and the command that trains the failed runs again.

        Raises:
            SystemExit: If a run failed.
        """
        lost = {failure.directory for failure in failures}
        ended = [run.directory for run in runs if run.directory not in lost]
        print(summary(ended, len(failures)), flush=True)
        if not failures:
            return
        jobs = [*(run.overrides for run in runs), *(failure.overrides for failure in failures)]
        common = set.intersection(*map(set, jobs))
        for failure in failures:
            own = [text for text in failure.overrides if text not in common]
            print(
                f"failed: {shlex.join(own or failure.overrides)}\n  {explain(failure.error)}", file=sys.stderr
            )
        print(f"only these again: {self._retry_command(failures)}", file=sys.stderr, flush=True)
        sys.exit(2 if all(isinstance(failure.error, MISTAKES) for failure in failures) else 1)

    def _retry_command(self, failures: Sequence[Failure]) -> str:
        """Write the overrides of the failed runs to a file; return the command that trains only these."""
        overrides = self._config.hydra.overrides
        file = write_list((failure.overrides for failure in failures), self._config.hydra.sweep.dir, "failed")
        theirs = ("hydra.sweeper.", "hydra.mode=")
        launcher = [word for word in overrides.hydra if not word.startswith(theirs)]
        # The launcher writes its own files there. With several values, each line of the file has its own.
        outputs = [word for word in overrides.task if word.startswith("outputs=") and "," not in word]
        return shlex.join(["python", "train.py", "-m", file, *launcher, *outputs])


def summary(ended: Iterable[pathlib.Path], num_failed: int) -> str:
    """Return a summary of runs in one line.

    Args:
        ended: Directories of the runs that did not fail.
        num_failed: Number of failed runs.
    """
    statuses = [result["status"] for path in ended if (result := result_if_any(path)) is not None]
    counts = [f"{statuses.count(status)} {status}" for status in ("complete", "diverged")]
    return f"{counted(len(statuses) + num_failed, 'run')}: {', '.join(counts)}, {num_failed} failed"


def _continuing_overrides(run: SweepRun) -> list[str]:
    """Return the overrides that continue a run: without force once the old result has been deleted."""
    has_begun = run.force and result_if_any(run.directory) is None
    return [word for word in run.overrides if not (has_begun and word.startswith("force="))]


def _export_checkout_path() -> None:
    """Add this checkout to PYTHONPATH, so that jobs find it in any folder and on any machine."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), *paths]))


hydra_adapter.register_plugin("hydra_plugins.sam.RunSweeper", RunSweeper)
