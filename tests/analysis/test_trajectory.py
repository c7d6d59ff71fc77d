"""The principal components of paths on a quadratic loss, where everything has a closed form."""

import math

import numpy as np
import pytest
import torch

from sam.analysis.trajectory import path_steps, principal_path

CURVATURES = torch.tensor([1.0, 4.0, 4.0], dtype=torch.float64)


def descent(start, curvatures, lr=0.1, num_steps=6):
    """Return the weights of gradient descent on 1/2 sum_i c_i w_i^2, as two tensors per moment."""
    start = torch.tensor(start, dtype=torch.float64)
    moments = [start * (1 - lr * curvatures) ** step for step in range(num_steps)]
    return [[moment[:2].view(2, 1).clone(), moment[2:].clone()] for moment in moments]


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


def test_straight_path_is_explained_by_one_component():
    moments = descent([2.0, -1.0, 3.0], torch.ones(3, dtype=torch.float64))
    path = principal_path(moments, 1)
    start = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64)
    assert path.explained_pct == pytest.approx([100], abs=1e-10)
    length = start.norm().item()
    expected = [-length * (0.9**step - 0.9**5) for step in range(6)]
    np.testing.assert_allclose(path.coordinates[:, 0], expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(flat(path.directions[0]), -start / length, rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match=r"fewer than 2 directions; .* or set analysis\.dimensions=1"):
        principal_path(moments, 2)


def test_path_in_a_plane_is_explained_by_two_components_and_the_plane_has_its_losses():
    # Two curvatures: the path stays in the plane of (1, 0, 0) and (0, -1, 3).
    moments = descent([2.0, -1.0, 3.0], CURVATURES)
    path = principal_path(moments, 2)
    assert sum(path.explained_pct) == pytest.approx(100, abs=1e-10)
    directions = torch.stack([flat(direction) for direction in path.directions])
    torch.testing.assert_close(directions @ directions.T, torch.eye(2).double(), rtol=1e-12, atol=1e-12)
    for moment, coordinates in zip(moments, path.coordinates, strict=True):
        point = flat(moments[-1]) + torch.from_numpy(coordinates) @ directions
        torch.testing.assert_close(point, flat(moment), rtol=1e-12, atol=1e-12)
        losses = [(CURVATURES * w**2).sum() / 2 for w in (point, flat(moment))]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)


def test_components_are_those_of_the_centred_weights():
    generator = torch.Generator().manual_seed(0)
    moments = [
        [torch.randn(7, 3, generator=generator), torch.randn(4, generator=generator)] for _ in range(5)
    ]
    path = principal_path(moments, 3)
    rows = np.stack([flat(moment).double().numpy() for moment in moments])
    _, values, components = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(path.explained_pct, (100 * values**2 / (values**2).sum())[:3], rtol=1e-10)
    for number, direction in enumerate(path.directions):
        cosine = abs(flat(direction).double().numpy() @ components[number])
        assert cosine == pytest.approx(1, abs=1e-6)  # the directions are float32, as the weights
    np.testing.assert_allclose(
        np.abs(path.coordinates), np.abs((rows - rows[-1]) @ components[:3].T), rtol=1e-9, atol=1e-12
    )
    assert (path.coordinates[0] <= 0).all() and not path.coordinates[-1].any()


def test_path_that_does_not_move_or_is_not_finite_has_no_component():
    with pytest.raises(ValueError, match="fewer than 1 directions"):
        principal_path([[torch.ones(3)]] * 3, 1)
    with pytest.raises(ValueError, match="not finite"):
        principal_path([[torch.ones(3)], [torch.full((3,), math.inf)]], 1)


def test_grid_goes_beyond_the_path_by_half_a_span():
    np.testing.assert_allclose(path_steps(np.array([-3.0, -1.0, 1.0, 0.0]), 1.0, 5), [-5, -3, -1, 1, 3])
