"""Tests of the examples for other people's training loops: each equals Algorithm 1 by hand.

tests/scripts/test_examples.py runs them, and tests the examples for plain loops.
"""

import pytest
import torch

from sam.optim import SAM
from tests.scripts.loops import (
    by_hand,
    clean_llama,
    close,
    lightning_warns,
    load,
    loader_of,
    make_batches,
    make_net,
    make_texts,
    mean_loss,
    start,
    trained_by_hand,
    trained_by_trainer,
    trained_weights,
    trainer_warns,
)


def check_trainer(weights, clean, updates):
    """Compare with SAM of the whole accumulated batch, with the Trainer's clipping and linear schedule."""
    expected = list(trained_weights(clean).values())
    for number, micro_batches in enumerate(updates):
        texts = torch.cat(micro_batches)
        base = torch.optim.SGD(expected, lr=0.1 * (1 - number / len(updates)))
        by_hand(expected, [lambda texts=texts: clean(input_ids=texts, labels=texts).loss], base, max_norm=0.5)
    close(weights, expected, atol=1e-6)


@trainer_warns
def test_trainer_perturbs_lora_weights_by_the_gradient_of_the_whole_accumulated_batch(
    tmp_path, accelerate_state
):
    example = load("hf_trainer")
    trainer, batches = trained_by_trainer(example, tmp_path, make_texts(20))
    weights = trained_weights(trainer.model)
    assert all("lora_" in name for name in weights)
    sam = trainer.optimizer.optimizer
    assert {w for group in sam.param_groups for w in group["params"]} == set(weights.values())
    assert len(batches) == 5
    check_trainer(weights.values(), clean_llama(example), [batches[:2], batches[2:4], batches[4:]])


@trainer_warns
def test_trainer_has_the_same_dropout_in_both_passes_of_a_micro_batch(tmp_path, accelerate_state):
    example, masks = load("hf_trainer"), []
    add_lora = example.get_peft_model

    def watched(model, config):
        model = add_lora(model, config)
        dropout = next(module for module in model.modules() if isinstance(module, torch.nn.Dropout))
        dropout.register_forward_hook(lambda module, inputs, output: masks.append(output == 0))
        return model

    example.get_peft_model = watched
    trained_by_trainer(example, tmp_path, make_texts(8), lora_dropout=0.5)
    first, second, first_again, second_again = masks
    assert torch.equal(first, first_again) and torch.equal(second, second_again)
    assert not torch.equal(first, second)


@trainer_warns
def test_trainer_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path, accelerate_state):
    example, texts = load("hf_trainer"), make_texts(24)
    whole, batches = trained_by_trainer(example, tmp_path / "whole", texts)
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    resumed, later = trained_by_trainer(example, tmp_path / "resumed", texts, checkpoint)
    assert (len(batches), len(later)) == (6, 2)
    close(*(trained_weights(trainer.model).values() for trainer in (resumed, whole)), atol=0)


def test_accelerate_example_perturbs_by_the_gradient_of_the_whole_accumulated_batch(accelerate_state):
    example, net, batches = load("accelerate_loop"), make_net(), make_batches(5)
    accelerator = example.Accelerator(cpu=True, gradient_accumulation_steps=2)
    example.train(net, loader_of(batches), accelerator)
    # accelerate divides by 2 also for the last update, which has one batch.
    updates = [[batches[:2]], [batches[2:4]], [batches[4:]]]
    close(net.parameters(), trained_by_hand(updates, divisor=2, max_norm=1.0))


def test_accelerate_takes_a_closure_if_nothing_is_accumulated(accelerate_state):
    example, net, batches = load("accelerate_loop"), make_net(), make_batches(3)
    accelerator = example.Accelerator(cpu=True)
    sam = SAM(net.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    model, optimizer, loader = accelerator.prepare(net, sam, loader_of(batches))
    for batch in loader:
        optimizer.step(lambda batch=batch: accelerator.backward(mean_loss(model, [batch])))
    close(net.parameters(), trained_by_hand([[[batch]] for batch in batches]))


def fitted(example, module, batches, **arguments):
    module.net = make_net()
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = example.lightning.Trainer(max_epochs=1, logger=False, accelerator="cpu", **quiet, **arguments)
    trainer.fit(module, loader_of(batches))
    return trainer


@lightning_warns
def test_lightning_accumulates_over_micro_batches():
    example, batches = load("lightning_accumulation"), make_batches(5)
    module = example.Classifier()
    trainer = fitted(example, module, batches)
    assert trainer.global_step == 3
    close(module.net.parameters(), trained_by_hand([[batches[:2]], [batches[2:4]], [batches[4:]]]))


@lightning_warns
def test_lightning_with_accumulate_grad_batches_is_refused():
    example, batches = load("lightning_accumulation"), make_batches(2)

    class Automatic(example.Classifier):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = True

        def training_step(self, batch, batch_idx):
            return mean_loss(self.net, [batch])

    module = Automatic()
    with pytest.raises(RuntimeError, match="let the closure make the passes over all of them"):
        fitted(example, module, batches, accumulate_grad_batches=2)
    close(module.net.parameters(), make_net().parameters(), atol=0)


@pytest.mark.slow
@pytest.mark.ddp
@trainer_warns
def test_two_processes_with_accumulation_equal_one_that_has_all_micro_batches(tmp_path):
    found = start(2, tmp_path)
    for name in found[0].keys() - {"micro-batches"}:
        close(found[0][name], found[1][name], atol=0)
    left, right = make_batches(4, seed=0), make_batches(4, seed=1)
    close(found[0]["ddp, own_eps=False"], trained_by_hand([[left[:2] + right[:2]], [left[2:] + right[2:]]]))
    close(found[0]["ddp, own_eps=True"], trained_by_hand([[left[:2], right[:2]], [left[2:], right[2:]]]))
    batches = make_batches(8)
    close(found[0]["accelerate"], trained_by_hand([[batches[:4]], [batches[4:]]], max_norm=1.0))
    left, right = (one["micro-batches"] for one in found)
    check_trainer(
        found[0]["trainer"], clean_llama(load("hf_trainer")), [left[:2] + right[:2], left[2:] + right[2:]]
    )
