"""Tests of sam/report/config_diff.py."""

from pathlib import Path
from typing import Any

import pytest

from sam.report.config_diff import NOT_READ, Side, differences, find_sides, render_differences
from tests.record.run_directories import make_config, write_run


def _side(is_condition: bool = False, **changes: Any) -> Side:
    return Side("a side", make_config(**changes), is_condition)


def _found(first: Side, second: Side) -> list[tuple[Any, ...]]:
    return [tuple(difference) for difference in differences(first, second)]


def test_runs_differ_in_numbers_and_in_keys_that_decide_none() -> None:
    first, second = _side(), _side(optimizer__lr=0.2, seed=3, runtime__device="cuda")
    assert _found(first, second) == [
        ("optimizer.lr", 0.1, 0.2, True),
        ("runtime.device", "auto", "cuda", False),
        ("seed", 0, 3, True),
    ]


def test_sgd_reads_no_key_of_sam_and_only_rho_and_changed_ones_are_shown() -> None:
    second = _side(optimizer__name="sam", optimizer__adaptive=True)
    assert _found(_side(), second) == [
        ("optimizer.name", "sgd", "sam", True),
        ("optimizer.rho", NOT_READ, 0.05, True),
        ("optimizer.adaptive", NOT_READ, True, True),
    ]


def test_key_that_an_old_config_lacks_has_its_default() -> None:
    old = make_config()
    del old["dataset"]["verify"]
    assert _found(Side("old", old, False), _side()) == []
    assert _found(Side("old", old, False), _side(dataset__verify=False))[0][:3] == (
        "dataset.verify",
        True,
        False,
    )


def test_conditions_are_compared_without_their_seed_and_the_seed_in_the_labels() -> None:
    first = _side(True, seed=1, dataset__relabel_from="/runs/seed1-aaaaaaaa", runtime__device="cuda")
    second = _side(True, seed=2, dataset__relabel_from="/runs/seed2-aaaaaaaa", epochs=100)
    assert _found(first, second) == [("epochs", 200, 100, True)]


def test_sides_are_found_by_directory_and_by_identity(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"test_error_pct": 3.6}, seed=2)
    identity = run.name.rpartition("-")[2]
    assert find_sides([str(run)], [])[0].config["seed"] == 2
    assert find_sides([identity], [tmp_path])[0] == Side(identity, find_sides([str(run)], [])[0].config, True)
    unfinished = write_run(tmp_path, {"status": "interrupted"}, epochs=7)
    assert find_sides([unfinished.name.rpartition("-")[2]], [tmp_path])[0].config["epochs"] == 7


def test_missing_run_and_missing_identity_say_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--diff outputs/none: .*; name a run directory, or the identity"):
        find_sides(["outputs/none"], [tmp_path])
    with pytest.raises(ValueError, match=r"^--diff 0123abcd: no run in .* name the folder of your runs$"):
        find_sides(["0123abcd"], [tmp_path])


def test_text_has_a_table_for_each_kind_of_key() -> None:
    first, second = _side(), _side(optimizer__lr=0.2, runtime__device="cuda")
    text = render_differences(first, second, differences(first, second))
    assert "| optimizer.lr | 0.1 | 0.2 |" in text
    assert "| Keys that decide no number |" in text
    assert "| runtime.device             | auto | cuda |" in text
    assert "All keys that decide the numbers are equal." in render_differences(first, first, [])
