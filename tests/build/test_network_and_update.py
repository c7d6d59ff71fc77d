"""Tests of sam/build/update.py and sam/build/rules.py."""

import inspect
import math
from functools import partial

import pytest
import torch
from timm.optim import RMSpropTF
from torch import nn

from sam.build.base_optimizer import base_optimizer
from sam.build.data import load_dataset
from sam.build.network import ARCHITECTURES, make_network
from sam.build.resolved import resolve
from sam.build.update import make_update
from sam.config.model import MODEL_OPTIONS
from sam.config.sam_rules import SAM_RULES
from sam.config.schema import config_items
from sam.models.gates import Gate
from sam.optim import MSAM, S2SAM, SAM
from sam.optim.schedule import Ascents
from sam.training.functional_sam import FunctionalSAMRule
from sam.training.look_sam import OrthogonalReuse
from sam.training.one_pass import OnePassRule
from sam.training.rule import SAMRule, SGDRule
from sam.training.second_order import SecondOrderSAMRule
from sam.training.stable_sam import StableSAMRule
from sam.training.update import Update
from tests.conftest import changed
from tests.training.updates import make_pass

CPU = torch.device("cpu")
NUM_STEPS = 4
ONE_PASS = {"msam": MSAM, "s2_sam": S2SAM}
TWO_PASSES = {"functional_sam": FunctionalSAMRule, "stable_sam": StableSAMRule}


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("true_gradient", [True, False])
def test_gates_have_the_true_gradient_in_the_first_pass_only_and_if_told_to(true_gradient, second_order):
    config = changed(
        {
            "dataset.reader": "synthetic",
            "dataset.num_train": 8,
            "dataset.num_test": 2,
            "dataset.image_size": 12,
            "dataset.num_classes": 2,
            "model.architecture": "pyramidnet",
            "model.depth": 11,
            "model.width": 4,
            "model.alpha": 3,
            "model.shakedrop": True,
            "optimizer.true_gradient": true_gradient,
            "optimizer.second_order": second_order,
        }
    )
    data = load_dataset(config.dataset, seed=0)
    network = make_network(config.model, data, CPU)
    modes = []
    gates = [layer for layer in network.modules() if isinstance(layer, Gate)]
    gates[0].register_forward_hook(lambda gate, *_: modes.append(gate.true_gradient))
    update = make_update(config.optimizer, network, network, resolve(config), num_steps=2)
    for _ in range(2):
        update(torch.randn(4, 3, 12, 12), torch.tensor([0, 1, 0, 1]), lr=0.1)
    assert len(gates) == 3
    assert modes == [true_gradient, False] * 2


@pytest.mark.parametrize("architecture", MODEL_OPTIONS)
def test_every_option_of_an_architecture_is_passed_on(architecture):
    parameters = set(inspect.signature(ARCHITECTURES[architecture]).parameters)
    assert parameters == {*MODEL_OPTIONS[architecture], "in_channels", "num_classes"}


def by_hand(
    network,
    rule="sam",
    geometry=None,
    passes=None,
    loss=None,
    m=None,
    clip_norm=5.0,
    reuse=None,
    base_class=torch.optim.SGD,
    **settings,
):
    """Return the update of the default config, or another one."""
    base = {"lr": 0.1, "weight_decay": 5e-4}
    if base_class is torch.optim.SGD:
        base |= {"momentum": 0.9, "nesterov": True}
    base |= settings
    forward_backward = make_pass(network, **(loss or {}))
    ball = {"rho": 0.05, **(geometry or {})}
    passes = {"replay": True, **(passes or {})}
    if rule in TWO_PASSES:
        sam = SAM(network.parameters(), base_class, **ball, **base)
        chosen = TWO_PASSES[rule](forward_backward, sam, **passes)
    elif rule == "sam":
        sam = SAM(network.parameters(), base_class, **ball, **base)
        chosen = SAMRule(forward_backward, sam, **passes, reuse=reuse and OrthogonalReuse(sam, reuse))
    elif rule == "norm":
        norm = list(network[2].parameters())
        others = [*network[1].parameters(), *network[5].parameters()]
        groups = [{"params": others, "perturbed": False}, {"params": norm}]
        chosen = SAMRule(forward_backward, SAM(groups, base_class, **ball, **base), **passes)
    elif rule == "kernels":
        names = dict(network.named_parameters())
        kernels = [names.pop("1.weight"), names.pop("5.weight")]
        groups = [{"params": kernels}, {"params": list(names.values()), "adaptive": False}]
        chosen = SAMRule(forward_backward, SAM(groups, base_class, adaptive=True, **ball, **base), **passes)
    elif rule in ONE_PASS:
        optimizer = ONE_PASS[rule](network.parameters(), base_class, **ball, **base)
        chosen = OnePassRule(forward_backward, optimizer)
    elif rule == "second_order":
        optimizer = base_class(network.parameters(), **base)
        chosen = SecondOrderSAMRule(forward_backward, optimizer, **ball, **passes)
    else:
        chosen = SGDRule(forward_backward, base_class(network.parameters(), **base))
    return Update(chosen, forward_backward, m, clip_norm)


