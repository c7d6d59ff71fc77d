"""Tests of sam/record/reader.py."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from sam.record.reader import Problem, find_runs
from sam.record.values import number
from tests.record.run_directories import falling_errors, make_config, write_run


def test_find_runs_reads_config_metrics_and_result(tmp_path: Path) -> None:
    directory = write_run(tmp_path, {"test_error_pct": 2.7}, falling_errors(3, 2.7), seed=4)
    runs, problems = find_runs([tmp_path])
    assert problems == []
    assert [run.directory for run in runs] == [directory]
    assert runs[0].config == make_config(seed=4, outputs=str(tmp_path))
    assert runs[0].metrics == falling_errors(3, 2.7)
    assert runs[0].result is not None
    assert runs[0].result["test_error_pct"] == 2.7
    assert runs[0].last_epoch == 3


def test_find_runs_takes_a_run_directory_as_root(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    assert [run.directory for run in find_runs([directory])[0]] == [directory]


def test_find_runs_without_result_means_not_ended(tmp_path: Path) -> None:
    write_run(tmp_path, {"status": "interrupted"})
    (run,) = find_runs([tmp_path])[0]
    assert run.result is None
    assert run.metrics == []
    assert run.last_epoch == 0


def test_find_runs_returns_runs_in_order_of_names(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        write_run(tmp_path / "b", seed=seed)
    write_run(tmp_path / "a", seed=9)
    seeds = [run.config["seed"] for run in find_runs([tmp_path])[0]]
    assert seeds == [9, 0, 1, 2]


def test_find_runs_leaves_empty_cells_out(tmp_path: Path) -> None:
    directory = write_run(tmp_path, {"status": "interrupted"})
    (directory / "metrics.csv").write_text("epoch,cosine,loss\n1,,0.5\n\n2,0.9,\n")
    (run,) = find_runs([tmp_path])[0]
    assert run.metrics == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "cosine": 0.9}]


def test_find_runs_ignores_a_last_row_that_is_being_written(tmp_path: Path) -> None:
    directory = write_run(tmp_path, {"status": "interrupted"})
    (directory / "metrics.csv").write_text("epoch,loss,lr\n1,0.5,0.1\n2,0.4")
    (run,) = find_runs([tmp_path])[0]
    assert run.last_epoch == 1


@pytest.mark.parametrize("content", ["", "epoch,loss\n"])
def test_find_runs_metrics_without_rows_are_empty(tmp_path: Path, content: str) -> None:
    (write_run(tmp_path) / "metrics.csv").write_text(content)
    (run,) = find_runs([tmp_path])[0]
    assert run.metrics == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "- 1\n- 2\n", "config.yaml holds no keys"),
        ("config.yaml", "epochs: 3\n", "config.yaml has no dataset.name"),
        ("config.yaml", "", "config.yaml has no dataset.name"),
        ("config.yaml", "a: &a [*a]", "config.yaml cannot be read"),
        ("metrics.csv", "epoch,loss\n1,abc\n", "metrics.csv cannot be read: could not convert"),
        ("metrics.csv", "epoch,loss\n1\n2,1\n", "a row has 1 cells, but the header has 2"),
        ("metrics.csv", "loss\n1\n", "a row has no epoch"),
        ("metrics.csv", "epoch,loss\nnan,1\n", "a row has no epoch"),
        ("result.json", "", "result.json cannot be read"),
        ("result.json", '{"status": "comp', "result.json cannot be read"),
        ("result.json", "[" * 100_000, "result.json cannot be read"),
        ("result.json", "[]", "result.json holds no keys"),
        ("result.json", '{"status": "odd"}', "status 'odd'; allowed is complete, diverged"),
        ("result.json", '{"status": "complete"}', "lacks the identity or the seed"),
        (
            "result.json",
            '{"status": "complete", "identity": "0", "seed": 0, "test_error_pct": NaN}',
            "test_error_pct is not a number",
        ),
    ],
)
def test_find_runs_reports_a_broken_file(tmp_path: Path, name: str, content: str, reason: str) -> None:
    # In an ended run, a wrong checksum would be the reported fault; test_checksums.py tests that.
    broken = write_run(tmp_path, {"status": "interrupted"}, falling_errors(2, 3.0), seed=1)
    sound = write_run(tmp_path, seed=2)
    (broken / name).write_text(content)
    runs, problems = find_runs([tmp_path])
    assert [run.directory for run in runs] == [sound]
    assert [problem.path for problem in problems] == [broken]
    assert reason in problems[0].reason
    assert "\n" not in problems[0].reason


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "result.json"])
def test_find_runs_reports_bytes_that_are_not_text(tmp_path: Path, name: str) -> None:
    directory = write_run(tmp_path, {"status": "interrupted"}, falling_errors(2, 3.0))
    (directory / name).write_bytes(b"\xff\xfe\x00epoch")
    runs, problems = find_runs([tmp_path])
    assert runs == []
    assert [problem.path for problem in problems] == [directory]


def test_find_runs_executes_nothing_in_a_config(tmp_path: Path) -> None:
    directory = write_run(tmp_path, {"status": "interrupted"})
    marker = tmp_path / "executed"
    (directory / "config.yaml").write_text(
        f"a: !!python/object/apply:os.mkdir ['{marker}']\n", encoding="utf-8"
    )
    runs, problems = find_runs([tmp_path])
    assert runs == []
    assert len(problems) == 1
    assert not marker.exists()


def test_find_runs_resolves_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_TEST", "told")
    path = write_run(tmp_path, {"status": "interrupted"}) / "config.yaml"
    path.write_text(path.read_text().replace("name: cifar10", "name: ${oc.env:SECRET_OF_TEST}"))
    runs, (problem,) = find_runs([tmp_path])
    assert runs == []
    assert "it has a reference, ${oc.env:SECRET_OF_TEST}" in problem.reason


def test_find_runs_ends_in_a_loop_of_links(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "runs")
    os.symlink(tmp_path, directory.parent / "loop", target_is_directory=True)
    os.symlink(tmp_path / "self", tmp_path / "self")
    runs, problems = find_runs([tmp_path])
    assert [run.directory for run in runs] == [directory]
    assert problems == []


def test_find_runs_follows_a_link_to_runs_elsewhere(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "here" / "link", target_is_directory=True)
    assert len(find_runs([tmp_path / "here"])[0]) == 1


def test_find_runs_counts_overlapping_roots_once(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    runs, problems = find_runs([directory, tmp_path, directory.parent])
    assert [run.directory for run in runs] == [directory]
    assert problems == []


def test_find_runs_skips_hidden_folders(tmp_path: Path) -> None:
    write_run(tmp_path / ".hydra")
    assert find_runs([tmp_path]) == ([], [])


def test_find_runs_reports_a_missing_root(tmp_path: Path) -> None:
    runs, problems = find_runs([tmp_path / "absent"])
    assert runs == []
    assert problems == [Problem(tmp_path / "absent", "No such file or directory")]


def test_find_runs_reports_a_config_link_to_nowhere(tmp_path: Path) -> None:
    os.symlink(tmp_path / "nowhere", tmp_path / "config.yaml")
    runs, problems = find_runs([tmp_path])
    assert runs == []
    assert problems[0].path == tmp_path


def test_run_last_epoch_is_the_highest(tmp_path: Path) -> None:
    write_run(tmp_path, metrics=[{"epoch": epoch, "test_loss": 0.1 * epoch} for epoch in (2.0, 3.0, 1.0)])
    (run,) = find_runs([tmp_path])[0]
    assert run.last_epoch == 3
    assert run.last_row == {"epoch": 1.0, "test_loss": 0.1}


def test_metrics_that_broke_after_find_runs_are_a_value_error(tmp_path: Path) -> None:
    directory = write_run(tmp_path, metrics=falling_errors(2, 3.0))
    (run,) = find_runs([tmp_path])[0]
    (directory / "metrics.csv").write_text("epoch,loss\n1,abc\n")
    with pytest.raises(ValueError, match="metrics.csv cannot be read"):
        _ = run.metrics


def test_rows_of_metrics_are_not_kept_in_memory(tmp_path: Path) -> None:
    write_run(tmp_path, metrics=falling_errors(5000, 3.0))
    tracemalloc.start()
    runs, _ = find_runs([tmp_path])
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert runs[0].last_epoch == 5000
    assert kept < 100_000  # one number of each row alone would be 120,000 bytes


@pytest.mark.parametrize("value", [None, "1", True, float("nan"), float("inf"), 10**400, [1]])
def test_number_of_anything_else_is_none(value: object) -> None:
    assert number(value) is None


def test_number_of_a_number_is_its_float() -> None:
    assert number(json.loads("3")) == 3.0
    assert number(2.5) == 2.5
