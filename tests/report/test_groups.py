"""Tests of sam/report/groups.py."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sam.record.reader import find_runs
from sam.report.groups import Group, group_runs
from sam.report.table import build_setting_tables
from sam.report.text_tables import setting_table
from tests.record.run_directories import make_config, write_run


def _groups(*roots: Path) -> tuple[list[Group], list[str]]:
    return group_runs(find_runs(roots)[0])


def test_groups_join_runs_that_differ_in_seed_only(tmp_path: Path) -> None:
    for seed, error in ((0, 3.0), (1, 4.0)):
        write_run(tmp_path, {"test_error_pct": error}, seed=seed)
        write_run(tmp_path, {"test_error_pct": error - 1}, seed=seed, optimizer__name="sam")
    groups, warnings = _groups(tmp_path)
    assert warnings == []
    assert [group.label for group in groups] == ["SGD", "SAM rho=0.05"]
    assert groups[0].values("test_error_pct") == {0: 3.0, 1: 4.0}
    assert groups[1].values("test_error_pct") == {0: 2.0, 1: 3.0}
    assert groups[0].setting == groups[1].setting


def test_groups_order_is_sgd_then_sam_then_adaptive_by_rho(tmp_path: Path) -> None:
    write_run(tmp_path, optimizer__name="sam", optimizer__adaptive=True, optimizer__rho=0.01)
    for rho in (0.2, 0.05, 1.0):
        write_run(tmp_path, optimizer__name="sam", optimizer__rho=rho)
    write_run(tmp_path)
    assert [group.label for group in _groups(tmp_path)[0]] == [
        "SGD",
        "SAM rho=0.05",
        "SAM rho=0.2",
        "SAM rho=1",
        "adaptive SAM rho=0.01",
    ]


def test_groups_of_another_base_optimizer_have_its_name_and_a_setting_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path)
    for name in ("sgd", "sam"):
        write_run(tmp_path, optimizer__name=name, optimizer__base="adamw")
    groups, _ = _groups(tmp_path)
    assert sorted(group.label for group in groups) == ["AdamW", "SAM rho=0.05", "SGD"]
    assert len({group.setting.key for group in groups}) == 2
    headers = [setting_table(table).header for table in build_setting_tables(groups, {})]
    assert {header[3] for header in headers} == {"Difference to SGD (points)", "Difference to AdamW (points)"}


def test_groups_order_settings_by_length_as_a_number(tmp_path: Path) -> None:
    for epochs in (200, 1800, 40):
        write_run(tmp_path, epochs=epochs)
    assert [group.config["epochs"] for group in _groups(tmp_path)[0]] == [40, 200, 1800]


def test_groups_pass_over_runs_that_have_not_ended(tmp_path: Path) -> None:
    write_run(tmp_path, {"status": "interrupted"})
    assert _groups(tmp_path) == ([], [])


def test_groups_count_diverged_runs_and_never_average_them(tmp_path: Path) -> None:
    write_run(tmp_path, {"test_error_pct": 3.0}, seed=0)
    write_run(tmp_path, {"status": "diverged", "test_error_pct": 90.0}, seed=1)
    write_run(tmp_path, {"status": "diverged", "test_error_pct": None}, seed=2)
    ((group,), _) = _groups(tmp_path)
    assert group.num_diverged == 2
    assert group.values("test_error_pct") == {0: 3.0}


def test_groups_leave_missing_numbers_out(tmp_path: Path) -> None:
    write_run(tmp_path, {"test_top5_error_pct": None}, seed=0)
    write_run(tmp_path, {"test_top5_error_pct": 0.3}, seed=1)
    ((group,), _) = _groups(tmp_path)
    assert group.values("test_top5_error_pct") == {1: 0.3}
    assert group.values("unknown") == {}


def test_groups_count_copies_once_and_warn(tmp_path: Path) -> None:
    kept = [write_run(tmp_path / "a", seed=seed) for seed in (3, 4)]
    copies = [write_run(tmp_path / "b", seed=seed, dataset__root="/other/machine") for seed in (3, 4)]
    ((group,), warnings) = _groups(tmp_path / "a", tmp_path / "b")
    assert [run.directory for run in group.complete] == kept
    assert warnings == ["left out: 2 copies of runs with the same seed and test error"]
    (_, warnings) = _groups(tmp_path / "a", copies[0])
    assert warnings == ["left out: 1 copy of a run with the same seed and test error"]


def test_groups_say_so_where_copies_differ(tmp_path: Path) -> None:
    kept = write_run(tmp_path / "a", {"test_error_pct": 3.0})
    copy = write_run(tmp_path / "b", {"test_error_pct": 3.1})
    ((group,), warnings) = _groups(tmp_path / "a", tmp_path / "b")
    assert group.values("test_error_pct") == {0: 3.0}
    assert warnings == [f"{copy}: left out, it repeats seed 0 of {kept}, but has another test error"]


def test_groups_of_other_identity_in_one_setting_bear_it_in_their_label(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"identity": "aaaaaaaa"})
    write_run(tmp_path / "b", {"identity": "bbbbbbbb"})
    groups, warnings = _groups(tmp_path)
    assert [group.label for group in groups] == ["SGD [aaaaaaaa]", "SGD [bbbbbbbb]"]
    assert warnings == []


def test_groups_rho_is_that_of_sam_only(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, optimizer__name="sam", optimizer__adaptive=True)
    sgd, sam = _groups(tmp_path)[0]
    assert (sgd.is_sam, sgd.method, sgd.rho) == (False, "SGD", None)
    assert (sam.is_sam, sam.method, sam.rho) == (True, "adaptive SAM", 0.05)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"p": float("inf")}, "SAM rho=0.05 p=inf"),
        ({"p": 1.5}, "SAM rho=0.05 p=1.5"),
        ({"direction": "random"}, "SAM rho=0.05 random direction"),
        ({"ascent_steps": 3, "ascent_step_size": 0.5}, "SAM rho=0.05 3 ascent steps ascent step size 0.5"),
        ({"second_order": True}, "SAM rho=0.05 second order"),
        ({"rule": "msam"}, "MSAM rho=0.05"),
        ({"rule": "of_a_newer_version", "adaptive": True}, "adaptive of_a_newer_version rho=0.05"),
        ({"true_gradient": False, "replay": False}, "SAM rho=0.05 no true gradient no replay"),
        ({"adaptive": True, "p": float("inf"), "rho": 2.0}, "adaptive SAM rho=2 p=inf"),
        ({"rule": "f_sam", "f_sam_sigma": 0.5}, "F-SAM rho=0.05 sigma=0.5"),
        ({"p": 2.0, "ascent_steps": 1}, "SAM rho=0.05"),
    ],
)
def test_groups_tell_variants_of_sam_apart(tmp_path: Path, changes: dict[str, Any], label: str) -> None:
    write_run(tmp_path, optimizer__name="sam", **{f"optimizer__{key}": changes[key] for key in changes})
    ((group,), _) = _groups(tmp_path)
    assert group.label == label
    assert group.method == re.sub(r" rho=\S+", "", label)


def test_groups_of_every_variant_share_a_setting_and_follow_plain_sam(tmp_path: Path) -> None:
    write_run(tmp_path, optimizer__name="sam", optimizer__ascent_steps=3)
    write_run(tmp_path, optimizer__name="sam", optimizer__rho=0.5)
    write_run(tmp_path, optimizer__p=float("inf"))
    groups, _ = _groups(tmp_path)
    assert [group.label for group in groups] == ["SGD", "SAM rho=0.5", "SAM rho=0.05 3 ascent steps"]
    assert len({group.setting.key for group in groups}) == 1


def test_groups_join_runs_from_before_a_key_with_later_ones(tmp_path: Path) -> None:
    earlier, later = (write_run(tmp_path, seed=seed, optimizer__name="sam") for seed in (0, 1))
    # Written by hand, as an old version did it: a config without these keys, and a result without the config.
    config = make_config(optimizer__name="sam")
    del config["optimizer"]["p"], config["optimizer"]["weight_decay_in"]
    del config["dataset"]["validation"], config["dataset"]["label_file"]
    (earlier / "config.yaml").write_text(json.dumps(config))
    result = json.loads((earlier / "result.json").read_text())
    del result["config"], result["checksums"]
    (earlier / "result.json").write_text(json.dumps(result))
    ((group,), warnings) = _groups(tmp_path)
    assert [run.directory for run in group.complete] == [earlier, later]
    assert (group.label, warnings) == ("SAM rho=0.05", [])


def test_groups_join_the_seeds_of_a_bootstrapped_condition(tmp_path: Path) -> None:
    for seed in (0, 12):
        source = f"outputs/cifar10/sgd/seed{seed}-12345678"
        write_run(tmp_path, {"identity": "aaaaaaaa"}, seed=seed, dataset__relabel_from=source)
    ((group,), _) = _groups(tmp_path)
    assert sorted(group.values("seed")) == [0, 12]
