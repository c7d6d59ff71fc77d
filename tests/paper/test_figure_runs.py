"""Tests of sam/paper/figure_runs.py."""

import dataclasses
import json
from pathlib import Path

import pytest

from sam.config.schema import TrainConfig
from sam.paper.figure_plan import PLANS, FigurePlan, Preset, SweepRuns, read_plans
from sam.paper.figure_runs import find_existing, in_order_of_use, num_looks
from sam.record.directory import write_config, write_result
from sam.record.identity import path_of
from sam.record.reader import find_runs
from tests.record.run_directories import make_result

PAIR = Preset((SweepRuns(("experiment=small/figures", "optimizer=sgd,sam"), (0, 1)),))
PLAIN = FigurePlan("a line", {"small": PAIR})
AFTERWARDS = PAIR._replace(evaluate=("analysis=sharpness",))
TRAINED = FigurePlan("a line", {"small": AFTERWARDS}, needs="sharpness")
TRAINING = FigurePlan("a line", {"small": PAIR}, needs="sharpness")


def write_ended(
    outputs: Path, config: TrainConfig, epochs_looked_at: tuple[int, ...] = (), **settings: object
) -> Path:
    """Write the directory of an ended run, with sharpness analyses for the given epochs and settings."""
    directory = path_of(dataclasses.replace(config, outputs=str(outputs)))
    (directory / "analysis").mkdir(parents=True)
    write_config(directory, config, "")
    write_result(directory, make_result(config))
    for epoch in epochs_looked_at:
        record = {"analysis": "sharpness", "epoch": epoch, "result": {}, "settings": settings}
        (directory / "analysis" / f"sharpness-epoch{epoch}-0.json").write_text(json.dumps(record))
    return directory


def test_take_stock_of_nothing_plans_everything() -> None:
    existing = find_existing("curves", PLAIN, PAIR, [], "outputs")
    assert (existing.runs, existing.num_planned, existing.bare) == ([], 4, [])
    assert existing.missing == [path_of(config) for config in PAIR.parts[0].configs()]
    assert existing.commands == ["python train.py -m experiment=small/figures optimizer=sgd,sam seed=0,1"]


def test_take_stock_finds_planned_runs_wherever_they_lie(tmp_path: Path) -> None:
    configs = PAIR.parts[0].configs()
    ended = [write_ended(tmp_path / str(position), config) for position, config in enumerate(configs)]
    write_ended(tmp_path, dataclasses.replace(configs[0], seed=5))  # not planned
    existing = find_existing("curves", PLAIN, PAIR, find_runs([tmp_path])[0], str(tmp_path))
    assert [run.directory for run in existing.runs] == ended
    assert existing[1:] == (4, [], [], [])


def test_take_stock_takes_no_interrupted_run(tmp_path: Path) -> None:
    for config in PAIR.parts[0].configs():
        directory = write_ended(tmp_path, config)
    (directory / "result.json").unlink()
    existing = find_existing("curves", PLAIN, PAIR, find_runs([tmp_path])[0], str(tmp_path))
    assert (len(existing.runs), existing.missing) == (3, [directory])
    assert existing.commands == [PAIR.parts[0].command(str(tmp_path))]


def test_take_stock_names_the_folders_to_evaluate(tmp_path: Path) -> None:
    for config in PAIR.parts[0].configs():
        # A run that was analysed only during training still needs an analysis at the end.
        write_ended(tmp_path, config, (2, 4) if config.optimizer.name == "sam" else (20,))
    runs = find_runs([tmp_path])[0]
    existing = find_existing("sharpness", TRAINED, AFTERWARDS, runs, str(tmp_path))
    (sam,) = {run.directory.parent for run in runs if "sam" in run.directory.parent.name}
    assert existing.bare == [sam / run.directory.name for run in runs if run.directory.parent == sam]
    assert existing.commands == [f"python evaluate.py run={sam} analysis=sharpness"]
    both = find_existing("sharpness", TRAINED, AFTERWARDS, [], str(tmp_path)).commands[-1]
    assert both.startswith("python evaluate.py -m run=") and both.count(",") == 1


def test_take_stock_of_looks_in_training_asks_for_runs_in_a_folder_of_their_own(tmp_path: Path) -> None:
    configs = PAIR.parts[0].configs()
    for config in configs:
        write_ended(tmp_path, config, (20,))  # one analysis does not show the training
    existing = find_existing("fig7", TRAINING, PAIR, find_runs([tmp_path])[0], str(tmp_path))
    assert len(existing.bare) == 4
    assert existing.commands == [PAIR.parts[0].command(str(tmp_path / "fig7"))]
    looked_at = [write_ended(tmp_path / "fig7", config, (1, 20)) for config in configs]
    existing = find_existing("fig7", TRAINING, PAIR, find_runs([tmp_path])[0], str(tmp_path))
    assert (existing.bare, existing.commands) == ([], [])
    assert [run.directory for run in existing.runs[::2]] == looked_at  # of two copies, the first is used


@pytest.mark.parametrize(
    ("name", "analysis", "wanted", "other"),
    [
        ("fig1-surfaces", "landscape", {"dimensions": 2}, {"dimensions": 1}),
        ("fig7", "sharpness", {"ascent_steps": [1, 2, 3, 5]}, {"ascent_steps": [1]}),
        ("sharpness", "sharpness", {"ascent_steps": [1]}, {"ascent_steps": [1, 2, 3, 5]}),
        ("fig3-predictive", "sharpness", {"ascent_steps": [1]}, {"ascent_steps": [1, 2, 3, 5]}),
    ],
)
def test_looks_with_other_settings_than_those_of_the_figure_do_not_count(
    tmp_path: Path, name: str, analysis: str, wanted: dict[str, object], other: dict[str, object]
) -> None:
    config = PAIR.parts[0].configs()[0]
    for outputs, settings in (("wanted", wanted), ("other", other)):
        directory = write_ended(tmp_path / outputs, config, (20,), **settings) / "analysis"
        record = json.loads((directory / "sharpness-epoch20-0.json").read_text()) | {"analysis": analysis}
        (directory / f"{analysis}-epoch20-0.json").write_text(json.dumps(record))
    found = {run.directory.relative_to(tmp_path).parts[0]: run for run in find_runs([tmp_path])[0]}
    assert [num_looks(read_plans(PLANS)[name], found[outputs]) for outputs in ("wanted", "other")] == [1, 0]


def test_take_stock_for_other_seeds(tmp_path: Path) -> None:
    existing = find_existing("curves", PLAIN, PAIR.with_seeds([4]), [], "outputs")
    assert existing.num_planned == 2
    assert existing.commands[0].endswith("seed=4")


def test_in_order_of_use_calibration_counts_evaluations_with_bins(tmp_path: Path) -> None:
    plan = PLAIN._replace(needs="calibration")
    directories = [write_ended(tmp_path, config) for config in PAIR.parts[0].configs()]
    bins = [{"num_images": 1, "confidence_pct": 50.0, "accuracy_pct": 50.0}]
    record = {"calibration_error_pct": 1.0, "calibration_bins": bins}
    for directory, after in ((directories[-1], "20 epochs"), (directories[-2], "10 epochs")):
        (directory / "evaluation-test.json").write_text(json.dumps({**record, "after": after}))
    ordered = in_order_of_use(plan, find_runs([tmp_path])[0])
    assert ordered[0].directory == directories[-1]
