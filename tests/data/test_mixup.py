"""Tests of sam/data/mixup.py."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from sam.data.mixup import draw_mixup, mix_images, mix_targets


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mix_images_blends_each_with_its_partner() -> None:
    images = torch.tensor([1.0, 3.0, -5.0]).view(3, 1, 1, 1)
    mixed = mix_images(images, 0.25, torch.tensor([1, 2, 0]))
    assert mixed.flatten().tolist() == [0.25 * 1 + 0.75 * 3, 0.25 * 3 - 0.75 * 5, -0.25 * 5 + 0.75 * 1]


@settings(deadline=None)
@given(lam=st.floats(0, 1), seed=st.integers(0, 1000))
def test_mix_images_equals_the_formula(lam: float, seed: int) -> None:
    images = torch.randn(6, 3, 4, 5, generator=seeded(seed))
    permutation = torch.randperm(6, generator=seeded(seed))
    exact = images.double().numpy()
    expected = lam * exact + (1 - lam) * exact[permutation.numpy()]
    # The error of a few roundings of float32 numbers below 6.
    np.testing.assert_allclose(mix_images(images, lam, permutation), expected, rtol=0, atol=2e-6)


def test_mix_images_with_lam_one_or_zero_is_exactly_one_of_the_two() -> None:
    images, permutation = torch.randn(5, 3, 4, 4, generator=seeded(0)), torch.tensor([4, 2, 0, 1, 3])
    assert torch.equal(mix_images(images, 1.0, permutation), images)
    assert torch.equal(mix_images(images, 0.0, permutation), images[permutation])


@pytest.mark.parametrize("channels", [1, 3])
def test_mix_images_keeps_the_memory_format_and_its_input(channels: int) -> None:
    images = torch.rand(4, channels, 6, 6).to(memory_format=torch.channels_last)
    before = images.clone()
    mixed = mix_images(images, 0.3, torch.tensor([1, 0, 3, 2]))
    assert mixed.dtype == torch.float32
    assert mixed.stride() == images.stride()
    assert torch.equal(images, before)


def test_mix_targets_blends_the_labels_of_each_with_its_partner() -> None:
    mixed = mix_targets(torch.tensor([0, 2, 2]), 4, 0.75, torch.tensor([1, 2, 0]))
    assert mixed.tolist() == [[0.75, 0, 0.25, 0], [0, 0, 1, 0], [0.25, 0, 0.75, 0]]
    assert mixed.dtype == torch.float32


@settings(deadline=None)
@given(
    lam=st.floats(0, 1), targets=st.lists(st.integers(0, 9), min_size=1, max_size=20), seed=st.integers(0, 99)
)
def test_mix_targets_rows_are_distributions(lam: float, targets: list[int], seed: int) -> None:
    permutation = torch.randperm(len(targets), generator=seeded(seed))
    mixed = mix_targets(torch.tensor(targets), 10, lam, permutation)
    assert mixed.shape == (len(targets), 10)
    assert mixed.min() >= 0
    # The rounding error of two float32 numbers that add up to one.
    torch.testing.assert_close(mixed.sum(1), torch.ones(len(targets)), rtol=0, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0, 32.0])
def test_draw_mixup_lam_has_the_moments_of_the_beta_distribution(alpha: float) -> None:
    generator = seeded(0)
    lam = np.array([draw_mixup(generator, alpha, 1, 1)[0] for _ in range(20000)])
    variance = 1 / (4 * (2 * alpha + 1))
    # Five standard errors of mean and variance (the excess kurtosis is between -2 and 0).
    assert abs(lam.mean() - 0.5) < 5 * np.sqrt(variance / 20000)
    assert abs(lam.var() - variance) < 5 * variance * np.sqrt(2 / 20000)
    assert 0 <= lam.min() < lam.max() <= 1


def test_draw_mixup_with_large_alpha_mixes_halves_and_with_small_alpha_hardly() -> None:
    halves = [draw_mixup(seeded(seed), 1e6, 1, 1)[0] for seed in range(50)]
    ends = [draw_mixup(seeded(seed), 1e-3, 1, 1)[0] for seed in range(50)]
    np.testing.assert_allclose(halves, 0.5, atol=0.003)
    assert sum(min(lam, 1 - lam) > 0.01 for lam in ends) <= 5
    assert {round(lam) for lam in ends} == {0, 1}


def test_draw_mixup_permutes_evenly() -> None:
    generator = seeded(0)
    permutations = torch.stack([draw_mixup(generator, 1.0, 4, 4)[1] for _ in range(4800)])
    assert permutations.dtype == torch.int64
    assert torch.equal(permutations.sort(1).values, torch.arange(4).expand(4800, 4))
    _, counts = np.unique(permutations.numpy(), axis=0, return_counts=True)
    assert len(counts) == 24
    # The seed is fixed; correct code would fail for one seed in 10**6.
    assert ((counts - 200) ** 2 / 200).sum() < chi2.isf(1e-6, 23)


def test_draw_mixup_finds_partners_within_micro_batches() -> None:
    _, permutation = draw_mixup(seeded(0), 1.0, 40, 8)
    assert torch.equal(permutation // 8, torch.arange(40) // 8)
    assert torch.equal(permutation.sort().values, torch.arange(40))
    blocks = permutation.view(5, 8) - 8 * torch.arange(5)[:, None]
    assert len(blocks.unique(dim=0)) == 5


def test_draw_mixup_depends_on_the_generator_alone() -> None:
    torch.manual_seed(0)
    lam, permutation = draw_mixup(seeded(7), 1.0, 50, 50)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again, same = draw_mixup(seeded(7), 1.0, 50, 50)
    assert (lam, permutation.tolist()) == (again, same.tolist())
    assert torch.equal(torch.get_rng_state(), state)
    other, different = draw_mixup(seeded(8), 1.0, 50, 50)
    assert other != lam
    assert not torch.equal(different, permutation)
