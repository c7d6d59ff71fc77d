"""Tests of sam/record/run_files.py; faults of the files are in test_reader.py and test_directory.py."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from sam.config.schema import TrainConfig
from sam.record.directory import read_config, write_config, write_result
from sam.record.reader import find_runs
from sam.record.run_files import KEYS_WITH_INFINITY, load_config, load_result, resolved
from sam.report.comparison import read_comparison
from sam.system.errors import ConfigError
from tests.conftest import changed
from tests.record.run_directories import make_result


def end_run(directory: Path, config: TrainConfig, with_config: bool = True) -> Path:
    """Write an ended run like the worker, or like an older version, without the config in result.json."""
    directory.mkdir(parents=True)
    write_config(directory, config, "python train.py")
    result = make_result(config)
    if not with_config:
        del result["config"]
    write_result(directory, result)
    return directory


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("YAML was read")


def test_report_of_new_ended_runs_reads_no_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        for name in ("sgd", "sam"):
            end_run(tmp_path / f"{name}{seed}", changed({"seed": seed, "optimizer.name": name}))
    for module, function in ((yaml, "parse"), (yaml, "load"), (OmegaConf, "load")):
        monkeypatch.setattr(module, function, refuse)
    comparison = read_comparison([tmp_path], tmp_path / "no cells.csv")
    assert [run.config["seed"] for run in comparison.runs] == [0, 1, 0, 1]
    assert [len(group.complete) for group in comparison.groups] == [2, 2]
    assert read_config(tmp_path / "sam1") == changed({"seed": 1})


CONFIGS = (
    {},
    {"optimizer.p": math.inf, "optimizer.lr": 1e-5, "epochs": 3},
    {"dataset.name": "1e5", "model.name": "null", "augmentation.name": "inf", "analysis.m": [1, None]},
    {"outputs": "é 'a' \"b\" # c: d", "m": None, "seed": 2**31 - 1},
)


@pytest.mark.parametrize("changes", CONFIGS)
def test_config_is_the_same_from_both_files(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = changed(changes)
    new, old = (end_run(tmp_path / name, config, name == "new") for name in ("new", "old"))
    (of_new, of_old), problems = find_runs([new, old])
    assert problems == []
    # repr, because 1 == 1.0 == True.
    assert repr(of_new.config) == repr(of_old.config) == repr(resolved(config))
    assert "config" not in (of_new.result or {})
    if not any("name" in key for key in changes):
        assert repr(read_config(new)) == repr(read_config(old)) == repr(config)


def test_every_key_that_may_be_infinite_survives_json(tmp_path: Path) -> None:
    assert ["optimizer", "p"] in KEYS_WITH_INFINITY
    config = changed({".".join(names): math.inf for names in KEYS_WITH_INFINITY})
    directory = end_run(tmp_path / "run", config)
    assert load_config(directory, load_result(directory)) == resolved(config)
    assert "Infinity" not in (directory / "result.json").read_text()


def test_seeds_of_a_condition_share_the_values(tmp_path: Path) -> None:
    for seed in range(2):
        end_run(tmp_path / str(seed), changed({"seed": seed}))
    (first, second), _ = find_runs([tmp_path])
    assert first.config["model"] is second.config["model"]
    assert (first.config["seed"], second.config["seed"]) == (0, 1)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (["a"], "result.json cannot be read: its config holds no keys"),
        (None, "result.json cannot be read: its config holds no keys"),
        ({}, "result.json cannot be read: its config has no seed"),
        ({"seed": "${oc.env:HOME}"}, "result.json cannot be read: its config has no seed"),
        ({"seed": 1, "a": ["${oc.env:HOME}"]}, "it has a reference, ${oc.env:HOME}"),
        ({"seed": 1, "a": "x" * 2**16}, "its config is longer than 65536 bytes"),
        ({"seed": 1}, "result.json has no dataset.name, so this is not a run"),
        ({"seed": 1, "optimizer": {"p": {}}}, "result.json has no dataset.name, so this is not a run"),
    ],
)
def test_config_that_no_run_writes_makes_the_run_a_problem(tmp_path: Path, config: Any, reason: str) -> None:
    directory = end_run(tmp_path / "run", TrainConfig())
    result = {**make_result(TrainConfig()), "config": config}
    (directory / "result.json").write_text(json.dumps(result))
    runs, (problem,) = find_runs([directory])
    assert runs == []
    assert reason in problem.reason


@pytest.mark.parametrize("config", [["a"], {"seed": 1, "a": "${oc.env:HOME}"}, {"seed": 1, "no_such_key": 1}])
def test_read_config_refuses_a_config_that_no_run_writes(tmp_path: Path, config: Any) -> None:
    directory = end_run(tmp_path / "run", TrainConfig())
    result = {**make_result(TrainConfig()), "config": config}
    (directory / "result.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"/result\.json is damaged: .+"):
        read_config(directory)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: &a [*a]", "alias"),
        ("a: 1\na: 2", "duplicate key a"),
        ("a: {b: 1, b: 2}", "duplicate key b"),
        ("? [1, 2]\n: 3", "unhashable key"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: [b, '${oc.env:HOME}']", r"it has a reference, \$\{oc.env:HOME\}"),
        ("3", "Invalid loaded object type"),
    ],
)
def test_load_config_refuses_yaml_that_is_not_a_config(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=reason):
        load_config(tmp_path, None)


def test_load_config_names_the_line_of_a_fault(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# one\n# two\nseed: 1\na: [\n")
    with pytest.raises(ValueError, match="line 5"):
        load_config(tmp_path, None)
