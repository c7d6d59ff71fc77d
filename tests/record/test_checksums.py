"""Tests of sam/record/checksums.py, through the readers of an ended run."""

import json
from pathlib import Path
from typing import Any

import pytest

from sam.record.checksums import is_whole, sealed
from sam.record.directory import read_config, read_result
from sam.record.reader import find_runs
from sam.system.errors import ConfigError
from tests.record.run_directories import write_run


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """Return the directory of an ended run with checksums."""
    result = {"train_error_pct": None, "test_loss": float("nan")}
    return write_run(tmp_path, result, [{"epoch": 3, "test_error_pct": 5.0}], epochs=3)


def without(result: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in keys}


def test_sealed_run_is_read_by_all(ended: Path) -> None:
    result = read_result(ended)
    assert result is not None
    assert sorted(result["checksums"]) == ["config.yaml", "metrics.csv", "result.json"]
    ((run,), problems) = find_runs([ended])
    assert (run.result, problems) == (without(result, "config"), [])
    assert read_config(ended).epochs == 3


def test_flipped_bit_in_a_result_changes_no_number_unseen(ended: Path) -> None:
    path = ended / "result.json"
    content, whole = path.read_bytes(), read_result(ended)
    assert whole is not None
    seen = 0
    bits = range(0, 8 * len(content), 89)
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        result = read_result(ended)
        seen += result is None
        # A few bits change no value: those in the key "checksums", and digits that round to the same number.
        assert result is None or all(
            result.get(key) == value for key, value in without(whole, "checksums").items()
        )
    assert seen > 0.95 * len(bits)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv"])
@pytest.mark.parametrize("damage", ["is damaged: its checksum", "is missing"])
def test_damaged_file_of_an_ended_run_makes_the_run_a_problem(ended: Path, name: str, damage: str) -> None:
    path = ended / name
    text = path.read_text()
    path.write_text(text.replace("3", "4", 1))
    assert path.read_text() != text
    if damage == "is missing":
        path.unlink()
    runs, (problem,) = find_runs([ended.parent])
    assert runs == []
    assert problem.reason.startswith(f"{name} {damage}")
    assert "delete result.json and give the command of the run again" in problem.reason
    assert read_result(ended) is not None, "the run has still ended"
    if name == "config.yaml":
        with pytest.raises(ConfigError, match=damage if damage != "is missing" else "is not a run directory"):
            read_config(ended)


def test_result_of_a_version_without_checksums_is_taken_as_it_is(ended: Path) -> None:
    result = read_result(ended)
    assert result is not None
    (ended / "result.json").write_text(json.dumps(without(result, "checksums")))
    (ended / "metrics.csv").write_text("epoch,test_error_pct\n1,2.0\n")
    ((run,), problems) = find_runs([ended])
    assert problems == []
    assert run.result == without(result, "checksums", "config")


def test_checksums_of_another_kind_are_damage(tmp_path: Path) -> None:
    assert is_whole(sealed(tmp_path, {"a": 1.5}))
    assert not is_whole({"a": 1.5, "checksums": "none"})
    assert not is_whole({"a": 1.5, "checksums": {}})
