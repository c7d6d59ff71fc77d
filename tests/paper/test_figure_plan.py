"""Tests of sam/paper/figure_plan.py and configs/figures.yaml."""

import shlex

import pytest

from sam.config.compose import composed
from sam.figures.catalogue import OF_GROUPS
from sam.paper.figure_plan import PLANS, PRESETS, SweepRuns, TableRuns, read_plans
from sam.record.identity import identity, path_of

FIGURES = read_plans(PLANS)


def test_small_figures_are_the_quickstart_with_smaller_images() -> None:
    same = ["experiment=quickstart", "dataset.image_size=14", "m=128"]
    for method in ("optimizer=sgd", "optimizer=sam"):
        assert path_of(composed(["experiment=small/figures", method])) == path_of(composed([*same, method]))


def test_sweep_makes_every_combination_once() -> None:
    sweep = SweepRuns(
        ("experiment=small/figures", "optimizer=sam", "optimizer.rho=0.1,0.2", "m=4,16"), (0, 3)
    )
    configs = sweep.configs()
    assert len(configs) == sweep.num_runs() == 8
    found = {(config.optimizer.rho, config.m, config.seed) for config in configs}
    assert found == {(rho, m, seed) for rho in (0.1, 0.2) for m in (4, 16) for seed in (0, 3)}
    command = sweep.command("my runs")
    assert shlex.split(command)[:4] == ["python", "train.py", "-m", "experiment=small/figures"]
    assert shlex.split(command)[-2:] == ["seed=0,3", "outputs='my runs'"]
    assert "outputs" not in sweep.command("outputs")


def test_table_runs_are_those_that_reproduce_makes() -> None:
    runs = TableRuns("4", (0, 1))
    configs = runs.configs()
    assert runs.num_runs() == len(configs) == 2 * 2 * 4
    assert runs.command("outputs") == "python scripts/reproduce.py table4 --method sgd,sam --seeds 2"
    assert {config.optimizer.name for config in configs} == {"sgd", "sam"}
    assert {config.dataset.label_noise for config in configs} == {0.2, 0.4, 0.6, 0.8}


def test_sweep_is_read_from_the_words_of_its_command() -> None:
    sweep = SweepRuns.parse("optimizer=sgd,sam m=4 seed=0,7 analysis=hessian analysis.every=2")
    assert sweep == SweepRuns(("optimizer=sgd,sam", "m=4"), (0, 7), ("analysis=hessian", "analysis.every=2"))


def test_every_figure_can_be_drawn() -> None:
    assert set(FIGURES) == {"fig1", *OF_GROUPS}


def parts_of(preset_name: str) -> list[SweepRuns]:
    """Return every sweep of all figures once."""
    parts = [part for plan in FIGURES.values() for part in plan.presets[preset_name].parts]
    return list(dict.fromkeys(part for part in parts if isinstance(part, SweepRuns)))


@pytest.mark.slow
@pytest.mark.parametrize("preset_name", PRESETS)
def test_presets_compose_and_their_looks_decide_no_numbers(preset_name: str) -> None:
    for part in parts_of(preset_name):
        pairs = [override.partition("=") for override in part.overrides]
        first, last = ([f"{key}={values.split(',')[end]}" for key, _, values in pairs] for end in (0, -1))
        config = composed(first)
        assert (identity(composed(last)) == identity(config)) == (first == last)
        assert identity(composed([*first, *part.looks])) == identity(config)


def test_figures_that_show_training_have_looks_in_all_their_sweeps() -> None:
    shown = {name for name, plan in FIGURES.items() if plan.shows_training}
    assert shown == {"fig3-spectrum", "fig5", "fig7"}
