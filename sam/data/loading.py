"""Batches from worker processes, which decode image files or apply AutoAugment to one image after the other.

The workers split a batch into pieces of at most 16 MB. Large pieces need few messages. Small pieces need
little memory, and the first batch is ready soon. The training device does the rest: normalisation, flip,
padded crop and cutout. Every image has its own seed, so it depends neither on the number of workers nor on
the worker that prepares it.
"""

import math
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from sam.data.image_files import ImageError
from sam.data.images import Split
from sam.data.policies import to_pixels
from sam.system.signals import STOPS

PIECE_BYTES = 2**24

Prepare = Callable[[Image.Image], Image.Image]
# Positions in the split, int64 [B], and the seed of each image, int64 [B].
Request = tuple[Tensor, Tensor]
_PlainRequest = tuple[list[int], list[int]]


class Loader:
    """Prepares the requested batches of one split in order; workers prepare a few batches ahead.

    Args:
        split: The images; they stay on the CPU.
        steps: Transforms of a picture, applied in order. All results must have one size. Random transforms
            draw from torch's global generator.
        num_workers: Number of worker processes; 0 prepares the batches in this process.
        pin_memory: Whether to put batches in pinned memory, from which a GPU copies faster.
    """

    def __init__(self, split: Split, steps: Sequence[Prepare], num_workers: int, pin_memory: bool) -> None:
        self._sampler = _RequestSampler()
        self._piece_size = max(1, PIECE_BYTES // math.prod(split.shape))
        self._loader = DataLoader(
            _Batches(split, steps),
            batch_size=None,
            sampler=self._sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=_ignore_stop_signals,
            # DataLoader draws a seed, which is not used. It must not change the run's global generator.
            generator=torch.Generator(),
        )
        if num_workers:
            # Start the workers now. A worker forked later would inherit the lock of the run directory, and
            # would hold it for seconds after this process is killed.
            iter(self._loader)
            _loaders_with_workers.add(self)

    def __call__(self, requests: Iterable[Request]) -> Iterator[list[Tensor]]:
        """Yield the pieces of each batch, uint8 [b, H, W, C]; their b add up to B.

        Raises:
            ImageError: If a picture cannot be read.
        """
        batches = [self._pieces(*request) for request in requests]
        self._sampler.requests = [piece for batch in batches for piece in batch]
        made = iter(self._loader)
        for batch in batches:
            yield [self._checked(next(made)) for _ in batch]

    def close(self) -> None:
        """End the workers."""
        # DataLoader calls this when its iterator is deleted. A stored exception can keep the iterator alive.
        self._loader._iterator._shutdown_workers()  # type: ignore[union-attr]

    def _pieces(self, indices: Tensor, seeds: Tensor) -> list[_PlainRequest]:
        pairs = zip(indices.split(self._piece_size), seeds.split(self._piece_size), strict=True)
        return [(some.tolist(), theirs.tolist()) for some, theirs in pairs]

    def _checked(self, piece: Tensor | str) -> Tensor:
        # If a worker raised it, DataLoader would put the worker's traceback into the message.
        if isinstance(piece, str):
            raise ImageError(piece)
        return piece


_loaders_with_workers: weakref.WeakSet[Loader] = weakref.WeakSet()


def end_workers() -> None:
    """End the workers of all loaders.

    A process waits for its workers before it exits, and the workers ignore SIGTERM. Without this call, a
    loader that is kept alive by a stored exception would make the process wait for ever.
    """
    for loader in list(_loaders_with_workers):
        loader.close()


class _RequestSampler(torch.utils.data.Sampler[_PlainRequest]):
    """Gives the current requests to the workers, which stay alive from one epoch to the next."""

    def __init__(self) -> None:
        # Stored here, not in Loader: a reference cycle would make its workers end 10 seconds late.
        self.requests: list[_PlainRequest] = []

    def __iter__(self) -> Iterator[_PlainRequest]:
        return iter(self.requests)


class _Batches(torch.utils.data.Dataset[Any]):
    """Prepares a requested piece of a batch, in a worker."""

    def __init__(self, split: Split, steps: Sequence[Prepare]) -> None:
        self._split = split
        self._steps = steps

    def __getitem__(self, request: _PlainRequest) -> Tensor | str:
        with torch.random.fork_rng(devices=[]):
            try:
                return torch.stack([self._make(*pair) for pair in zip(*request, strict=True)])
            except ImageError as error:
                return str(error)

    def _make(self, index: int, seed: int) -> Tensor:
        # Not torch.manual_seed(), which also seeds GPUs.
        torch.default_generator.manual_seed(seed)
        picture = self._split.picture(index)
        for step in self._steps:
            picture = step(picture)
        return to_pixels(picture)


def _ignore_stop_signals(_: int) -> None:
    """Ignore signals that a terminal or scheduler sends to all processes: the parent ends this worker."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
