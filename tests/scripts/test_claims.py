"""Tests of scripts/claims.py and of the table that it prints."""

from pathlib import Path

import pytest

from sam.report.claim_tables import render_outcomes
from sam.report.claims import outcomes
from sam.system.errors import ConfigError
from scripts.claims import main
from tests.record.run_directories import write_run
from tests.report.plan_rows import all_rows


def test_table_of_claims_reads_as_expected() -> None:
    text = render_outcomes(outcomes(all_rows()))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:6]]
    assert table[0][2:] == ["44.00", "41.45", "-2.55 ± 0.28", "12", "1.8e-10 / 0.002", "holds here"]
    assert table[1][7] == "does not hold here"
    assert table[2][7] == "open here; 37 seeds would decide (s = 1.05)"
    assert table[3][2:] == [
        "8",
        "3.05",
        "ratio 0.382 (0.378 to 0.385)",
        "12",
        "5.5e-22 / 0.002",
        "holds here",
    ]
    assert "- T2: SGD of 20 epochs with learning rate 0.1 against SAM with rho 0.2" in text


def test_command_adds_runs_and_prints_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "outputs", seed=0)
    write_run(tmp_path / "outputs", {"status": "interrupted"}, seed=1)
    table = tmp_path / "plan" / "runs.csv"
    main(["--add", str(tmp_path / "outputs"), "--runs", str(table)])
    assert table.read_text().count("\n") == 2
    shown = capsys.readouterr().out
    assert f"wrote {table}: 1 run\n" in shown
    assert shown.count("not run yet: the search is missing") == 4
    main(["--runs", str(table)])
    assert capsys.readouterr().out == shown.partition("\n\n")[2]


def test_command_refuses_folders_without_ended_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        main(["--add", str(tmp_path / "none")])
    with pytest.raises(ConfigError, match="no ended run"):
        main(["--add", str(tmp_path)])
