"""Recorded updates against eager ones, to the bit. On a CPU, a tape takes the place of CUDA graphs."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sam.build.resolved import resolve
from sam.build.update import make_update
from sam.training.determinism import deterministic_algorithms
from sam.training.distributed import World
from sam.training.gradients import FlatGradients
from sam.training.replay import EAGER_UPDATES, Replay
from tests.conftest import changed
from tests.reference.tape import TapeRecorder, tensors

NUM_UPDATES = 6
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def fail(reason):
    raise AssertionError(reason)


def network():
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    second = [nn.Conv2d(4, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU()]
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7))


def batches(soft=False, noisy=False):
    generator = torch.Generator().manual_seed(1)
    for _ in range(NUM_UPDATES):
        images = torch.randn(8, 3, 12, 12, generator=generator)
        targets = torch.randint(0, 7, (8,), generator=generator)
        clean = torch.randint(0, 7, (8,), generator=generator) if noisy else None
        yield images, nn.functional.one_hot(targets, 7).float() if soft else targets, clean


def update_of(model, changes, num_steps=NUM_UPDATES, called=None):
    config = changed({"optimizer.lr": 0.1, "optimizer.name": "sam", "optimizer.rho": 0.2, **changes})
    return make_update(
        config.optimizer, model, called or model, resolve(config), num_steps=num_steps, label_smoothing=0.1
    )


def replayed(update, model, recorder=None, refuse=fail):
    gradients = FlatGradients(list(model.parameters()))
    update.replay = Replay(
        update.rule, update.statistics, gradients, recorder or TapeRecorder(), World(), refuse
    )
    return update


def state_of(model, update):
    state = {"model": model.state_dict(), "optimizer": update.rule.optimizer.state_dict()}
    return copy.deepcopy({**state, "scaler": update.scaler.state_dict()})


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    else:
        assert one == other


class Dropping(nn.Module):
    """Draws random numbers."""

    def forward(self, images):
        return nn.functional.dropout(images, 0.2, self.training)


class Waiting(nn.Module):
    """Makes the host wait for the device."""

    def forward(self, images):
        return images * (2.0 if images.sum().item() > -1e9 else 1.0)


RULES = {
    "sgd": {"optimizer.name": "sgd", "optimizer.rho": 0.05},
    "sgd, decay in the loss": {
        "optimizer.name": "sgd",
        "optimizer.rho": 0.05,
        "optimizer.weight_decay_in": "loss",
        "optimizer.weight_decay": 0.01,
    },
    "adamw": {"optimizer.base": "adamw", "optimizer.lr": 0.001},
    "whole batch": {"m": None},
    "decay in the loss": {"optimizer.weight_decay_in": "loss", "optimizer.weight_decay": 0.01},
    "adaptive": {"optimizer.adaptive": True},
    "p=3": {"optimizer.p": 3.0},
    "p=inf": {"optimizer.p": float("inf"), "optimizer.rho": 0.01},
    "three ascent steps": {"optimizer.ascent_steps": 3},
    "half of the images": {"optimizer.ascent_fraction": 0.5},
    "every second update": {"optimizer.interval": 2},
    "in the middle": {"optimizer.start": 0.3, "optimizer.stop": 0.7},
    "LookSAM": {"optimizer.interval": 2, "optimizer.reuse": 0.7},
    "norms only": {"optimizer.perturb": "norm"},
    "bf16": {"runtime.precision": "bf16"},
    "fp16": {"runtime.precision": "fp16"},
    "msam": {"optimizer.rule": "msam"},
    "s2_sam": {"optimizer.rule": "s2_sam"},
    "f_sam": {"optimizer.rule": "f_sam"},
    "vasso": {"optimizer.rule": "vasso"},
    "functional_sam": {"optimizer.rule": "functional_sam"},
    "stable_sam": {"optimizer.rule": "stable_sam"},
    "le_sam": {"optimizer.rule": "le_sam", "optimizer.le_sam_warm_up": 0.0, "optimizer.le_sam_fall": 1.0},
}


def assert_equal_updates(one, other, given=None):
    """Make the same updates with two pairs of a model and its update."""
    (eager_model, eager), (model, update) = one, other
    for step, (images, targets, clean) in enumerate(given or batches()):
        expected = eager(images, targets, 0.1, clean, step)
        assert_same(update(images, targets, 0.1, clean, step), expected)
        assert_same(state_of(model, update), state_of(eager_model, eager))


@pytest.mark.parametrize("rule", RULES)
def test_recorded_updates_equal_eager_ones_to_the_bit(rule):
    changes = {"batch_size": 8, "m": 4, **RULES[rule]}
    eager_model, model = network(), network()
    eager, update = update_of(eager_model, changes), replayed(update_of(model, changes), model)
    assert_equal_updates((eager_model, eager), (model, update), batches(noisy=True))
    assert update.replay.is_used


def test_a_layer_that_is_frozen_in_the_middle_keeps_its_statistics():
    eager_model, model = network(), network()
    eager, update = update_of(eager_model, {}), replayed(update_of(model, {}), model)
    assert_equal_updates((eager_model, eager), (model, update))
    for trained in (eager_model, model):
        trained[1].eval()
    before = model[1].running_mean.clone()
    assert_equal_updates((eager_model, eager), (model, update))
    assert update.replay.is_used
    assert torch.equal(model[1].running_mean, before)


class Devices(TorchDispatchMode):
    """Notes the devices of the tensors of each operator call."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        self.seen.add(frozenset(tensor.device.type for tensor in tensors(args, kwargs, results)))
        return results


