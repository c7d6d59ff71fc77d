"""Tests of sam/models/gates.py."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sam.models.gates import Gate, ShakeDrop, ShakeShake, set_true_gradient
from sam.models.pyramidnet import PyramidNet
from sam.models.shake_shake import ShakeShakeNet
from tests.reference import gates as reference

# The error of two products and a sum of numbers below 4, each rounded to 53 bits.
EXACT = {"rtol": 0.0, "atol": 4e-15}


def images(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def draws(count: int, num_images: int, seed: int = 0) -> Tensor:
    """Return the numbers that a gate draws with the same seed."""
    torch.manual_seed(seed)
    return torch.rand(count, num_images, dtype=torch.float32).double()


def shake_shake_pass(true_gradient: bool, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the mix of two branches, the gradient of the mix, and the gradients of the branches."""
    first, second = images(2, 5, 3, 2, 2)
    gate = ShakeShake()
    gate.true_gradient = true_gradient
    torch.manual_seed(seed)
    mixed = gate(first, second)
    sent = images(*mixed.shape, seed=2)
    return mixed, sent, *torch.autograd.grad(mixed, (first, second), sent)


def shake_drop_pass(true_gradient: bool, keep_probability: float = 0.6) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scaled branch, its gradient, and the gradient of the branch."""
    branch = images(12, 3, 2, 2)
    gate = ShakeDrop(keep_probability)
    gate.true_gradient = true_gradient
    torch.manual_seed(0)
    scaled = gate(branch)
    sent = images(*scaled.shape, seed=2)
    return scaled, sent, *torch.autograd.grad(scaled, branch, sent)


@pytest.mark.parametrize("true_gradient", [False, True])
def test_shake_shake_forward_equals_the_reference_image_by_image(true_gradient: bool) -> None:
    alphas, _ = draws(2, 5)
    mixed = shake_shake_pass(true_gradient)[0]
    expected = reference.shake_shake(*images(2, 5, 3, 2, 2), alphas)
    # float32 computes 1 - alpha, which is exact for the 24 bits of alpha.
    torch.testing.assert_close(mixed, expected, **EXACT)


@pytest.mark.parametrize("true_gradient", [False, True])
def test_shake_drop_forward_equals_the_reference_image_by_image(true_gradient: bool) -> None:
    for_keep, for_alpha, _ = draws(3, 12)
    expected = reference.shake_drop(images(12, 3, 2, 2), 0.6, for_keep, 2 * for_alpha - 1)
    torch.testing.assert_close(shake_drop_pass(true_gradient)[0], expected, **EXACT)
    # Some of the twelve images are kept and some are not.
    assert 0 < int((for_keep < 0.6).sum()) < 12


@pytest.mark.parametrize("true_gradient", [False, True])
def test_shake_shake_gradient_takes_beta_or_alpha(true_gradient: bool) -> None:
    alphas, betas = draws(2, 5)
    _, sent, *arrived = shake_shake_pass(true_gradient)
    expected = reference.shake_shake_gradients(sent, alphas if true_gradient else betas)
    torch.testing.assert_close(arrived, list(expected), **EXACT)


@pytest.mark.parametrize("true_gradient", [False, True])
def test_shake_drop_gradient_takes_beta_or_alpha(true_gradient: bool) -> None:
    for_keep, for_alpha, betas = draws(3, 12)
    _, sent, arrived = shake_drop_pass(true_gradient)
    coefficients = 2 * for_alpha - 1 if true_gradient else betas
    torch.testing.assert_close(arrived, reference.shake_drop(sent, 0.6, for_keep, coefficients), **EXACT)


def seeded(gate: Gate) -> Callable[..., Tensor]:
    """Return the gate as a deterministic function."""

    def function(*branches: Tensor) -> Tensor:
        torch.manual_seed(0)
        result: Tensor = gate(*branches)
        return result

    return function


@pytest.mark.parametrize(("gate", "num_branches"), [(ShakeShake(), 2), (ShakeDrop(0.5), 1)])
def test_gate_with_true_gradient_passes_finite_differences(gate: Gate, num_branches: int) -> None:
    gate.true_gradient = True
    branches = tuple(images(4, 2, 2, 1) for _ in range(num_branches))
    assert torch.autograd.gradcheck(seeded(gate), branches)
    assert torch.autograd.gradgradcheck(seeded(gate), branches)
    gate.true_gradient = False
    assert not torch.autograd.gradcheck(seeded(gate), branches, raise_exception=False)


def test_gate_mode_changes_neither_forward_nor_the_stream_of_random_numbers() -> None:
    for run in (shake_shake_pass, shake_drop_pass):
        results, states = [], []
        for true_gradient in (False, True):
            results.append(run(true_gradient))
            states.append(torch.get_rng_state())
        assert torch.equal(states[0], states[1])
        assert torch.equal(results[0][0], results[1][0])
        assert not torch.equal(results[0][2], results[1][2])


@pytest.mark.parametrize(("run", "count", "num_images"), [(shake_shake_pass, 2, 5), (shake_drop_pass, 3, 12)])
def test_gate_draws_as_many_numbers_as_it_says(
    run: Callable[[bool], object], count: int, num_images: int
) -> None:
    run(False)
    state = torch.get_rng_state()
    draws(count, num_images)
    assert torch.equal(torch.get_rng_state(), state)


def test_gate_in_evaluation_draws_nothing_and_repeats_itself() -> None:
    first, second = images(2, 5, 3, 2, 2)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    mixed = [ShakeShake().eval()(first, second) for _ in range(2)]
    scaled = [ShakeDrop(0.7).eval()(first) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(mixed[0], mixed[1])
    assert torch.equal(scaled[0], scaled[1])
    torch.testing.assert_close(mixed[0], first / 2 + second / 2, **EXACT)
    torch.testing.assert_close(scaled[0], 0.7 * first, **EXACT)


NUM_DRAWS = 20_000


def test_shake_shake_in_evaluation_equals_the_mean_of_many_draws() -> None:
    first = torch.full((NUM_DRAWS, 1, 1, 1), 3.0, dtype=torch.float64)
    second = torch.full((NUM_DRAWS, 1, 1, 1), -2.0, dtype=torch.float64)
    torch.manual_seed(0)
    gate = ShakeShake()
    mean = float(gate(first, second).mean())
    expected = float(gate.eval()(first[:1], second[:1]))
    assert expected == 0.5
    # The mix has the standard deviation |3 - -2| / sqrt(12). The tolerance is six sigma of the mean.
    assert abs(mean - expected) < 6 * (5 / 12**0.5) / NUM_DRAWS**0.5


@pytest.mark.parametrize("keep_probability", [0.0, 0.5, 0.9, 1.0])
def test_shake_drop_in_evaluation_equals_the_mean_of_many_draws(keep_probability: float) -> None:
    torch.manual_seed(0)
    gate = ShakeDrop(keep_probability)
    ones = torch.ones(NUM_DRAWS, 1, 1, 1, dtype=torch.float64)
    mean = float(gate(ones).mean())
    # The factor is 1, or uniform in [-1, 1) with second moment 1/3. The tolerance is six sigma of the mean.
    variance = keep_probability + (1 - keep_probability) / 3 - keep_probability**2
    expected = float(gate.eval()(ones[:1]))
    assert expected == keep_probability
    assert abs(mean - expected) <= 6 * (variance / NUM_DRAWS) ** 0.5


def test_shake_drop_keeps_all_or_nothing_at_the_ends() -> None:
    branch = images(64, 1, 1, 1)
    assert torch.equal(ShakeDrop(1.0)(branch), branch)
    assert not bool((ShakeDrop(0.0)(branch) == branch).any())


def test_gates_draw_coefficients_over_their_whole_ranges() -> None:
    ones = torch.ones(NUM_DRAWS, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    alpha = ShakeShake()(ones, torch.zeros_like(ones))
    scaled = ShakeDrop(0.0)(ones)
    (beta,) = torch.autograd.grad(scaled.sum(), ones)
    # All 20 000 draws miss 1/1000 of the range with probability 2e-9.
    for values, low, high in ((alpha, 0, 1), (scaled, -1, 1), (beta, 0, 1)):
        values = values.detach()
        assert low <= float(values.min()) < low + (high - low) / 1000
        assert high - (high - low) / 1000 < float(values.max()) <= high
    # If independent, the correlation of n pairs has the standard deviation 1 / n**0.5.
    correlation = float(torch.corrcoef(torch.stack([scaled.detach().flatten(), beta.flatten()]))[0, 1])
    assert abs(correlation) < 6 / NUM_DRAWS**0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gates_keep_type_and_channels_last_in_both_directions(dtype: torch.dtype) -> None:
    branch = images(3, 4, 5, 6, dtype=dtype).detach().to(memory_format=torch.channels_last)
    branch.requires_grad_()
    for gate in (ShakeDrop(0.5), lambda x: ShakeShake()(x, 2 * x)):
        result = gate(branch)
        (grad,) = torch.autograd.grad(result.square().sum(), branch)
        for tensor in (result, grad):
            assert tensor.dtype == dtype
            assert tensor.is_contiguous(memory_format=torch.channels_last)
            assert bool(tensor.isfinite().all())


def test_gates_take_the_same_coefficients_in_every_precision() -> None:
    branch = images(8, 1, 1, 1)
    results = []
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        results.append(ShakeDrop(0.5)(branch.detach().to(dtype)).double())
    torch.testing.assert_close(results[1], results[0], rtol=3 * 2**-24, atol=0)
    # Image, coefficient and product are each rounded to 8 bits.
    torch.testing.assert_close(results[2], results[0], rtol=3.1 * 2**-9, atol=0)


@pytest.mark.parametrize("keep_probability", [-0.1, 1.5, float("nan")])
def test_shake_drop_refuses_what_is_no_probability(keep_probability: float) -> None:
    with pytest.raises(ValueError, match=rf"^keep_probability must be from 0 to 1, got {keep_probability}$"):
        ShakeDrop(keep_probability)


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        ShakeShakeNet(depth=8, width=4, in_channels=3, num_classes=3).double(),
        PyramidNet(depth=11, width=4, in_channels=3, num_classes=3, alpha=4, shakedrop=True).double(),
    ]


def test_set_true_gradient_reaches_all_gates_and_goes_back() -> None:
    for model in networks():
        gates = [module for module in model.modules() if isinstance(module, Gate)]
        assert len(gates) == 3
        assert not any(gate.true_gradient for gate in gates)
        set_true_gradient(model, True)
        assert all(gate.true_gradient for gate in gates)
        set_true_gradient(model, False)
        assert not any(gate.true_gradient for gate in gates)


def test_network_with_true_gradient_has_the_slope_of_its_loss() -> None:
    batch = images(4, 3, 8, 8).detach()
    for model in networks():
        set_true_gradient(model, True)
        parameters = list(model.parameters())

        def loss(model: nn.Module = model) -> Tensor:
            torch.manual_seed(5)
            result: Tensor = model(batch).square().sum()
            return result

        grads = torch.autograd.grad(loss(), parameters)
        moves = [1e-6 * images(*weight.shape).detach() for weight in parameters]
        slope = sum(float((grad * move).sum()) for grad, move in zip(grads, moves, strict=True))
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                for weight, move in zip(parameters, moves, strict=True):
                    weight.add_(move, alpha=sign)
                ends.append(float(loss()))
        # Central difference: errors of 1e-12 from curvature, 1e-16 / 1e-6 from rounding, and ReLU kinks.
        assert ends[0] - ends[1] == pytest.approx(2 * slope, rel=1e-4)


def test_network_pass_repeats_bit_for_bit_after_resetting_the_random_state() -> None:
    batch = images(4, 3, 8, 8).detach()
    for model in networks():

        def run(model: nn.Module = model) -> list[Tensor]:
            logits = model(batch)
            return [logits.detach(), *torch.autograd.grad(logits.square().sum(), list(model.parameters()))]

        state = torch.get_rng_state()
        first, other = run(), run()
        torch.set_rng_state(state)
        again = run()
        assert all(map(torch.equal, first, again))
        assert not torch.equal(first[0], other[0])
        # The switch may change between the passes: same draws, same logits, different gradient.
        set_true_gradient(model, True)
        torch.set_rng_state(state)
        true = run()
        assert torch.equal(first[0], true[0])
        assert not all(map(torch.equal, first, true))


def test_network_in_evaluation_is_deterministic() -> None:
    batch = images(4, 3, 8, 8).detach()
    for model in networks():
        model.eval()
        assert torch.equal(model(batch), model(batch))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gates_draw_from_the_generator_of_the_images_device_on_cuda() -> None:
    branch = torch.ones(8, 2, 3, 3, device="cuda")
    cpu_state, cuda_state = torch.get_rng_state(), torch.cuda.get_rng_state()
    first = ShakeDrop(0.5)(branch)
    assert torch.equal(torch.get_rng_state(), cpu_state)
    torch.cuda.set_rng_state(cuda_state)
    assert torch.equal(ShakeDrop(0.5)(branch), first)
