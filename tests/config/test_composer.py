"""Configs composed quickly are those that Hydra composes."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from sam.config.compose import CONFIGS, checked, composed
from sam.config.composer import Composer, composed_quickly
from sam.config.schema import TrainConfig
from sam.record.identity import path_of
from tests.tiny import TINY

# Command lines of which each says something that a shortcut could get wrong.
LINES = [
    "",
    "seed=3",
    "optimizer=sgd optimizer.lr=0.3 dataset=cifar10",
    "optimizer.lr=0.3 optimizer=sgd dataset=cifar100 model=wrn_28_10 augmentation=cutout",
    "experiment=table1/wrn_28_10_200 dataset=cifar100 optimizer=sam",  # a value by dataset
    "experiment=figures/fig4 dataset=cifar10 m=16",
    "recipe=released_code dataset=svhn optimizer.rho=1e-3 seed=15",
    "dataset.root='a,b' outputs=${oc.env:HOME}/x",
    "dataset.relabel_from='/x/seed${seed}-1' seed=4",
    "++optimizer.rho=0.2 seed=2 ++seed=5",
    "analysis=hessian analysis.every=5 epochs=10",
    "runtime=ddp runtime.processes=3 m=4 batch_size=12",
    "optimizer.rho=0.5 optimizer.rho=0.7",
    "model=timm model.timm_name=resnet18",
]


@pytest.fixture
def composer():
    """Return what composes quickly, and what composes with all of Hydra."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = compose("train", return_hydra_config=True)
        yield Composer(loader, master), lambda words: compose("train", words)


@pytest.mark.slow
def test_quickly_composed_configs_are_those_of_hydra(composer):
    quickly, by_hydra = composer
    for line in [*LINES, *reversed(LINES)]:  # nothing of one job is left in the next
        words = line.split()
        mine, expected = (OmegaConf.to_yaml(made(words), resolve=True) for made in (quickly, by_hydra))
        assert mine == expected, line


@pytest.mark.parametrize("line", LINES)
def test_quickly_composed_command_lines_are_checked_configs(line):
    assert composed_quickly(line.split()) == composed(line.split())


def test_what_hydra_would_refuse_is_refused_in_its_words(composer):
    quickly, by_hydra = composer
    for words in (["optimizer.rhoo=1"], ["model=none"], ["optimizer.lr=abc"], ["epochs.x=1"]):
        told = []
        for made in (quickly, by_hydra):
            with pytest.raises(Exception) as caught:
                made(words)
            told.append(f"{type(caught.value)} {caught.value}")
        assert told[0] == told[1]


def test_planned_directories_are_those_of_the_runs(composer):
    quickly, by_hydra = composer
    for seed in range(3):
        words = [*TINY, "optimizer=sam", f"seed={seed}"]
        mine, expected = (path_of(checked(made(words), TrainConfig)) for made in (quickly, by_hydra))
        assert mine == expected
