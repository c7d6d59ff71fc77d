"""Tests of sam/data/label_noise.py."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from sam.data.label_noise import SIMILAR_CLASSES, asymmetric_noise, symmetric_noise

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
FLIPS = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
# The superclasses of CIFAR-100, one a line; the number of a class is its place in the alphabet.
CIFAR100 = [
    line.split()
    for line in """\
beaver dolphin otter seal whale
aquarium_fish flatfish ray shark trout
orchid poppy rose sunflower tulip
bottle bowl can cup plate
apple mushroom orange pear sweet_pepper
clock keyboard lamp telephone television
bed chair couch table wardrobe
bee beetle butterfly caterpillar cockroach
bear leopard lion tiger wolf
bridge castle house road skyscraper
cloud forest mountain plain sea
camel cattle chimpanzee elephant kangaroo
fox porcupine possum raccoon skunk
crab lobster snail spider worm
baby boy girl man woman
crocodile dinosaur lizard snake turtle
hamster mouse rabbit shrew squirrel
maple_tree oak_tree palm_tree pine_tree willow_tree
bicycle bus motorcycle pickup_truck train
lawn_mower rocket streetcar tank tractor""".splitlines()
]
any_noise = given(
    size=st.integers(1, 60),
    num_classes=st.integers(2, 7),
    fraction=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**31 - 1),
)


@settings(max_examples=40, deadline=None)
@any_noise
def test_symmetric_noise_makes_exactly_the_share_wrong(
    size: int, num_classes: int, fraction: float, seed: int
) -> None:
    targets = torch.arange(size) % num_classes
    noisy = symmetric_noise(targets, num_classes, fraction, seed)
    # This count would be too low if a label got its true class again.
    num_wrong = int((noisy != targets).sum())
    assert abs(num_wrong - fraction * size) <= 0.5
    assert noisy.dtype == torch.int64
    assert noisy.min() >= 0 and noisy.max() < num_classes


@pytest.mark.parametrize(("size", "fraction", "num_wrong"), [(5000, 0.4, 2000), (10, 0.26, 3), (10, 0.04, 0)])
def test_symmetric_noise_share_in_known_cases(size: int, fraction: float, num_wrong: int) -> None:
    targets = torch.zeros(size, dtype=torch.long)
    assert int(symmetric_noise(targets, 10, fraction, seed=0).count_nonzero()) == num_wrong


def test_symmetric_noise_draws_evenly_from_the_other_classes() -> None:
    targets = torch.arange(20_000) % 10
    noisy = symmetric_noise(targets, 10, 0.9, seed=0)
    wrong = noisy != targets
    counts = torch.bincount(10 * targets[wrong] + noisy[wrong], minlength=100).view(10, 10)
    assert counts.diagonal().count_nonzero() == 0
    observed = counts[~torch.eye(10, dtype=torch.bool)].double()
    statistic = float(((observed - 200) ** 2 / 200).sum())
    # 90 cells whose sum is fixed. The seed is fixed; correct code would fail for one seed in 10**6.
    assert statistic < chi2.isf(1e-6, 89)


@settings(max_examples=40, deadline=None)
@any_noise
def test_symmetric_noise_over_all_classes_chooses_the_same_labels(
    size: int, num_classes: int, fraction: float, seed: int
) -> None:
    targets = torch.arange(size) % num_classes
    over_others = symmetric_noise(targets, num_classes, fraction, seed)
    over_all = symmetric_noise(targets, num_classes, fraction, seed, over="all_classes")
    assert torch.equal((over_others != targets) | (over_all != targets), over_others != targets)
    assert over_all.dtype == torch.int64
    assert over_all.min() >= 0 and over_all.max() < num_classes


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_symmetric_noise_over_all_classes_leaves_one_in_num_classes_true(num_classes: int) -> None:
    size, fraction = 50_000, 0.4
    targets = torch.arange(size) % num_classes
    noisy = symmetric_noise(targets, num_classes, fraction, seed=0, over="all_classes")
    # The number of wrong labels among the n = 20,000 chosen is binomial with p = 1 - 1/K. The seed is
    # fixed; correct code would be off by 6 standard deviations for 2 seeds in 10**9.
    mean = fraction * size * (1 - 1 / num_classes)
    deviation = math.sqrt(mean / num_classes)
    num_wrong = int((noisy != targets).sum())
    assert abs(num_wrong - mean) < 6 * deviation
    assert num_wrong < fraction * size


def test_symmetric_noise_over_all_classes_draws_evenly_from_all() -> None:
    noisy = symmetric_noise(torch.zeros(20_000, dtype=torch.long), 10, 0.9, seed=0, over="all_classes")
    # 2,000 labels were not chosen and stay 0. Of the others, each class should get 1,800.
    observed = torch.bincount(noisy, minlength=10).double() - torch.tensor([2000.0] + 9 * [0.0])
    statistic = float(((observed - 1800) ** 2 / 1800).sum())
    assert statistic < chi2.isf(1e-6, 9)


def test_symmetric_noise_over_other_classes_draws_what_it_drew_before() -> None:
    noisy = symmetric_noise(torch.arange(20) % 4, 4, 0.5, seed=7)
    assert noisy.tolist() == [0, 1, 0, 0, 3, 1, 2, 3, 3, 1, 2, 3, 2, 1, 2, 2, 2, 3, 1, 2]


def test_symmetric_noise_falls_anywhere_in_the_split() -> None:
    wrong = symmetric_noise(torch.zeros(10_000, dtype=torch.long), 2, 0.5, seed=0)
    # Hypergeometric: 2500 of the 5000 wrong labels are expected in the first half, standard deviation 25.
    assert abs(int(wrong[:5000].sum()) - 2500) < 6 * 25


def test_symmetric_noise_depends_on_nothing_but_the_seed() -> None:
    targets = torch.arange(200) % 4
    torch.manual_seed(0)
    first = symmetric_noise(targets, 4, 0.5, seed=7)
    torch.manual_seed(1)
    assert torch.equal(symmetric_noise(targets, 4, 0.5, seed=7), first)
    assert not torch.equal(symmetric_noise(targets, 4, 0.5, seed=8), first)


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_symmetric_noise_leaves_its_input_unchanged(fraction: float) -> None:
    targets = torch.arange(100) % 4
    noisy = symmetric_noise(targets, 4, fraction, seed=0)
    noisy.fill_(3)
    assert torch.equal(targets, torch.arange(100) % 4)


def test_symmetric_noise_of_zero_returns_the_true_classes() -> None:
    targets = torch.zeros(5, dtype=torch.long)
    assert torch.equal(symmetric_noise(targets, 1, 0.0, seed=0), targets)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, math.nan])
def test_symmetric_noise_refuses_a_fraction_out_of_range(fraction: float) -> None:
    message = rf"^label noise must be a fraction with 0 <= fraction < 1, got {fraction}$"
    with pytest.raises(ValueError, match=message):
        symmetric_noise(torch.zeros(5, dtype=torch.long), 2, fraction, seed=0)


def test_symmetric_noise_refuses_a_single_class() -> None:
    with pytest.raises(ValueError, match=r"^label noise needs at least 2 classes, got 1$"):
        symmetric_noise(torch.zeros(5, dtype=torch.long), 1, 0.2, seed=0)


def test_symmetric_noise_refuses_unknown_classes_to_draw_from() -> None:
    with pytest.raises(
        ValueError, match=r"^label noise is drawn over one of other_classes, all_classes, got some$"
    ):
        symmetric_noise(torch.zeros(5, dtype=torch.long), 2, 0.2, seed=0, over="some")


def test_similar_classes_of_cifar10_are_the_usual_ones() -> None:
    named = {CIFAR10[c]: CIFAR10[new] for c, new in enumerate(SIMILAR_CLASSES["cifar10"]) if new != c}
    assert named == FLIPS


def test_similar_class_of_cifar100_is_the_next_of_its_superclass() -> None:
    names = sorted(name for group in CIFAR100 for name in group)
    expected = {name: group[(place + 1) % 5] for group in CIFAR100 for place, name in enumerate(group)}
    assert {names[c]: names[new] for c, new in enumerate(SIMILAR_CLASSES["cifar100"])} == expected


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.45])
def test_asymmetric_noise_replaces_exactly_the_share_of_each_class(dataset: str, fraction: float) -> None:
    similar = torch.tensor(SIMILAR_CLASSES[dataset])
    num_classes = len(similar)
    # Classes of 41, 42, ... images, in an order that is not that of the classes.
    true = torch.repeat_interleave(torch.arange(num_classes), 41 + torch.arange(num_classes))
    true = true[torch.randperm(len(true), generator=torch.Generator().manual_seed(1))]
    noisy = asymmetric_noise(true, SIMILAR_CLASSES[dataset], fraction, seed=0)
    counts = torch.bincount(num_classes * true + noisy, minlength=num_classes**2).view(num_classes, -1)
    for c, new in enumerate(similar.tolist()):
        replaced = 0 if new == c else round(fraction * (41 + c))
        expected = {c: 41 + c - replaced} | ({new: replaced} if replaced else {})
        assert {other: int(n) for other, n in enumerate(counts[c]) if n} == expected


def test_asymmetric_noise_of_40_percent_in_cifar10_makes_20_percent_of_the_labels_wrong() -> None:
    true = torch.arange(5000) % 10
    assert int((asymmetric_noise(true, SIMILAR_CLASSES["cifar10"], 0.4, seed=3) != true).sum()) == 1000


def test_asymmetric_noise_depends_on_the_seed_and_falls_anywhere() -> None:
    true = torch.full((10_000,), 9)
    noisy = asymmetric_noise(true, SIMILAR_CLASSES["cifar10"], 0.5, seed=0)
    assert torch.equal(noisy, asymmetric_noise(true, SIMILAR_CLASSES["cifar10"], 0.5, seed=0))
    assert not torch.equal(noisy, asymmetric_noise(true, SIMILAR_CLASSES["cifar10"], 0.5, seed=1))
    # Hypergeometric: 2500 of the 5000 wrong labels are expected in the first half, standard deviation 25.
    assert abs(int((noisy[:5000] == 1).sum()) - 2500) < 6 * 25
    assert torch.equal(true, torch.full((10_000,), 9))


def test_asymmetric_noise_refuses_a_fraction_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^label noise must be a fraction with 0 <= fraction < 1, got 1.0$"):
        asymmetric_noise(torch.zeros(5, dtype=torch.long), SIMILAR_CLASSES["cifar10"], 1.0, seed=0)
