"""Updates to test, and what they should come to, worked out one micro-batch after the other in float64."""

import copy
import dataclasses

import torch
from torch import nn

from sam.models.cifar_resnet import CifarResNet
from sam.optim import SAM
from sam.optim.running_statistics import RunningStatistics
from sam.training.forward_backward import ForwardBackward
from sam.training.look_sam import OrthogonalReuse
from sam.training.precision import Precision
from sam.training.rule import SAMRule, SGDRule
from sam.training.update import Update
from tests.reference import sam as reference

SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}
RHO = 0.3


@dataclasses.dataclass
class Problem:
    model: nn.Module
    images: torch.Tensor
    targets: torch.Tensor


def make_problem(num_images=8, device="cpu"):
    torch.manual_seed(0)
    model = CifarResNet(depth=8, width=4, in_channels=3, num_classes=7).double()
    images = torch.randn(num_images, 3, 12, 12, dtype=torch.float64)
    targets = torch.randint(0, 7, (num_images,))
    return Problem(model.to(device), images.to(device), targets.to(device))


def make_pass(model, precision="fp32", called=None, unsynced=None, **loss):
    where = Precision(precision, next(model.parameters()).device)
    called = model if called is None else called
    unsynced = unsynced or getattr(called, "no_sync", None)  # of DistributedDataParallel
    return ForwardBackward(called, where, RunningStatistics(model), unsynced=unsynced, **loss)


def make_update(model, name, m=None, clip_norm=None, rho=RHO, geometry=None, steps=None, reuse=0.0, **passes):
    """Return an update of SGD, or of SAM with some geometry (p, random_direction), steps and reuse."""
    forward_backward = make_pass(model, **passes)
    if name == "sam":
        sam = SAM(model.parameters(), torch.optim.SGD, rho=rho, **(geometry or {}), **SGD)
        steps = {**(steps or {}), "reuse": OrthogonalReuse(sam, reuse) if reuse else None}
        rule = SAMRule(forward_backward, sam, **steps)
    else:
        rule = SGDRule(forward_backward, torch.optim.SGD(model.parameters(), **SGD))
    return Update(rule, forward_backward, m, clip_norm)


def functional_loss(model, images, targets, label_smoothing=0.0):
    """The cross entropy as a function of a list of weights."""
    names = [name for name, _ in model.named_parameters()]

    def loss(weights):
        logits = torch.func.functional_call(model, dict(zip(names, weights)), (images,))
        return nn.functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)

    return loss


def micro_batch_gradients(model, gradient, images, targets, m, label_smoothing=0.0, weight_decay=0.0):
    """One gradient(loss, weights) and one set of running statistics per micro-batch, from fresh copies."""
    gradients, statistics = [], []
    for part, part_targets in zip(images.split(m), targets.split(m)):
        twin = copy.deepcopy(model)
        twin(part)  # moves the copy's running statistics once
        statistics.append([buffer.clone() for buffer in twin.buffers()])
        loss = functional_loss(twin, part, part_targets, label_smoothing)
        if weight_decay:
            loss = reference.with_weight_decay(loss, weight_decay)
        gradients.append(gradient(loss, [weight.detach() for weight in twin.parameters()]))
    return gradients, statistics


def mean(lists):
    return [sum(values[1:], start=values[0].clone()) / len(values) for values in zip(*lists)]


@torch.no_grad()
def oracle_update(model, base, gradient, images, targets, m, clip_norm=None, weight_decay=0.0):
    """Change a model in place, as one update should: weights, and the means of the running statistics."""
    with torch.enable_grad():
        gradients, statistics = micro_batch_gradients(
            model, gradient, images, targets, m, weight_decay=weight_decay
        )
    grads = mean(gradients) if clip_norm is None else reference.clip(mean(gradients), clip_norm)
    weights = [weight.detach() for weight in model.parameters()]
    torch._foreach_copy_(list(model.parameters()), base.step(weights, grads, lr=0.1))
    for buffer, value in zip(model.buffers(), mean([[b.double() for b in s] for s in statistics])):
        buffer.copy_(value)
