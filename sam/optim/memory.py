"""How weights lie in memory: in shards, on several devices, as views, or in another dtype than gradients.

A fused kernel ignores strides: it reads all entries from the first address on. So it needs dense weights, and
directions with the same strides and dtype. If a weight is sharded (a DTensor, as made by torch's
fully_shard), the kernel gets the shard of this process.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def any_sharded(tensors: Sequence[Tensor]) -> bool:
    """Return whether any tensor is a DTensor. The class is not imported: that takes most of a second."""
    return any(hasattr(kind, "device_mesh") for kind in set(map(type, tensors)))


def local_parts(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the part of each tensor that this process holds: its shard, or the whole tensor."""
    if not any_sharded(tensors):
        return tensors
    sharded: Sequence[Any] = tensors
    return [t.to_local() if hasattr(t, "device_mesh") else t for t in sharded]


def by_device(*lists: Sequence[Tensor]) -> list[tuple[torch.device, Sequence[Sequence[Tensor]]]]:
    """Return each device with its part of every list.

    Args:
        *lists: Lists of the same length, at least one tensor each. The tensors at one place of all lists are
            on the same device.
    """
    numbers = [tensor.get_device() for tensor in lists[0]]  # -1 for a CPU
    if numbers.count(numbers[0]) == len(numbers):
        return [(lists[0][0].device, lists)]
    groups = [
        [[tensor for tensor, its in zip(one, numbers, strict=True) if its == number] for one in lists]
        for number in dict.fromkeys(numbers)
    ]
    return [(group[0][0].device, group) for group in groups]


def on_device(tensor: Tensor, where: torch.device) -> Tensor:
    """Return a tensor on a device; to() is an operator call also if it changes nothing."""
    return tensor if tensor.device == where else tensor.to(where)


def scale_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply tensors in place by a 0-dimensional factor on any device."""
    for where, (part,) in by_device(tensors):
        torch._foreach_mul_(list(part), on_device(factor, where))


def is_dense(tensor: Tensor) -> bool:
    """Return whether the entries fill a block of memory without gaps, in any order of the axes."""
    if tensor.is_contiguous() or (
        tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    ):
        return True  # the usual formats, checked quickly
    end = 1
    for stride, size in _axes(tensor):
        if stride != end:
            return False
        end *= size
    return True


def any_overlaps(tensors: Sequence[Tensor]) -> bool:
    """Return whether entries of one tensor may share memory, as those of an expanded tensor do."""
    return not all(map(Tensor.is_contiguous, tensors)) and any(map(_may_overlap, tensors))


def _may_overlap(tensor: Tensor) -> bool:
    if is_dense(tensor):
        return False
    last = 0
    for stride, size in _axes(tensor):
        if stride <= last:
            return True
        last += stride * (size - 1)
    return False


def _axes(tensor: Tensor) -> list[tuple[int, int]]:
    """Return stride and size of the axes that have several entries, the smallest stride first."""
    axes = zip(tensor.stride(), tensor.shape, strict=True)
    return sorted((stride, size) for stride, size in axes if size > 1)


def dense_pairs(
    weights: Sequence[Tensor], directions: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return weights and directions as the fused kernel needs them: the tensors themselves, or copies.

    A copy of a weight has the dtype in which torch adds the two, so that the sum is rounded once.
    """
    if (
        all(map(Tensor.is_contiguous, weights))
        and all(map(Tensor.is_contiguous, directions))
        and [weight.dtype for weight in weights] == [direction.dtype for direction in directions]
    ):
        return weights, directions
    pairs = [_dense_pair(weight, move) for weight, move in zip(weights, directions, strict=True)]
    return [weight for weight, _ in pairs], [direction for _, direction in pairs]


def _dense_pair(weight: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    dtype = weight.dtype
    if direction.dtype != dtype:
        dtype = torch.promote_types(dtype, direction.dtype)
    if direction.dtype != weight.dtype or not is_dense(weight):
        weight = weight.to(dtype, memory_format=torch.contiguous_format, copy=True)
    if direction.dtype != dtype or direction.stride() != weight.stride():
        direction = torch.empty_like(weight).copy_(direction)
    return weight, direction


class Copies:
    """A copy of each weight, allocated once, and again if the weight's dtype, device or shape has changed.

    If a weight is sharded, only the part that this process holds is copied.

    Attributes:
        last: The copies made by the last save(), in the order of its weights.
    """

    def __init__(self) -> None:
        self.last: list[Tensor] = []
        self._weights: Sequence[Tensor] = []
        self._kinds: list[list[Any]] = []
        self._buffers: dict[Tensor, Tensor] = {}

    def save(self, weights: Sequence[Tensor]) -> None:
        """Copy the weights."""
        parts = local_parts(weights)
        kinds = _kinds(parts)
        if (
            len(weights) != len(self._weights)
            or not all(weight is old for weight, old in zip(weights, self._weights, strict=True))
            or kinds != self._kinds
        ):
            self.last = [self._buffer(weight, part) for weight, part in zip(weights, parts, strict=True)]
            self._weights, self._kinds = weights, kinds
        torch._foreach_copy_(self.last, list(parts))

    def _buffer(self, weight: Tensor, part: Tensor) -> Tensor:
        buffer = self._buffers.get(weight)
        if buffer is None or _kinds([buffer]) != _kinds([part]):
            buffer = self._buffers[weight] = torch.empty_like(part)
        return buffer


def _kinds(tensors: Sequence[Tensor]) -> list[list[Any]]:
    """Return the dtypes, the devices and the shapes."""
    return [[t.dtype for t in tensors], [t.get_device() for t in tensors], [t.shape for t in tensors]]


def forget_casts() -> None:
    """Let autocast cast the weights again: until its block ends, it uses its copies of moved weights too."""
    if not torch.compiler.is_compiling():
        torch.clear_autocast_cache()
