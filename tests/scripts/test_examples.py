"""Tests of scripts/examples: they run, they are short, and their claims are true.

tests/test_wheel.py runs one as users do, with nothing but the wheel.
"""

import contextlib
import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sam.optim import SAM
from tests.optim.test_sam import functional_loss
from tests.reference import sam as reference
from tests.scripts.loops import FOLDER, compiler_warns, lightning_warns, load, trainer_warns

EXAMPLES = sorted(FOLDER.glob("*.py"))


def marked(path):
    """Mark an example that takes long: a C++ compiler works in it, or a large library is imported."""
    slow = {"compiled_step", "hf_trainer", "transformer"}
    return pytest.param(path, marks=pytest.mark.slow) if path.stem in slow else path


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))


def weights_of(model):
    return [weight.detach().clone() for weight in model.parameters()]


def equal(weights, others):
    return all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def test_examples_are_the_ones_tested_here_and_in_test_loops():
    here = {"lightning_module", "mixed_precision", "plain_loop", "transformer"}
    of_loops = {"accelerate_loop", "ddp_accumulation", "hf_trainer", "lightning_accumulation", "timm_loop"}
    plain = {"compiled_step", "gan", "muon", "schedule_free", "weight_averages"}
    assert {path.stem for path in EXAMPLES} == here | of_loops | plain


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_shorter_than_60_lines_and_tells_what_to_watch_out_for(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert "Watch out for" in text.split('"""')[1]
    assert 'if __name__ == "__main__":\n    main()\n' in text


@compiler_warns
@lightning_warns
@trainer_warns
@pytest.mark.parametrize("path", [marked(path) for path in EXAMPLES], ids=lambda path: path.stem)
def test_example_runs_and_its_loss_falls(path, monkeypatch, tmp_path, accelerate_state):
    monkeypatch.chdir(tmp_path)
    # Not capsys, because Lightning's log keeps the stderr of the time of its import.
    with contextlib.redirect_stdout(io.StringIO()) as out:
        losses = load(path.stem).main()
    assert sum(losses[-5:]) / 5 < losses[0] / 3
    name = "distance" if path.stem == "gan" else "loss"
    assert out.getvalue().startswith(f"{name} {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert out.getvalue().count("\n") == 1
    # The Trainer makes an empty folder.
    assert not any(path.is_file() for path in tmp_path.rglob("*")), "an example writes nothing"


def test_plain_loop_equals_the_formulas_and_keeps_the_statistics_of_the_first_pass():
    example = load("plain_loop")
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 3)).double()
    with torch.no_grad():
        model[3].weight *= 20  # so that clipping changes the gradients
    batches = [(inputs.double(), targets) for inputs, targets in example.make_batches(4)]
    clean, weights = copy.deepcopy(model), weights_of(model)
    base = reference.Sgd(lr=0.1, momentum=0.9, weight_decay=5e-4)
    norms = []
    for number, (inputs, targets) in enumerate(batches):
        with torch.no_grad():
            for leaf, weight in zip(clean.parameters(), weights):
                leaf.copy_(weight)
            clean(inputs)  # updates the running statistics
        loss = functional_loss(copy.deepcopy(clean), inputs, targets)
        grads = reference.sam_gradient(loss, weights, 0.05)
        norms.append(reference.norm(grads))
        weights = base.step(weights, reference.clip(grads, 1.0), 0.05 * (1 + math.cos(math.pi * number / 4)))
    example.train(model, batches)
    assert max(norms) > 1, "something should have been clipped"
    for weight, expected in zip(weights_of(model), weights, strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-11, atol=1e-12)
    for kept, expected in zip(model.buffers(), clean.buffers(), strict=True):
        torch.testing.assert_close(kept, expected, rtol=1e-11, atol=1e-12)


def test_mixed_precision_skips_an_overflow_and_leaves_the_weights_to_the_bit():
    example, model = load("mixed_precision"), make_net()
    before, batches = weights_of(model), example.make_batches(1, "cpu")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)  # the largest float16 is 65504
    example.train(model, batches, scaler)
    assert equal(weights_of(model), before)
    assert scaler.get_scale() == 2.0**29, "one overflow was noticed"
    example.train(model, batches * 40, scaler)
    assert not equal(weights_of(model), before)
    assert scaler.get_scale() < 2.0**20


