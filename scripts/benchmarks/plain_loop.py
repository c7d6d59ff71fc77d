"""What most people write today, to measure ours against: transforms per image, and SAM tensor by tensor.

Images go one at a time through torchvision's transforms in a DataLoader, the network is in PyTorch's usual
memory format and fp32, and SAM walks over the parameters in Python.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import transforms

from sam.config.schema import TrainConfig
from sam.data.images import Dataset
from sam.data.policies import GREY


class PlainImages(torch.utils.data.Dataset[Any]):
    """One PIL image at a time through torchvision's transforms.

    Args:
        config: Of a run, whose augmentation is done.
        data: Whose training images are read.
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
    """Return a DataLoader of shuffled batches of some training images."""
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
    """SAM as it is usually written: a loop over tensors for the norm, the move up and the way back.

    Args:
        params: Parameters.
        base_optimizer: Takes the step.
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
    def second_step(self, zero_grad: bool = True) -> None:
        """Go back to w and step."""
        for weight in self._params:
            if weight.grad is not None:
                weight.data = self._old[weight]
        self._base.step()
        if zero_grad:
            self._base.zero_grad()


def plain_update(network: nn.Module, config: TrainConfig, is_sam: bool) -> Callable[[Tensor, Tensor], None]:
    """Return one step of a training loop: clean pass, and for SAM the second one, in fp32."""
    chosen = config.optimizer
    weights = list(network.parameters())
    sgd = torch.optim.SGD(
        weights, chosen.lr, chosen.momentum, weight_decay=chosen.weight_decay, nesterov=chosen.nesterov
    )
    sam = PlainSAM(list(weights), sgd, chosen.rho)
    loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)

    def update(images: Tensor, targets: Tensor) -> None:
        value = loss(network(images), targets)
        value.backward()
        if is_sam:
            sam.first_step()
            loss(network(images), targets).backward()
        if chosen.clip_norm is not None:
            nn.utils.clip_grad_norm_(weights, chosen.clip_norm)
        if is_sam:
            sam.second_step()
        else:
            sgd.step()
            sgd.zero_grad()
        value.item()  # for the log

    return update