@pytest.mark.parametrize("rule", RULES)
def test_micro_batch_reads_and_makes_no_tensor_of_the_host(rule, monkeypatch):
    # A CUDA graph cannot hold a copy from the host. Here the device is meta, which computes nothing.
    # It has no fused SGD.
    monkeypatch.setattr("sam.optim.perturbation.sgd", lambda *_, **__: None)
    model = network().to("meta")
    update = update_of(model, {"m": 4, **RULES[rule]})
    images, targets = (
        torch.randn(4, 3, 12, 12, device="meta"),
        torch.zeros(4, dtype=torch.int64, device="meta"),
    )
    update.statistics.begin()
    update.rule.begin(2)
    update.rule.accumulate(images, targets, 0.5, True, targets)  # allocates what stays
    with Devices() as devices:
        update.rule.accumulate(images, targets, 0.5, True, targets)
    assert devices.seen <= {frozenset({"meta"}), frozenset()}


@pytest.mark.gpu
@NEEDS_GPU
# The advice of torch's compiler before torch 2.14.
@pytest.mark.filterwarnings("ignore:TensorFloat32")
@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_cuda_graphs_equal_eager_updates_to_the_bit(rule, is_compiled):
    gpu = torch.device("cuda")
    changes = {"batch_size": 8, "m": 4, **RULES[rule]}
    made = []
    with deterministic_algorithms(True, gpu):
        for graph in ("false", "true"):
            model = network().to(gpu, memory_format=torch.channels_last)
            keys = {**changes, "runtime.device": "cuda", "runtime.graph": graph}
            called = torch.compile(model, options={"deterministic": True}) if is_compiled else model
            made.append((model, update_of(model, keys, called=called)))
        given = [[None if part is None else part.to(gpu) for part in batch] for batch in batches(noisy=True)]
        assert_equal_updates(*made, given)
    assert made[1][1].replay.is_used
    assert made[0][1].replay is None


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("layer", [Dropping, Waiting])
def test_work_that_no_cuda_graph_can_hold_is_done_eagerly(layer, capsys):
    gpu, made = torch.device("cuda"), []
    with deterministic_algorithms(True, gpu):
        for graph in ("false", "auto"):
            model = nn.Sequential(layer(), network()).to(gpu, memory_format=torch.channels_last)
            made.append((model, update_of(model, {"runtime.device": "cuda", "runtime.graph": graph})))
        for step, (images, targets, _) in enumerate(batches()):
            for _, update in made:
                torch.manual_seed(step)
                update(images.to(gpu), targets.to(gpu), 0.1, None, step)
            assert_same(*(state_of(*one) for one in made))
    assert not made[1][1].replay.is_used
    assert capsys.readouterr().err.count("no CUDA graph (runtime.graph=auto)") == 1


def test_each_kind_of_batch_has_a_recording_of_its_own():
    eager_model, model, recorder = network(), network(), TapeRecorder()
    eager = update_of(eager_model, {"m": 4}, num_steps=3 * NUM_UPDATES)
    update = replayed(update_of(model, {"m": 4}, num_steps=3 * NUM_UPDATES), model, recorder)
    kinds = [batches(), batches(soft=True), batches(noisy=True)]
    mixed = [batch for some in zip(*kinds, strict=True) for batch in some]
    assert_equal_updates((eager_model, eager), (model, update), mixed)
    assert len(recorder.tapes) == len(kinds)


def test_update_after_loading_a_state_does_not_use_the_tensors_of_the_state_before():
    changes = {"m": 4, "optimizer.rule": "vasso"}
    eager_model, model = network(), network()
    eager, update = update_of(eager_model, changes), replayed(update_of(model, changes), model)
    assert_equal_updates((eager_model, eager), (model, update))
    state = copy.deepcopy(update.rule.optimizer.state_dict())
    for optimizer in (eager.rule.optimizer, update.rule.optimizer):
        optimizer.load_state_dict(copy.deepcopy(state))
    update.replay.forget()
    assert not update.replay.is_used
    assert_equal_updates((eager_model, eager), (model, update))
    assert update.replay.is_used


