"""Several processes against the formulas of the paper in float64: DDP, shared perturbations, FSDP2, fp16."""

import functools

import pytest
import torch

from sam.training.distributed import World
from tests.reference import sam as reference
from tests.training import processes
from tests.training.processes import NUM_IMAGES, NUM_STEPS, M, make_convolutions, make_images, make_tanh
from tests.training.updates import RHO, SGD, oracle_update

# One group: the two starts of processes are for all tests here.
pytestmark = [pytest.mark.ddp, pytest.mark.xdist_group("processes")]
# Sums of float64 in another order, through convolutions and divisions by a norm, over three updates.
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return processes.start(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return processes.start(4, tmp_path_factory.mktemp("four"))


def followed(make, gradient, m, images=None, targets=None):
    """Weights and running statistics after three updates, micro-batch by micro-batch."""
    if images is None:
        images, targets = make_images()
    model, base = make(), reference.Sgd(**SGD)
    for _ in range(NUM_STEPS):
        oracle_update(model, base, gradient, images, targets, m, clip_norm=0.5, weight_decay=0.05)
    return model.state_dict()


SAM_GRADIENT = functools.partial(reference.sam_gradient, rho=RHO)
GRADIENTS = {"sgd": reference.gradient, "sam": SAM_GRADIENT}


def assert_all_close(state, target):
    assert state.keys() == target.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, target[name], **CLOSE)


@pytest.mark.parametrize("size", ["two", pytest.param("four", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_m_means_the_same_on_one_two_and_four_processes(request, size, name):
    results = request.getfixturevalue(size)
    assert_all_close(results[0][name]["model"], followed(make_convolutions, GRADIENTS[name], M))


@pytest.mark.parametrize("name", ["sgd", "sam", "sam, shared", "sam, shared, statistics"])
def test_replicas_stay_equal_to_the_bit(two, name):
    one, other = (result[name] for result in two)
    assert all(torch.equal(a, b) for a, b in zip(one["weights"], other["weights"]))
    assert all(torch.equal(a, other["model"][key]) for key, a in one["model"].items())


@pytest.mark.parametrize("name", ["sgd", "sam"])
def test_recorded_updates_with_one_exchange_have_the_bits_of_distributed_data_parallel(two, name):
    for results in two:
        recorded = results[f"{name}, recorded"]
        assert recorded["recordings"] == 1
        pairs = zip(results[name]["weights"], recorded["weights"], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_sam_exchanges_gradients_exactly_as_often_as_sgd(two):
    assert two[0]["sgd"]["exchanges"] == two[0]["sam"]["exchanges"] > 0
    # One more exchange per micro-batch: here one, and eight.
    assert two[0]["sam, shared"]["exchanges"] == 2 * NUM_STEPS
    assert two[0]["sam, shared, m"]["exchanges"] == (NUM_IMAGES // M + 1) * NUM_STEPS


@pytest.mark.parametrize(("name", "m"), [("sam, shared", NUM_IMAGES), ("sam, shared, m", None)])
def test_shared_ascent_perturbs_once_for_m_images_of_all_processes(two, name, m):
    model = two[0][name]["model"]
    if m is None:
        # Micro-batch k is the k-th sixteen images of each process: other images than one process takes.
        images, targets = make_images()
        order = torch.arange(NUM_IMAGES).view(2, -1, M // 2).transpose(0, 1).flatten()
        target = followed(make_tanh, SAM_GRADIENT, M, images[order], targets[order])
    else:
        target = followed(make_tanh, SAM_GRADIENT, m)
    assert_all_close(model, target)


@pytest.mark.parametrize("name", ["sam, {}", "sam, {}, m", "sam, {}, statistics", "sam, {}, several"])
def test_sharded_weights_equal_data_parallel_ones_with_a_shared_ascent(two, name):
    assert_all_close(two[0][name.format("sharded")]["model"], two[0][name.format("shared")]["model"])


@pytest.mark.parametrize(
    "name", [*processes.ONE_PASS, "msam, sharded", "functional_sam", "functional_sam, shared"]
)
def test_other_rules_are_the_same_in_two_processes_as_in_one(two, name):
    model = make_tanh()
    rule, _, kind = name.partition(", ")
    processes.train(processes.make_update(model, rule, m=NUM_IMAGES if kind == "shared" else M), World())
    assert_all_close(two[0][name]["model"], model.state_dict())
    assert_all_close(two[1][name]["model"], model.state_dict())
    if name in processes.ONE_PASS:
        assert two[0][name]["exchanges"] == NUM_STEPS


@pytest.mark.parametrize(
    ("name", "gradient", "m"),
    [
        ("sgd, sharded", reference.gradient, M),
        ("sam, sharded", SAM_GRADIENT, NUM_IMAGES),
        ("sam, sharded, adaptive", functools.partial(SAM_GRADIENT, adaptive=True), NUM_IMAGES),
    ],
)
def test_sharded_weights_equal_the_formula(two, name, gradient, m):
    assert_all_close(two[0][name]["model"], followed(make_tanh, gradient, m))


def test_sharded_weights_of_which_some_are_perturbed_equal_the_formula(two):
    chosen = [name.endswith("bias") for name, _ in make_tanh().named_parameters()]

    def gradient(loss, weights):
        grads = reference.gradient(loss, weights)
        length = reference.norm([grad for grad, is_bias in zip(grads, chosen) if is_bias])
        moves = [RHO * grad / length if is_bias else 0 * grad for grad, is_bias in zip(grads, chosen)]
        return reference.gradient(loss, reference.moved(weights, moves))

    target = followed(make_tanh, gradient, NUM_IMAGES)
    assert_all_close(two[0]["sam, sharded, some"]["model"], target)


def test_sharded_weights_are_shards_that_stay_in_place_and_go_on_from_whole_tensors_to_the_same_bits(two):
    for rank, results in enumerate(two):
        for name, result in results.items():
            if "sharded" not in name:
                continue
            assert result["in place"]
            # A parameter of one entry lies with the first process.
            assert result["largest shard"] <= (1 if rank == 0 else 0.5)
            assert all(torch.equal(t, result["continued"][key]) for key, t in result["model"].items())


@pytest.mark.parametrize("name", ["overflow uphill", "overflow at the end"])
def test_overflow_in_one_pass_of_one_process_skips_the_update_in_all(two, name):
    start = processes.Explosive().linear.weight.detach()
    (skipped, scale), (stepped, later_scale) = two[0][name]
    assert torch.equal(skipped, start)
    assert scale == 2.0**15 == later_scale, "half of what GradScaler starts with"
    assert torch.isfinite(stepped).all() and not torch.equal(stepped, start)
    assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(two[0][name], two[1][name]))