def test_mixed_precision_does_not_depend_on_the_scale_and_follows_float32():
    example, batches = load("mixed_precision"), load("mixed_precision").make_batches(10, "cpu")
    found = []
    for scaler in (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (2.0**8, 2.0**16)):
        model = make_net()
        example.train(model, batches, scaler)
        found.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    model = make_net()
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    for inputs, targets in batches:
        for step in (optimizer.first_step, optimizer.second_step):
            nn.functional.cross_entropy(model(inputs), targets).backward()
            if optimizer.is_perturbed:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            step()
    full = nn.utils.parameters_to_vector(model.parameters()).detach()
    moved = (full - nn.utils.parameters_to_vector(make_net().parameters()).detach()).norm()
    # Measured: 0, since both scales are powers of two, and 5e-4, the rounding of float16.
    assert (found[0] - found[1]).norm() < 1e-3 * moved
    assert (found[1] - full).norm() < 5e-3 * moved


def test_an_earlier_call_of_unscale_would_leave_the_scale_in_the_second_gradient():
    model = make_net()
    [(inputs, targets)] = load("mixed_precision").make_batches(1, "cpu")
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def backward():
        scaler.scale(nn.functional.cross_entropy(model(inputs), targets)).backward()

    lengths = []
    for is_early in (False, True):
        backward()
        if is_early:
            scaler.unscale_(optimizer)
        with optimizer.perturbed_weights():
            backward()
        if not is_early:
            scaler.unscale_(optimizer)
        lengths.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]).norm())
        scaler.update()
        optimizer.zero_grad()
    torch.testing.assert_close(lengths[1], 1024 * lengths[0])


def test_transformer_has_the_same_dropout_in_both_passes_and_no_decay_on_norms_and_biases(monkeypatch):
    example, kept = load("transformer"), {}

    class Watched(SAM):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            kept["optimizer"] = self

    monkeypatch.setattr(example, "SAM", Watched)
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = example.BertForSequenceClassification(example.BertConfig(vocab_size=20, **config)).train()
    masks = []
    model.dropout.register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
    example.train(model, example.make_batches(2))
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])
    assert 0.02 < masks[0].float().mean() < 0.3
    names = {weight: name for name, weight in model.named_parameters()}
    decayed, others = (
        {names[weight] for weight in group["params"]} for group in kept["optimizer"].param_groups
    )
    assert [group["weight_decay"] for group in kept["optimizer"].param_groups] == [0.01, 0.0]
    assert others == {name for name in names.values() if "bias" in name or "LayerNorm" in name}
    assert decayed | others == set(names.values())


def lightning_case():
    """Return the example, its data loader, and the weights that the plain loop reaches with it."""
    example, points = load("lightning_module"), torch.randn(6 * 16, 10)
    batches = DataLoader(TensorDataset(points, points[:, :3].argmax(dim=1)), batch_size=16)
    net = make_net(5)
    optimizer = SAM(net.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    for inputs, targets in batches:
        for step in (optimizer.first_step, optimizer.second_step):
            nn.functional.cross_entropy(net(inputs), targets).backward()
            step()
    return example, batches, weights_of(net)


def fitted(module, example, batches):
    module.net.load_state_dict(make_net(5).state_dict())
    trainer = example.lightning.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, batches)
    return trainer


@lightning_warns
def test_lightning_example_equals_the_plain_loop_to_the_bit_and_counts_updates():
    example, batches, expected = lightning_case()
    module = example.Classifier()
    trainer = fitted(module, example, batches)
    assert equal(weights_of(module.net), expected)
    assert trainer.global_step == 6


@lightning_warns
def test_lightning_with_automatic_optimization_equals_the_plain_loop_to_the_bit():
    example, batches, expected = lightning_case()

    class Automatic(example.Classifier):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = True

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    module = Automatic()
    trainer = fitted(module, example, batches)
    assert equal(weights_of(module.net), expected)
    assert trainer.global_step == 6


@lightning_warns
@pytest.mark.parametrize("is_wrapped", [True, False])
@pytest.mark.parametrize("way", ["two_steps", "context"])
def test_lightning_with_two_steps_equals_the_plain_loop_to_the_bit(way, is_wrapped):
    example, batches, expected = lightning_case()

    class TwoSteps(example.Classifier):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=is_wrapped)
            loss = nn.functional.cross_entropy
            self.manual_backward(loss(self.net(batch[0]), batch[1]))
            if way == "two_steps":
                optimizer.first_step()
                self.manual_backward(loss(self.net(batch[0]), batch[1]))
                optimizer.second_step()
            else:
                with optimizer.perturbed_weights():
                    self.manual_backward(loss(self.net(batch[0]), batch[1]))
                optimizer.step()
                optimizer.zero_grad()

    module = TwoSteps()
    trainer = fitted(module, example, batches)
    assert trainer.global_step == (6 if is_wrapped else 0)  # Lightning counts calls of its wrapper's step()
    assert equal(weights_of(module.net), expected)
