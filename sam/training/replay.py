"""The work of a micro-batch as one CUDA graph: recorded once, then replayed.

On a GPU, a small kernel ends before the host has launched the next one. A graph holds all kernels of a
micro-batch (both passes, the perturbation, and the sum of the gradients) and is launched in one call.

A graph always uses the same memory. So the images are copied to fixed tensors, and the gradients are added to
fixed tensors (FlatGradients); the rules and RunningStatistics keep their tensors in place, too. A number of
the host, such as the share of the micro-batch, is part of the graph. So there is one graph for each set of
such numbers. The step of the optimizer, with clipping, and all that happens once per update stay outside.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from sam.optim import SAM
from sam.optim.running_statistics import RunningStatistics
from sam.training.distributed import World
from sam.training.gradients import FlatGradients
from sam.training.random_state import RandomState
from sam.training.rule import Rule

# Eager updates of a kind before it is recorded. The first one shows which weights get a gradient. In both,
# libraries such as cuDNN make what they make only once.
EAGER_UPDATES = 2
NEW_GRADIENT = "a weight got its first gradient"


class Recorder(Protocol):
    """Records work on the device."""

    def prepare(self, work: Callable[[], Tensor]) -> Tensor:
        """Do the work in the way in which record() will record it, and return its result."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Record the work, without doing it.

        Returns:
            The tensor that holds the result, and a function that does the work again.

        Raises:
            RuntimeError: If the work cannot be recorded, for example because the host waits for the device.
        """


class GraphRecorder:
    """Records CUDA graphs, which share their memory: one replay must end before the next one begins."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def prepare(self, work: Callable[[], Tensor]) -> Tensor:
        """Do the work in the stream of the recordings; see Recorder."""
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            result = work()
        outside.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Record a graph; see Recorder."""
        graph = torch.cuda.CUDAGraph()
        # The outer context: after a failure, torch's context of a graph does not go back to the old stream.
        # thread_local: another thread may allocate pinned memory meanwhile.
        try:
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
            ):
                result = work()
        except RuntimeError:
            # Up to torch 2.11, the generator stays in the state of a recording. A copy of it is not.
            generator = torch.cuda.default_generators[self._stream.device.index]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return result, graph.replay


class _Recording:
    """Recorded work on tensors at fixed addresses.

    Args:
        recorder: Records the work.
        work: Maps tensors to a tensor.
        given: Tensors like those of all later calls.
    """

    def __init__(self, recorder: Recorder, work: Callable[..., Tensor], given: Sequence[Tensor]) -> None:
        self._given = [tensor.clone() for tensor in given]
        self._result, self._replay = recorder.record(partial(work, *self._given))

    def __call__(self, given: Sequence[Tensor]) -> Tensor:
        """Do the work on other tensors; the next call overwrites the result."""
        for mine, tensor in zip(self._given, given, strict=True):
            mine.copy_(tensor)
        self._replay()
        return self._result


class Replay:
    """Does the work of a rule's accumulate(): eagerly in the first updates, and from recordings later.

    Args:
        rule: The rule. Apart from its device work, accumulate() must change nothing that a later call reads.
        statistics: The running statistics of the model.
        gradients: The gradients of its weights.
        recorder: Records the work.
        world: The processes that share each batch. They average their gradients once per update.
        refuse: Called with the reason if the work cannot be recorded. It may raise an error. If it does not,
            all later work is done eagerly.
    """

    def __init__(
        self,
        rule: Rule,
        statistics: RunningStatistics,
        gradients: FlatGradients,
        recorder: Recorder,
        world: World,
        refuse: Callable[[str], None],
    ) -> None:
        self._rule = rule
        self._statistics = statistics
        self._gradients = gradients
        self._recorder = recorder
        self._world = world
        self._refuse = refuse
        self._is_refused = False
        self._recordings: dict[Hashable, _Recording] = {}
        self._buffers: list[Tensor] = []  # of batch norm, in the recordings
        self._eager: Counter[Hashable] = Counter()  # number of eager updates of each kind
        self._eager_now: set[Hashable] = set()  # the kinds that are done eagerly in this update

    @property
    def is_used(self) -> bool:
        """Whether there is a recording."""
        return bool(self._recordings)

    def forget(self) -> None:
        """Drop the recordings; call this after loading a state, which makes new tensors."""
        self._recordings.clear()
        self._eager.clear()

    def begin(self) -> None:
        """Clear the gradients, at the start of an update, after statistics.begin()."""
        if self._statistics.averaged is not self._buffers:  # a layer was frozen or replaced
            self.forget()
            self._buffers = self._statistics.averaged
        if self._needs_places:
            self._gradients.clear()
        else:
            self._rule.base_optimizer.zero_grad()

    def accumulate(
        self, images: Tensor, targets: Tensor, share: float, sync: bool, clean_targets: Tensor | None = None
    ) -> Tensor:
        """Do the work of Rule.accumulate(); the next call may overwrite the result."""
        given = [images, targets] if clean_targets is None else [images, targets, clean_targets]

        def work(images: Tensor, targets: Tensor, clean_targets: Tensor | None = None) -> Tensor:
            return self._rule.accumulate(images, targets, share, sync, clean_targets)

        kind = (self._rule.kind(), share, *((tensor.shape, tensor.dtype) for tensor in given))
        if self._can_record(kind):
            self._record(kind, work, given)
        if self._is_refused:
            return work(*given)
        if kind in self._recordings:
            self._statistics.num_kept += 1
            return self._recordings[kind](given)
        self._eager_now.add(kind)
        return self._done_eagerly(work, given)

    def end(self) -> None:
        """Give each gradient its place, and average the processes' gradients, at the end of an update."""
        if self._needs_places:
            # Recordings add to the old places, and in kinds that do not use the weight, decay would move it.
            if self._gradients.gather() and not self._is_refused:
                self._stop(NEW_GRADIENT)
            self._world.average_(self._gradients.flat)
        self._eager.update(self._eager_now)
        self._eager_now.clear()

    @property
    def _needs_places(self) -> bool:
        """Whether gradients have fixed places: for recordings, or for one exchange between processes."""
        return not self._is_refused or self._world.size > 1

    def _can_record(self, kind: Hashable) -> bool:
        is_new = not self._is_refused and kind not in self._recordings
        return is_new and self._eager[kind] >= EAGER_UPDATES and self._gradients.are_in_place()

    def _done_eagerly(self, work: Callable[..., Tensor], given: Sequence[Tensor]) -> Tensor:
        before = RandomState(given[0].device)
        result = self._recorder.prepare(partial(work, *given))
        if not before.equals(RandomState(given[0].device)):
            self._stop("the network, or the direction of eps, draws random numbers")
        return result

    def _record(self, kind: Hashable, work: Callable[..., Tensor], given: Sequence[Tensor]) -> None:
        optimizer, num_kept = self._rule.optimizer, self._statistics.num_kept
        perturbed = optimizer.perturbed if isinstance(optimizer, SAM) else None
        try:
            self._recordings[kind] = _Recording(self._recorder, work, given)
            if not self._gradients.are_in_place():
                raise RuntimeError(NEW_GRADIENT)
        except RuntimeError as error:
            # Nothing was done on the device. Only the objects of the host must be as before.
            self._gradients.attach()
            if isinstance(optimizer, SAM):
                optimizer.perturbed = perturbed
            self._stop(_cause(error))
        finally:
            self._statistics.num_kept = num_kept

    def _stop(self, reason: str) -> None:
        self._is_refused = True
        self._recordings.clear()
        self._refuse(reason)


def _cause(error: BaseException) -> str:
    """Return the first line of the first error: CUDA raises a second one at the end of a failed recording."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return str(error).partition("\n")[0]
