"""The usual training loop, as a baseline for benchmarks: transforms per image, and SAM tensor by tensor.

A DataLoader applies torchvision's transforms to one image at a time. The network has PyTorch's default memory
format and fp32 (on a GPU with tf32 in convolutions, which is torch's default). SAM loops over the parameters
in Python, as davda54/sam does in its usual loop.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import transforms

from sam.config.schema import TrainConfig
from sam.data.images import Dataset
from sam.data.published_policies import GREY


class PlainImages(torch.utils.data.Dataset[Any]):
    """Training images that pass through torchvision's transforms as single PIL images.

    Args:
        config: The config of a run, for its augmentation.
        data: The dataset with the training images.
    """

    def __init__(self, config: TrainConfig, data: Dataset) -> None:
        self._split = data.train
        chosen, size = config.augmentation, data.train.shape[:2]
        policy = chosen.auto_augment
        steps: list[Any] = []
        interpolation = transforms.InterpolationMode(config.dataset.interpolation)
        if chosen.inception_crop:
            steps.append(transforms.RandomResizedCrop(size, interpolation=interpolation))
        elif not config.dataset.in_memory:
            resize_size = config.dataset.resize_size or size[0]
            steps += [transforms.Resize(resize_size, interpolation), transforms.CenterCrop(size)]
        if policy != "none":
            steps.append(transforms.AutoAugment(transforms.AutoAugmentPolicy(policy), fill=GREY))
        if chosen.crop_padding:
            mode = "reflect" if chosen.padding == "reflect" else "constant"
            steps.append(transforms.RandomCrop(size, chosen.crop_padding, padding_mode=mode))
        if chosen.flip:
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        if share := min(1.0, chosen.cutout_size**2 / (size[0] * size[1])):
            steps.append(transforms.RandomErasing(p=1, scale=(share, share), ratio=(1, 1)))
        self._transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Any:
        return self._transform(self._split.picture(index)), self._split.targets[index]


def plain_loader(config: TrainConfig, data: Dataset, num_images: int, num_workers: int) -> Any:
    """Return a DataLoader with shuffled batches of num_images random training images."""
    some = torch.randperm(len(data.train))[:num_images].tolist()
    return torch.utils.data.DataLoader(
        torch.utils.data.Subset(PlainImages(config, data), some),
        config.batch_size,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        drop_last=True,
    )


class PlainSAM:
    """SAM as it is usually written: loops over tensors compute the norm, perturb and restore the weights.

    Args:
        params: The parameters.
        base_optimizer: The optimizer that makes the step.
        rho: Radius of the ball.
    """

    def __init__(self, params: list[Tensor], base_optimizer: torch.optim.Optimizer, rho: float) -> None:
        self._params, self._base, self._rho = params, base_optimizer, rho
        self._old: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def first_step(self, zero_grad: bool = True) -> None:
        """Move to w + eps."""
        grads = [weight.grad for weight in self._params if weight.grad is not None]
        norm = torch.stack([grad.norm(p=2) for grad in grads]).norm(p=2)
        scale = self._rho / (norm + 1e-12)
        for weight in self._params:
            if weight.grad is not None:
                self._old[weight] = weight.data.clone()
                weight.add_(weight.grad * scale.to(weight))
        if zero_grad:
            self._base.zero_grad()

    @torch.no_grad()
    def restore(self) -> None:
        """Move back to w; the gradient stays."""
        for weight in self._params:
            if weight.grad is not None:
                weight.data = self._old[weight]

    @torch.no_grad()
    def second_step(self, zero_grad: bool = True) -> None:
        """Restore w, then step."""
        self.restore()
        self._base.step()
        if zero_grad:
            self._base.zero_grad()


def plain_update(
    network: nn.Module, config: TrainConfig, is_sam: bool, m: int | None = None
) -> Callable[[Tensor, Tensor], None]:
    """Return one step of a training loop: one pass, or two for SAM, then the update.

    Args:
        network: In training mode. Its running statistics come from the first passes, as with davda54/sam.
        config: The config of a run, for its optimizer and its loss.
        is_sam: Whether each micro-batch has a second pass at w + eps.
        m: Images per micro-batch. Their gradients are added tensor by tensor. None means the whole batch.
    """
    chosen = config.optimizer
    weights = list(network.parameters())
    sgd = torch.optim.SGD(
        weights, chosen.lr, chosen.momentum, weight_decay=chosen.weight_decay, nesterov=chosen.nesterov
    )
    sam = PlainSAM(list(weights), sgd, chosen.rho)
    loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)

    def gradient(images: Tensor, targets: Tensor) -> Tensor:
        value: Tensor = loss(network(images), targets)
        value.backward()
        if is_sam:
            sam.first_step()
            with _fixed_statistics(network):
                loss(network(images), targets).backward()
            sam.restore()
        return value.detach()

    def update(images: Tensor, targets: Tensor) -> None:
        parts = list(zip(images.split(m or len(images)), targets.split(m or len(images)), strict=True))
        value = gradient(images, targets) if len(parts) == 1 else _mean_gradient(gradient, weights, parts)
        if chosen.clip_norm is not None:
            nn.utils.clip_grad_norm_(weights, chosen.clip_norm)
        sgd.step()
        sgd.zero_grad()
        value.item()  # for the log

    return update


def _mean_gradient(
    gradient: Callable[[Tensor, Tensor], Tensor],
    weights: list[nn.Parameter],
    parts: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """Leave the mean gradient of the parts in `.grad`, and return their mean loss."""
    value = torch.zeros((), device=weights[0].device)
    means = [torch.zeros_like(weight) for weight in weights]
    for images, targets in parts:
        value += gradient(images, targets) / len(parts)
        for mean, weight in zip(means, weights, strict=True):
            if weight.grad is not None:
                mean += weight.grad / len(parts)
            weight.grad = None
    for mean, weight in zip(means, weights, strict=True):
        weight.grad = mean
    return value


@contextmanager
def _fixed_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch norm keep its running statistics."""
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
