"""Tests of sam/paper/conditions.py and of configs/tiers.yaml."""

import pytest

from sam.paper.conditions import TIERS, TierCondition, read_tiers
from sam.paper.runs import num_updates, runs_of
from tests.config.test_schema import CHOICES

CONDITIONS = read_tiers(TIERS)


def test_every_small_and_one_gpu_table_has_conditions() -> None:
    presets = {name for name in CHOICES["experiment"] if name.startswith(("small/table", "one_gpu/table"))}
    assert presets == {words.overrides[0].partition("=")[2] for words in CONDITIONS}
    assert {one.table.removesuffix("_short") for one in CONDITIONS} == presets
    assert len({one.name for one in CONDITIONS}) == len(CONDITIONS)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda one: one.name)
def test_condition_is_what_its_name_says(condition: TierCondition) -> None:
    optimizer, _, twice = condition.method.partition("_")
    values = condition.values
    assert values["optimizer.name"] == ("sgd" if optimizer == "mixup" else optimizer)
    assert (values["augmentation.mixup_alpha"] == 8) == (optimizer == "mixup")
    assert not (values["augmentation.flip"] and values["dataset.label_noise"])
    words = condition.name.removeprefix(f"{condition.table}/").split("/")
    for key, name, scale in (("dataset.label_noise", "noise", 100), ("epochs", "epochs", 1)):
        if words[0].startswith(name):
            assert round(scale * values[key]) == int(words[0].removeprefix(name))
    (sam,) = (one for one in CONDITIONS if one.name == f"{condition.name.removesuffix(condition.method)}sam")
    assert values["epochs"] == (2 if twice else 1) * sam.values["epochs"]


def test_runs_of_a_tier_are_those_of_its_command() -> None:
    (sam,) = (one for one in CONDITIONS if one.name == "one_gpu/table1/sam")
    runs = runs_of(sam, range(3), ["m=32"])
    assert [run.overrides[-2:] for run in runs] == [("m=32", f"seed={seed}") for seed in range(3)]
    assert num_updates(runs[0].config) == 60 * (50_000 // 128)
