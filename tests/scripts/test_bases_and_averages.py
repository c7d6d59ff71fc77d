"""Tests of the examples with other bases, averages of weights, two players, and timm's loop.

Each equals Algorithm 1 by hand.
"""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from tests.scripts.loops import by_hand, close, compiler_warns, load, make_batches, make_net, mean_loss


def make_norm_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3)).double()


def update(net, batch, base, **settings):
    by_hand(list(net.parameters()), [lambda: mean_loss(net, [batch])], base, **settings)


def test_averages_are_those_of_w_with_statistics_of_their_own():
    example, net, batches = load("weight_averages"), make_norm_net(), make_batches(5)
    plain = copy.deepcopy(net)
    base = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    scheduler = example.SWALR(base, swa_lr=0.02, anneal_epochs=5)
    visited = []
    for number, batch in enumerate(batches):
        update(plain, batch, base)
        visited.append(nn.utils.parameters_to_vector(plain.parameters()).detach())
        if number >= 2:
            scheduler.step()
    _, ema, swa = example.train(net, batches, swa_start=2)
    close(net.parameters(), plain.parameters())
    expected = visited[0]
    for weights in visited[1:]:
        expected = 0.9 * expected + 0.1 * weights
    close([nn.utils.parameters_to_vector(ema.parameters())], [expected])
    close([nn.utils.parameters_to_vector(swa.parameters())], [torch.stack(visited[2:]).mean(dim=0)])
    for average in (ema, swa):
        first, norm = average.module[:2]
        means = torch.stack([first(inputs).mean(dim=0) for inputs, _ in batches])
        close([norm.running_mean], [means.mean(dim=0)])


def test_both_players_of_the_gan_make_sams_updates():
    example = load("gan")
    torch.manual_seed(0)
    players = [
        nn.Sequential(nn.Linear(a, 8), nn.Tanh(), nn.Linear(8, b)).double() for a, b in ((4, 2), (2, 1))
    ]
    batches, noises = (torch.randn(3, 8, size, dtype=torch.float64) for size in (2, 4))
    generator, discriminator = copy.deepcopy(players)
    bases = [
        torch.optim.SGD(player.parameters(), lr=0.05, momentum=0.5) for player in (generator, discriminator)
    ]

    def judge(real, made):
        return softplus(-discriminator(real)).mean() + softplus(discriminator(made)).mean()

    def make(noise):
        return softplus(-discriminator(generator(noise))).mean()

    for real, noise in zip(batches, noises):
        made = generator(noise).detach()
        by_hand(list(discriminator.parameters()), [partial(judge, real, made)], bases[1], rho=0.02)
        by_hand(list(generator.parameters()), [partial(make, noise)], bases[0], rho=0.02)
    example.train(*players, batches, noises)
    for player, expected in zip(players, (generator, discriminator)):
        close(player.parameters(), expected.parameters())


def test_schedule_free_base_takes_sams_gradients_at_its_training_weights():
    example, net, batches = load("schedule_free"), make_norm_net(), make_batches(6)
    plain = copy.deepcopy(net)
    base = example.AdamWScheduleFree(plain.parameters(), lr=0.02, warmup_steps=5)
    base.train()
    for batch in batches:
        update(plain, batch, base)
    base.eval()
    example.update_bn(batches, plain)
    example.train(net, batches)
    close(net.state_dict().values(), plain.state_dict().values(), atol=1e-9)


def test_muon_and_adamw_share_one_ball_and_one_state():
    example, net, batches = load("muon"), make_net(), make_batches(4)
    plain = make_net()
    matrices, others = ([w for w in plain.parameters() if (w.ndim == 2) == are] for are in (True, False))
    parts = torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.02)
    for batch in batches:
        update(plain, batch, SimpleNamespace(step=lambda: [part.step() for part in parts]))
    example.train(net, batches)
    close(net.parameters(), plain.parameters(), atol=1e-9)


def test_muon_and_adamw_go_on_from_a_checkpoint_to_the_same_bits():
    example, net, batches = load("muon"), make_net(), make_batches(3)

    def make_base(net):
        biases = [net[0].bias, net[2].bias]
        return example.MuonAndAdamW([net[0].weight, net[2].weight], biases, lr=0.02)

    def step(base, net, batch):
        base.zero_grad()
        mean_loss(net, [batch]).backward()
        base.step()

    base = make_base(net)
    for batch in batches[:2]:
        step(base, net, batch)
    copied = copy.deepcopy(net)
    later = make_base(copied)
    later.load_state_dict(copy.deepcopy(base.state_dict()))
    step(base, net, batches[2])
    step(later, copied, batches[2])
    assert later.state[copied[0].bias]["step"] == 3
    close(copied.parameters(), net.parameters(), atol=0)


def test_timm_loop_equals_the_formula_and_averages_w():
    example, net, batches = load("timm_loop"), make_net(), make_batches(6)
    plain = make_net()
    base = example.create_optimizer_v2(plain, opt="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = example.CosineLRScheduler(base, t_initial=6, warmup_t=3, t_in_epochs=False)
    expected = example.ModelEmaV3(plain, decay=0.9)
    for number, batch in enumerate(batches, start=1):
        update(plain, batch, base, max_norm=1.0)
        expected.update(plain, step=number)
        scheduler.step_update(num_updates=number)
    _, ema = example.train(net, batches)
    close(net.parameters(), plain.parameters())
    close(ema.module.parameters(), expected.module.parameters())
    assert not torch.equal(ema.module[0].weight, net[0].weight)


@compiler_warns
@pytest.mark.slow
def test_compiled_update_equals_the_formula_and_is_compiled_in_the_first_three_updates(monkeypatch):
    example, net, batches = load("compiled_step"), make_net(), make_batches(8)
    plain = make_net()
    base = torch.optim.SGD(plain.parameters(), lr=torch.tensor(0.1), momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(base, T_max=8)
    for batch in batches:
        update(plain, batch, base)
        scheduler.step()

    class Watched(list):
        def __iter__(self):
            for number, batch in enumerate(batches):
                monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", number >= 3)
                yield batch

    example.train(net, Watched(batches))
    torch.compiler.reset()
    close(net.parameters(), plain.parameters())