# A key and its value, the same update by hand, and what else has to be set for the key to matter.
SECOND_ORDER = {"optimizer.second_order": True}
SGD = {"optimizer.name": "sgd"}
IN_LOSS = {"weight_decay": 0.0, "loss": {"weight_decay_in_loss": 5e-4}}
ADAMW = {"base_class": torch.optim.AdamW, "betas": (0.9, 0.999)}
RMSPROP = {"base_class": RMSpropTF, "momentum": 0.9, "alpha": 0.9, "eps": 1e-3, "lr_in_momentum": False}
UPDATES = [
    ("optimizer.name", "sgd", {"rule": "sgd"}, {}),
    ("optimizer.base", "adamw", ADAMW, {}),
    ("optimizer.base", "adamw", {"rule": "sgd", **ADAMW}, SGD),
    ("optimizer.base", "adamw", {"rule": "second_order", **ADAMW}, SECOND_ORDER),
    ("optimizer.base", "rmsprop", RMSPROP, {}),
    ("optimizer.base", "rmsprop", {"rule": "sgd", **RMSPROP}, SGD),
    ("optimizer.momentum", 0.5, {**ADAMW, "betas": (0.5, 0.999)}, {"optimizer.base": "adamw"}),
    ("optimizer.momentum", 0.5, {**RMSPROP, "momentum": 0.5}, {"optimizer.base": "rmsprop"}),
    ("optimizer.rule", "msam", {"rule": "msam"}, {}),
    ("optimizer.rule", "s2_sam", {"rule": "s2_sam"}, {}),
    ("optimizer.rule", "functional_sam", {"rule": "functional_sam"}, {}),
    ("optimizer.rule", "stable_sam", {"rule": "stable_sam"}, {}),
    ("optimizer.base", "adamw", {"rule": "msam", **ADAMW}, {"optimizer.rule": "msam"}),
    ("optimizer.base", "rmsprop", {"rule": "msam", **RMSPROP}, {"optimizer.rule": "msam"}),
    ("optimizer.momentum", 0.5, {"momentum": 0.5}, {}),
    ("optimizer.momentum", 0.5, {"rule": "sgd", "momentum": 0.5}, SGD),
    ("optimizer.momentum", 0.5, {"rule": "second_order", "momentum": 0.5}, SECOND_ORDER),
    ("optimizer.nesterov", False, {"nesterov": False}, {}),
    ("optimizer.weight_decay", 0.1, {"weight_decay": 0.1}, {}),
    ("optimizer.weight_decay", 0.1, {"rule": "sgd", "weight_decay": 0.1}, SGD),
    ("optimizer.weight_decay_in", "loss", IN_LOSS, {}),
    ("optimizer.weight_decay_in", "loss", {"rule": "second_order", **IN_LOSS}, SECOND_ORDER),
    (
        "optimizer.weight_decay",
        0.1,
        {"weight_decay": 0.0, "loss": {"weight_decay_in_loss": 0.1}},
        {"optimizer.weight_decay_in": "loss"},
    ),
    ("optimizer.clip_norm", 0.01, {"clip_norm": 0.01}, {}),
    ("optimizer.rho", 0.3, {"geometry": {"rho": 0.3}}, {}),
    ("optimizer.rho", 0.3, {"rule": "second_order", "geometry": {"rho": 0.3}}, SECOND_ORDER),
    ("optimizer.adaptive", True, {"geometry": {"adaptive": True}}, {}),
    ("optimizer.adaptive_for", "kernels", {"rule": "kernels"}, {"optimizer.adaptive": True}),
    ("optimizer.p", 3.0, {"geometry": {"p": 3.0}}, {}),
    ("optimizer.p", math.inf, {"geometry": {"p": math.inf}}, {}),
    ("optimizer.direction", "random", {"geometry": {"random_direction": True}}, {}),
    ("optimizer.ascent_steps", 3, {"passes": {"ascent_steps": 3}}, {}),
    (
        "optimizer.ascent_step_size",
        0.4,
        {"passes": {"ascent_steps": 3, "ascent_step_size": 0.4}},
        {"optimizer.ascent_steps": 3},
    ),
    ("optimizer.second_order", True, {"rule": "second_order"}, {}),
    ("optimizer.replay", False, {"passes": {"replay": False}}, {}),
    ("optimizer.replay", False, {"rule": "second_order", "passes": {"replay": False}}, SECOND_ORDER),
    ("optimizer.perturb", "norm", {"rule": "norm"}, {}),
    ("optimizer.ascent_fraction", 0.3, {"passes": {"ascent_fraction": 0.3}}, {}),
    ("optimizer.interval", 2, {"passes": {"ascents": Ascents(0, 4, 2)}}, {}),
    (
        "optimizer.reuse",
        0.7,
        {"passes": {"ascents": Ascents(0, 4, 2)}, "reuse": 0.7},
        {"optimizer.interval": 2},
    ),
    ("optimizer.start", 0.3, {"passes": {"ascents": Ascents(2, 4)}}, {}),
    ("optimizer.stop", 0.5, {"passes": {"ascents": Ascents(0, 2)}}, {}),
    ("m", 4, {"m": 4}, {}),
    ("label_smoothing", 0.1, {"loss": {"label_smoothing": 0.1}}, {}),
]
# Tested elsewhere: the loop gives every update its learning rate; there is a test of the gates above; what
# several processes share; and the other rules, in tests/training/.
OTHER_KEYS = {"optimizer.lr", "optimizer.warmup_epochs", "optimizer.true_gradient", "optimizer.sync_ascent"}
OTHER_KEYS |= {"optimizer.f_sam_sigma", "optimizer.f_sam_decay", "optimizer.vasso_theta"}
OTHER_KEYS |= {"optimizer.le_sam_sigma", "optimizer.le_sam_warm_up", "optimizer.le_sam_fall"}


