"""Tests of scripts/compare.py as a command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.record.run_directories import falling_errors, write_run

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compare.py"


def _compare(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script in a folder and return the finished process."""
    command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")


def _assert_fails(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two seeds of SGD and of SAM, and one interrupted run."""
    root = tmp_path / "outputs"
    for seed in (0, 1):
        sgd, sam = 3.5 + 0.1 * seed, 2.7 + 0.1 * seed
        write_run(root, {"test_error_pct": sgd}, falling_errors(5, sgd), seed=seed)
        write_run(root, {"test_error_pct": sam}, falling_errors(5, sam), seed=seed, optimizer__name="sam")
    write_run(root, {"status": "interrupted"}, falling_errors(3, 9.0), seed=2)
    return root


def test_compare_writes_table_and_figure_into_the_default_folder(outputs: Path) -> None:
    done = _compare(outputs.parent)
    assert (done.returncode, done.stderr) == (0, "")
    text = (outputs / "comparison.md").read_text(encoding="utf-8")
    assert text in done.stdout
    assert "3.5 ± 0.1* (Table 1)" in text
    assert "| table1/cifar10/wrn_28_10_200/basic/sam |" in text
    assert "Departures: optimizer.weight_decay_in=optimizer (loss), model.init_seed=null (0)" in text
    assert "-0.80 ± 0.00" in text
    assert "epoch 3 of 200" in text
    assert (outputs / "comparison.png").read_bytes().startswith(b"\x89PNG")
    table, figure = Path("outputs", "comparison.md"), Path("outputs", "comparison.png")
    assert done.stdout.endswith(f"wrote {table}\nwrote {figure}\n")


def test_compare_of_a_validation_sweep_chooses_its_rho(tmp_path: Path) -> None:
    for rho, error in ((0.05, 3.0), (0.1, 3.5)):
        sweep = {"optimizer__name": "sam", "optimizer__rho": rho, "dataset__validation": "random"}
        write_run(tmp_path, {"test_error_pct": error}, falling_errors(5, error), **sweep)
    done = _compare(tmp_path, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "validation on a random tenth" in done.stdout
    assert "Validation: a random tenth of the training images (dataset.validation=random)." in done.stdout
    assert "(optimizer.rho=0.05 dataset.validation=none)" in done.stdout


def test_compare_at_equal_compute_names_the_run_that_is_missing(tmp_path: Path) -> None:
    for name, passes in (("sgd", 100), ("sam", 200)):
        counts = {"steps": 100, "forward_backward_passes": passes}
        write_run(tmp_path, counts, falling_errors(5, 3.0), optimizer__name=name)
    done = _compare(tmp_path, tmp_path, "--no-figure")
    assert "## At equal compute" in done.stdout
    assert "- not run yet: optimizer=sgd epochs=400, to compare with SAM rho=0.05 (200 epochs)" in done.stdout


def test_compare_with_out_writes_there_only(outputs: Path, tmp_path: Path) -> None:
    before = sorted(outputs.rglob("*"))
    done = _compare(tmp_path, outputs, "--out", tmp_path / "new" / "folder", "--no-figure")
    assert done.returncode == 0
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["comparison.md"]
    assert sorted(outputs.rglob("*")) == before


def test_compare_joins_folders(outputs: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "more", {"test_error_pct": 3.6}, seed=7)
    done = _compare(tmp_path, outputs, tmp_path / "more", "--no-figure")
    assert "3.57 ± " in done.stdout
    assert (outputs / "comparison.md").exists()


def test_compare_repeats_itself(outputs: Path, tmp_path: Path) -> None:
    texts = [_compare(tmp_path, outputs, "--no-figure").stdout for _ in range(2)]
    assert texts[0] == texts[1]


def test_compare_warns_of_broken_runs_and_goes_on(outputs: Path) -> None:
    broken = next(outputs.rglob("result.json"))
    broken.write_text("{")
    done = _compare(outputs.parent, "--no-figure")
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: {Path('outputs')}")
    assert "result.json cannot be read" in done.stderr
    assert "## Left out" in done.stdout


def test_compare_of_interrupted_runs_lists_them_without_figure(tmp_path: Path) -> None:
    write_run(tmp_path, {"status": "interrupted"})
    done = _compare(tmp_path, tmp_path)
    assert done.returncode == 0
    assert "epoch 0 of 200" in done.stdout
    assert "no figure: no complete run has epochs in its metrics.csv" in done.stdout
    assert not (tmp_path / "comparison.png").exists()


def test_compare_in_a_terminal_without_unicode_shows_the_table(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = _compare(outputs.parent, "--no-figure")
    assert done.returncode == 0
    assert "3.5 ? 0.1* (Table 1)" in done.stdout


def test_compare_without_folder_says_what_to_do(tmp_path: Path) -> None:
    done = _compare(tmp_path)
    _assert_fails(done, f"no folder {tmp_path / 'outputs'}; name the folder that holds your runs")


def test_compare_without_runs_says_what_to_do(tmp_path: Path) -> None:
    _assert_fails(_compare(tmp_path, tmp_path), "train one first: python train.py")


def test_compare_of_broken_runs_alone_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [")
    _assert_fails(_compare(tmp_path, tmp_path), "config.yaml cannot be read")


def test_compare_with_a_file_in_the_place_of_out_says_what_to_do(outputs: Path) -> None:
    (outputs / "file").touch()
    done = _compare(outputs.parent, "--out", outputs / "file")
    _assert_fails(done, f"cannot write to {outputs / 'file'} (File exists); name another folder")


def test_compare_with_unknown_option_exits_with_2(tmp_path: Path) -> None:
    assert _compare(tmp_path, "--unknown").returncode == 2


def test_compare_json_writes_the_data_and_nothing_else(outputs: Path, tmp_path: Path) -> None:
    before = sorted(outputs.rglob("*"))
    done = _compare(tmp_path, outputs, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert [row["label"] for row in data["settings"][0]["rows"]] == ["SGD", "SAM rho=0.05"]
    done = _compare(tmp_path, outputs, "--json", tmp_path / "data.json")
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads((tmp_path / "data.json").read_text(encoding="utf-8")) == data
    assert sorted(outputs.rglob("*")) == before


def test_compare_json_before_the_folder_says_what_to_do(outputs: Path) -> None:
    _assert_fails(
        _compare(outputs.parent, "--json", outputs), "name a file after --json, and folders of runs"
    )


def test_compare_diff_shows_the_keys_of_two_runs(outputs: Path) -> None:
    (sgd,), (sam,) = (list(outputs.rglob(f"{name}*/seed0-*")) for name in ("sgd", "sam"))
    done = _compare(outputs.parent, "--diff", sgd, sam.name.rpartition("-")[2])
    assert (done.returncode, done.stderr) == (0, "")
    assert "| optimizer.rho  | (not read) | 0.05 |" in done.stdout
    _assert_fails(_compare(outputs.parent, "--diff", sgd, "0123abcd"), "no run in outputs has this identity")
