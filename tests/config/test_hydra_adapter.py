"""What sam/config/hydra_adapter.py takes from inside Hydra is there. Mend that file if one of these fails."""

import sys
from importlib.metadata import version

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper

from sam.config import hydra_adapter
from sam.config.compose import CONFIGS
from sam.run.sweep import RunSweeper

CHANGED = f"hydra-core {version('hydra-core')} differs from 1.3.8; mend sam/config/hydra_adapter.py: "


def test_command_line_is_read_as_hydra_reads_it(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", "x", "-m", "seed=0,1", "m=2"])
    line = hydra_adapter.command_line()
    expected = hydra_adapter.CommandLine(["seed=0,1", "m=2"], True, False)
    assert line == expected, CHANGED + "command_line"
    for words, expected in (
        (["hydra.mode=MULTIRUN"], hydra_adapter.CommandLine(["hydra.mode=MULTIRUN"], True, False)),
        (["-sc", "install=bash"], hydra_adapter.CommandLine(["install=bash"], False, True)),
    ):
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        assert hydra_adapter.command_line() == expected, CHANGED + "command_line"


def test_our_launchers_are_taken_without_a_warning():
    ours = {path.name for path in (CONFIGS / "hydra" / "launcher").glob("*.yaml")}
    assert not ours & set(ConfigStore.instance().repo["hydra"]["launcher"]), CHANGED + "prefer_our_launchers"
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", ["hydra/launcher=submitit_slurm"], return_hydra_config=True)
    assert config.hydra.launcher.name == "sam"


def test_sweeper_is_known_by_the_name_in_its_config():
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        target = compose("train", return_hydra_config=True).hydra.sweeper._target_
    assert Plugins.instance().class_name_to_class.get(target) is RunSweeper, CHANGED + "register_plugin"
    assert Plugins.is_in_toplevel_plugins_module(target), CHANGED + "the namespace of plugins"
    assert issubclass(RunSweeper, Sweeper)


def test_combinations_are_all_runs_of_a_sweep_in_order():
    overrides = OverridesParser.create().parse_overrides(["seed=0,1", "+a='b c'", "optimizer.rho=range(1,3)"])
    assert hydra_adapter.combinations(overrides) == [
        ["seed=0", "+a='b c'", "optimizer.rho=1"],
        ["seed=0", "+a='b c'", "optimizer.rho=2"],
        ["seed=1", "+a='b c'", "optimizer.rho=1"],
        ["seed=1", "+a='b c'", "optimizer.rho=2"],
    ], CHANGED + "combinations"


def test_error_of_a_job_is_what_its_function_raised(capsys):
    error = RuntimeError("a fault")
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = error
    assert hydra_adapter.error_of(failed) is error, CHANGED + "error_of"
    assert hydra_adapter.error_of(JobReturn(status=JobStatus.COMPLETED)) is None, CHANGED + "error_of"
    assert capsys.readouterr().err == ""
