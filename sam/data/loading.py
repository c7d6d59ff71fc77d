"""Batches of bytes made by worker processes: images decoded from files, or changed one by one by AutoAugment.

Workers share a batch in pieces of a few MB, large enough for few messages, small enough that the first batch
comes soon and little memory lies ready; the device then does the rest (normalisation, flip, padded crop,
cutout). Every image is drawn with a seed of its own, so it does not depend on how many workers there are,
nor on which one makes it.
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
_Plain = tuple[list[int], list[int]]


class Loader:
    """Makes batches of one split as they are asked for, in order, a few ahead.

    Args:
        split: Where the pictures are; kept on the CPU.
        steps: From a picture to what the batch holds, all of one size; they draw from torch's generator.
        num_workers: Processes; 0 makes the batches in this one.
        pin_memory: Put batches where a GPU can fetch them by itself.
    """

    def __init__(self, split: Split, steps: Sequence[Prepare], num_workers: int, pin_memory: bool) -> None:
        self._sampler = _Listed()
        self._piece_size = max(1, PIECE_BYTES // math.prod(split.shape))
        self._loader = DataLoader(
            _Batches(split, steps),
            batch_size=None,
            sampler=self._sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_signals_to_the_parent,
            # It draws a seed that nothing here uses; not from the generator of the run.
            generator=torch.Generator(),
        )
        if num_workers:
            # Starts them now: forked later, they would inherit the lock of the run directory, and hold it for
            # seconds after a kill of this process.
            iter(self._loader)
            _with_workers.add(self)

    def __call__(self, requests: Iterable[Request]) -> Iterator[list[Tensor]]:
        """Yield the pieces of each batch, uint8 [b, H, W, C], whose b add up to B.

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
        # What they hear when nobody holds the iterator any more; but an error that is kept may hold it.
        self._loader._iterator._shutdown_workers()  # type: ignore[union-attr]

    def _pieces(self, indices: Tensor, seeds: Tensor) -> list[_Plain]:
        pairs = zip(indices.split(self._piece_size), seeds.split(self._piece_size), strict=True)
        return [(some.tolist(), theirs.tolist()) for some, theirs in pairs]

    def _checked(self, piece: Tensor | str) -> Tensor:
        # Raised in a worker, it would come with that worker's traceback for a message.
        if isinstance(piece, str):
            raise ImageError(piece)
        return piece


_with_workers: weakref.WeakSet[Loader] = weakref.WeakSet()


def end_workers() -> None:
    """End the workers of all loaders.

    A process waits at its end for its workers, and these ignore SIGTERM: held by an error that Hydra or
    Python keeps to the end, they would have it wait for ever.
    """
    for loader in list(_with_workers):
        loader.close()


class _Listed(torch.utils.data.Sampler[_Plain]):
    """Hands the present requests to the workers, which live on from one walk to the next."""

    def __init__(self) -> None:
        # Held here, not by the loader: a ring of references would make its workers end 10 seconds late.
        self.requests: list[_Plain] = []

    def __iter__(self) -> Iterator[_Plain]:
        return iter(self.requests)


class _Batches(torch.utils.data.Dataset[Any]):
    """What a worker does with a request."""

    def __init__(self, split: Split, steps: Sequence[Prepare]) -> None:
        self._split = split
        self._steps = steps

    def __getitem__(self, request: _Plain) -> Tensor | str:
        with torch.random.fork_rng(devices=[]):
            try:
                return torch.stack([self._make(*pair) for pair in zip(*request, strict=True)])
            except ImageError as error:
                return str(error)

    def _make(self, index: int, seed: int) -> Tensor:
        # Not torch.manual_seed(), which also looks for GPUs.
        torch.default_generator.manual_seed(seed)
        picture = self._split.picture(index)
        for step in self._steps:
            picture = step(picture)
        return to_pixels(picture)


def _leave_signals_to_the_parent(_: int) -> None:
    """Ignore what reaches all processes of a terminal or a job: the parent saves, then lets workers end."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