@pytest.mark.parametrize(
    ("layer", "told"),
    [(Dropping, "the network, or the direction of eps, draws random numbers"), (Waiting, "the host waits")],
)
@pytest.mark.parametrize("rule", ["sgd", "whole batch", "decay in the loss", "msam"])
def test_work_that_cannot_be_recorded_is_done_eagerly(rule, layer, told):
    changes, reasons = {"m": 4, **RULES[rule]}, []
    eager_model, model = nn.Sequential(layer(), network()), nn.Sequential(layer(), network())
    eager = update_of(eager_model, changes)
    update = replayed(update_of(model, changes), model, refuse=reasons.append)
    for step, (images, targets, _) in enumerate(batches()):
        torch.manual_seed(step)
        expected = eager(images, targets, 0.1, None, step)
        torch.manual_seed(step)
        assert_same(update(images, targets, 0.1, None, step), expected)
        assert_same(state_of(model, update), state_of(eager_model, eager))
    (reason,) = reasons
    assert reason.startswith(told)
    assert "\n" not in reason
    assert not update.replay.is_used


@pytest.mark.parametrize("rule", ["sgd", "whole batch", "msam", "s2_sam", "stable_sam"])
def test_lack_of_memory_during_a_recording_leaves_all_as_it_was(rule):
    changes, reasons, recorder = {"m": 4, **RULES[rule]}, [], TapeRecorder("convolution_backward")
    eager_model, model = network(), network()
    eager = update_of(eager_model, changes)
    update = replayed(update_of(model, changes), model, recorder, reasons.append)
    assert_equal_updates((eager_model, eager), (model, update))
    assert reasons == ["CUDA out of memory"]
    assert not update.replay.is_used


def test_the_cause_of_a_failed_recording_is_told():
    class Ending(TapeRecorder):
        """Fails at the end of the recording too, as CUDA does after a failure in it."""

        def record(self, work):
            try:
                return super().record(work)
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")

    model, reasons = nn.Sequential(Waiting(), network()), []
    update = replayed(update_of(model, {}), model, Ending(), reasons.append)
    for step, (images, targets, _) in enumerate(batches()):
        update(images, targets, 0.1, None, step)
    (reason,) = reasons
    assert reason.startswith("the host waits")


def test_a_weight_that_only_some_batches_use_ends_the_recordings():
    def branching():
        model = network()
        model.gate, plain = nn.Parameter(torch.ones(())), model.forward
        model.forward = lambda images: plain(images * model.gate if len(images) == 3 else images)
        return model

    eager_model, model = branching(), branching()
    changes, reasons = {"optimizer.weight_decay": 0.1}, []
    eager = update_of(eager_model, changes)
    update = replayed(update_of(model, changes), model, refuse=reasons.append)
    whole = list(batches())
    smaller = [tuple(None if part is None else part[:3] for part in batch) for batch in whole]
    assert_equal_updates((eager_model, eager), (model, update), whole[:4])
    assert update.replay.is_used
    assert_equal_updates((eager_model, eager), (model, update), [smaller[0], *whole, *smaller])
    assert reasons == ["a weight got its first gradient"]
    assert not update.replay.is_used


def test_a_weight_without_a_gradient_is_not_moved_by_weight_decay():
    model = network()
    model.unused = nn.Parameter(torch.ones(3))
    update = replayed(update_of(model, {"m": 4, "optimizer.weight_decay": 0.1}), model)
    for step, (images, targets, _) in enumerate(batches()):
        update(images, targets, 0.1, None, step)
    assert update.replay.is_used
    assert model.unused.grad is None
    assert torch.equal(model.unused, torch.ones(3))


def test_a_first_gradient_after_the_recording_began_is_noticed():
    model, reasons = network(), []
    model.gate = nn.Parameter(torch.ones(()))
    plain, is_open = model.forward, False
    model.forward = lambda images: plain(images * model.gate if is_open else images)
    twin = network()
    twin.gate = nn.Parameter(torch.ones(()))
    twin_plain = twin.forward
    twin.forward = lambda images: twin_plain(images * twin.gate if is_open else images)
    eager = update_of(twin, {})
    update = replayed(update_of(model, {}), model, refuse=reasons.append)
    for step, (images, targets, _) in enumerate(batches()):
        is_open = step >= EAGER_UPDATES
        eager(images, targets, 0.1, None, step)
        update(images, targets, 0.1, None, step)
        assert_same(state_of(model, update), state_of(twin, eager))
    assert reasons == ["a weight got its first gradient"]