def weights_after_all_updates(update_of):
    """Return the weights, float64, of a small network with dropout."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 3)
    ).double()
    images, targets = torch.randn(8, 3, 2, 2, dtype=torch.float64), torch.arange(8) % 3
    update = update_of(network)
    for step in range(NUM_STEPS):
        update(images, targets, lr=0.1, step=step)
    return torch.nn.utils.parameters_to_vector(network.parameters()).detach()


def as_configured(changes):
    def configured(network):
        config = changed(changes)
        return make_update(
            config.optimizer,
            network,
            network,
            resolve(config),
            num_steps=NUM_STEPS,
            label_smoothing=config.label_smoothing,
        )

    return weights_after_all_updates(configured)


def test_update_of_the_default_config_is_that_of_sam_by_hand():
    assert torch.equal(as_configured({}), weights_after_all_updates(by_hand))


@pytest.mark.parametrize(
    ("key", "value", "arguments", "others"), UPDATES, ids=[f"{case[0]}-{case[1]}" for case in UPDATES]
)
def test_update_has_what_every_key_says(key, value, arguments, others):
    weights = as_configured({**others, key: value})
    assert torch.equal(weights, weights_after_all_updates(partial(by_hand, **arguments)))
    # Weights of about 0.3; a key that is not read makes no difference at all.
    assert float((weights - as_configured(others)).abs().max()) > 1e-7


def test_update_is_tested_with_every_key_that_it_reads():
    keys = {key for key, _, _ in config_items(changed({})) if key.startswith("optimizer.")}
    assert {key for key, *_ in UPDATES} | OTHER_KEYS == keys | {"label_smoothing", "m"}


@pytest.mark.parametrize(
    ("adaptive_for", "scaled"),
    [
        ("all", {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}),
        ("not_biases", {"0.weight", "1.weight", "2.weight"}),
        ("kernels", {"0.weight", "2.weight"}),
    ],
)
def test_adaptive_ball_is_scaled_for_the_weights_that_are_asked_for(adaptive_for, scaled):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    chosen = changed({"optimizer.adaptive": True, "optimizer.adaptive_for": adaptive_for}).optimizer
    sam = make_update(chosen, network, network, resolve(changed({})), num_steps=1).rule.optimizer
    network(torch.randn(8, 3, dtype=torch.float64)).square().sum().backward()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    sam.perturb()
    # The code of ASAM, but for its constant eta: T is |w| for scaled weights and 1 for the others.
    scale = {name: w.abs() if name in scaled else torch.ones_like(w) for name, w in before.items()}
    length = (
        sum(float((scale[name] * w.grad).square().sum()) for name, w in network.named_parameters()) ** 0.5
    )
    for name, weight in network.named_parameters():
        expected = before[name] + 0.05 * scale[name] ** 2 * weight.grad / length
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("base", ["adamw", "rmsprop"])
@pytest.mark.parametrize("rule", SAM_RULES)
def test_every_rule_takes_every_base_optimizer(rule, base):
    keys = {"optimizer.rule": rule, "optimizer.momentum": 0.8}
    weights = as_configured({**keys, "optimizer.base": base})
    assert weights.isfinite().all()
    assert not torch.equal(weights, as_configured(keys))


def test_rmsprop_is_that_of_the_released_code():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, dtype=torch.float64))
    chosen = changed({"optimizer.base": "rmsprop", "optimizer.lr": 0.01, "optimizer.weight_decay": 0.0})
    make, arguments = base_optimizer(chosen.optimizer)
    optimizer = make([weight], **arguments)
    w, v, b = weight.detach().clone(), torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for _ in range(6):
        weight.grad = torch.randn(5, dtype=torch.float64)
        v = 0.9 * v + 0.1 * weight.grad**2
        b = 0.9 * b + weight.grad / (v + 0.001).sqrt()
        w = w - 0.01 * b
        optimizer.step()
    torch.testing.assert_close(weight.detach(), w, rtol=1e-12, atol=1e-14)
