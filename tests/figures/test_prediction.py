"""Tests of sam/figures/prediction.py."""

from pathlib import Path

import pytest

from sam.figures.population import populations
from sam.figures.prediction import fig3_predictive
from sam.figures.predictive_power import chance_level, conditional_score, rank_correlation
from tests.figures.drawn import caption_of, groups_of
from tests.record.analysis_files import rise_row, write_analysis, write_population
from tests.record.run_directories import write_run


def test_fig3_predictive_draws_the_statistics_of_prediction(tmp_path: Path) -> None:
    groups = write_population(tmp_path)
    figure = fig3_predictive(groups)
    score_axis, tau_axis, scatter = figure.axes
    (population,) = populations(groups)
    for place, measures in enumerate(population.sharpness.values()):
        score = conditional_score(measures, population.gaps, population.hyperparameters)
        assert score is not None
        chance = chance_level(measures, population.gaps, population.hyperparameters, population.conditions)
        assert chance is not None
        found = [line.get_ydata()[place] for line in score_axis.lines]
        assert found == pytest.approx([chance.unconditioned, score.unconditioned, score.value])
        tau = rank_correlation(measures, population.gaps, population.conditions)
        assert tau is not None and tau.interval is not None
        assert tau_axis.lines[place].get_ydata() == pytest.approx([tau.tau])
        segment = tau_axis.collections[place].get_segments()[0]
        assert segment[:, 1] == pytest.approx(tau.interval)
    assert score_axis.lines[1].get_ydata()[0] == pytest.approx(1)
    assert [line.get_label() for line in scatter.lines] == ["SGD", "SAM"]
    assert sorted(scatter.lines[1].get_ydata()) == pytest.approx([11, 12, 21, 22])
    assert scatter.get_xlabel() == "Rise of the loss, m = 1"
    assert "8 in 4 conditions" in caption_of(figure)
    assert "Highest loss in a ball of radius 0.05, 1 ascent step." in caption_of(figure)
    figure.draw_without_rendering()


def test_fig3_predictive_has_a_row_for_each_dataset(tmp_path: Path) -> None:
    write_population(tmp_path)
    groups = write_population(tmp_path, dataset__name="cifar100")
    figure = fig3_predictive(groups)
    assert [axis.get_title() for axis in figure.axes[::3]] == ["cifar10", "cifar100"]


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_fig3_predictive_says_how_noisy_labels_were_taken(tmp_path: Path, noise: float) -> None:
    figure = fig3_predictive(write_population(tmp_path, dataset__label_noise=noise))
    assert ("equally noisy test labels" in caption_of(figure)) == (noise > 0)


def test_fig3_predictive_of_few_runs_says_what_it_takes(tmp_path: Path) -> None:
    write_analysis(write_run(tmp_path), "sharpness", {"rows": [rise_row(1, 1.0)]})
    with pytest.raises(ValueError, match="no dataset has 4 complete runs.*generalisation gap"):
        fig3_predictive(groups_of(tmp_path))
