"""Algorithm 1 by hand for tests of training loops, and such loops in two processes."""

import importlib.util
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from sam.training.distributed import close_process_group
from tests.quick_process import start_server

# Lightning 2.6.6 uses an old name in torch's pytree, and warns about the small number of worker processes. If
# Slurm is installed, it warns that it was not started with srun. None of this matters for the examples.
lightning_warns = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:The `srun` command is available on your system",
)
# peft 0.21 asks transformers 5 for an old name. Without a GPU, a DataLoader warns that it pins no memory.
trainer_warns = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:'pin_memory' argument is set as true but no accelerator is found",
)
# The compiler looks at .grad of the loss; it hides this warning, unless warnings are errors.
compiler_warns = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "examples"


def load(name):
    """Import an example by its path; imports of third parties may warn."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sam_gradient(weights, loss, rho):
    """Return the gradient at w + eps, with nothing but plain torch; the weights are back at w afterwards."""
    grads = torch.autograd.grad(loss(), weights)
    length = sum((grad**2).sum() for grad in grads) ** 0.5
    start = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, grad in zip(weights, grads):
            weight += rho * grad / length
    grads = torch.autograd.grad(loss(), weights)
    with torch.no_grad():
        for weight, old in zip(weights, start):
            weight.copy_(old)
    return grads


def by_hand(weights, losses, base, max_norm=None, rho=0.05):
    """Make one update with the mean of the SAM gradients of some losses, each with its own eps."""
    found = [sam_gradient(weights, loss, rho) for loss in losses]
    for weight, *grads in zip(weights, *found):
        weight.grad = sum(grads) / len(grads)
    if max_norm is not None:
        nn.utils.clip_grad_norm_(weights, max_norm)
    base.step()


def close(weights, expected, atol=1e-12):
    for weight, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach(), other.detach(), rtol=0, atol=atol)


def mean_loss(model, batches, divisor=None):
    """Return the sum of the mean losses of some batches, divided by their number or by a divisor."""
    losses = [nn.functional.cross_entropy(model(inputs), targets) for inputs, targets in batches]
    return sum(losses) / (divisor or len(batches))


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def make_batches(number, size=8, seed=1):
    points = torch.randn(number, size, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return [(batch, batch[:, :3].argmax(dim=1)) for batch in points]


def trained_by_hand(updates, divisor=None, max_norm=None):
    """Return the weights after SGD; an update is a list of groups of batches that share an eps."""
    net = make_net()
    weights = list(net.parameters())
    base = torch.optim.SGD(weights, lr=0.1, momentum=0.9)
    for groups in updates:
        by_hand(weights, [partial(mean_loss, net, group, divisor) for group in groups], base, max_norm)
    return weights


def clean_llama(example, **arguments):
    """Return a tiny Llama with LoRA weights, all of which get gradients from the first update on."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = example.LlamaForCausalLM(example.LlamaConfig(vocab_size=20, initializer_range=0.3, **size))
    lora = {"task_type": "CAUSAL_LM", "target_modules": "all-linear", "init_lora_weights": False}
    return example.get_peft_model(model, example.LoraConfig(**lora, **arguments))


def trained_by_trainer(example, folder, texts, checkpoint=None, **arguments):
    """Train the tiny Llama, from a checkpoint on; return the trainer and the micro-batches in their order."""
    micro_batches = []

    class Recorded(example.SAMTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            micro_batches.append(inputs["input_ids"])
            return super().training_step(model, inputs, num_items_in_batch)

    settings = example.TrainingArguments(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=0.1,
        max_grad_norm=0.5,
        optim="sgd",
        save_steps=2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    data = [{"input_ids": text, "labels": text} for text in texts]
    trainer = Recorded(clean_llama(example, **arguments), settings, train_dataset=data)
    trainer.remove_callback(example.PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer, micro_batches


def make_texts(number):
    return torch.randint(20, (number, 6), generator=torch.Generator().manual_seed(2))


def trained_weights(model):
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def loader_of(batches):
    """Return a DataLoader that gives these batches."""
    inputs, targets = (torch.cat(parts) for parts in zip(*batches))
    return DataLoader(TensorDataset(inputs, targets), batch_size=len(batches[0][0]))


def work(rank, size, folder):
    """Train in one of several processes, and leave the weights and the micro-batches in the folder."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in names.items()}, OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    found = {}
    for own_eps in (False, True):
        net = make_net()
        load("ddp_accumulation").train(net, make_batches(4, seed=rank), own_eps)
        found[f"ddp, own_eps={own_eps}"] = list(net.parameters())
    example, net = load("accelerate_loop"), make_net()
    accelerator = example.Accelerator(cpu=True, gradient_accumulation_steps=2)
    example.train(net, loader_of(make_batches(8)), accelerator)
    found["accelerate"] = list(net.parameters())
    trainer, micro_batches = trained_by_trainer(load("hf_trainer"), folder, make_texts(32))
    found["trainer"] = list(trained_weights(trainer.model).values())
    found["micro-batches"] = micro_batches
    torch.save(found, f"{folder}/{rank}.pt")
    del trainer, accelerator
    close_process_group(0)


def start(size, folder):
    """Train in this number of processes; return what each has found, by rank."""
    start_server()
    torch.multiprocessing.start_processes(work, (size, str(folder)), size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]
