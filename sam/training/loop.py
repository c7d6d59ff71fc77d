"""The training loop: epochs of updates, an evaluation after each epoch, and a state to continue from."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sam.training.checkpoint import CheckpointStore
from sam.training.distributed import World
from sam.training.evaluation import Evaluation
from sam.training.interfaces import Batches, Logger
from sam.training.random_state import RandomState
from sam.training.rows import Row, Rows, diverged, train_means
from sam.training.sharding import gathered, load_model, sharded_like
from sam.training.update import Update
from sam.training.weight_average import WeightAverage

# Several processes agree on whether to stop or save only every 10 steps, because that waits for the device.
STEPS_BETWEEN_AGREEMENTS = 10


class Interrupted(Exception):  # noqa: N818  (not an error: the state is saved)
    """The run was asked to stop. Its state is saved."""


@dataclasses.dataclass
class Progress:
    """The progress of a run: all state that changes, except the weights and the optimizer."""

    epoch: int = 0  # number of complete epochs
    step: int = 0  # number of updates done in the current epoch
    sums: Tensor | None = None  # the rule's sums over the updates of the current epoch
    epoch_seconds: float = 0.0  # training time of the current epoch
    total_seconds: float = 0.0  # time of the whole run, including the parts before an interruption
    rows: Rows = dataclasses.field(default_factory=Rows)


class Trainer:
    """Trains one model to the last epoch, from the start or from a checkpoint.

    Args:
        model: The model in training mode, on its device; checkpoints hold its state.
        update: Makes one update of the weights.
        batches: The training data, as a function of epoch and step.
        evaluate: Evaluates the model, or its average, on the test split.
        epochs: The number of epochs; 0 only evaluates the model.
        lr_at: Learning rate of an update, by the number of updates before it.
        store: Writes and reads the checkpoints.
        loggers: Receive every epoch's row; empty in all processes but the main one.
        world: The processes that train this model together.
        device: The device that holds the sums.
        checkpoint_seconds: Save inside an epoch if the last save is older. Each epoch also ends with a save.
        stop_requested: Called after every update. If true, the state is saved and Interrupted is raised.
        inspect: Called in the main process with the number of complete epochs: after each epoch's checkpoint,
            again when a run continues from such a checkpoint, and after the evaluation of epochs=0. It must
            not change the model. Its time is not counted, and the other processes wait for it. None in all
            processes: no inspection.
        keep_weights_every: Keep the weights that are evaluated, those before the first epoch and after each
            epoch with a multiple of this number. None: keep none.
        average: The moving average of the model's weights; updated after every update. None: no average.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        update: Update,
        batches: Batches,
        evaluate: Callable[[], Evaluation],
        epochs: int,
        lr_at: Callable[[int], float],
        store: CheckpointStore,
        loggers: Sequence[Logger],
        world: World,
        device: torch.device,
        checkpoint_seconds: float,
        stop_requested: Callable[[], bool],
        inspect: Callable[[int], None] | None = None,
        keep_weights_every: int | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        self.progress = Progress()
        self._model = model
        self._update = update
        self._batches = batches
        self._evaluate = evaluate
        self._epochs = epochs
        self._lr_at = lr_at
        self.store = store
        self._loggers = loggers
        self._world = world
        self._device = device
        self._checkpoint_seconds = checkpoint_seconds
        self._stop_requested = stop_requested
        self._inspect = inspect
        self._keep_weights_every = keep_weights_every
        self._average = average
        self._last_save = time.monotonic()
        self._started = time.monotonic()

    @property
    def num_steps_done(self) -> int:
        """Number of updates so far."""
        return self.progress.epoch * self._batches.steps_per_epoch + self.progress.step

    @property
    def num_passes(self) -> float:
        """Number of forward-backward passes over a batch in the complete epochs."""
        return sum(row["passes"] * self._batches.steps_per_epoch for row in self.progress.rows)

    @property
    def uses_graph(self) -> bool:
        """Whether this process has recorded CUDA graphs."""
        return self._update.replay is not None and self._update.replay.is_used

    def close(self) -> None:
        """Finish the logs."""
        for logger in self._loggers:
            logger.close()

    def fit(self) -> bool:
        """Train to the end of the last epoch, or until a loss is not finite.

        Returns:
            True if the run is complete, False if it diverged (the last row shows in which epoch).

        Raises:
            Interrupted: If a stop was requested; the state is saved.
        """
        for logger in self._loggers:
            logger.restart(self.progress.rows)
        self._started = time.monotonic() - self.progress.total_seconds
        rows = self.progress.rows
        if not self.num_steps_done:
            self._keep_weights()
        if rows and not self.progress.step:
            self._inspect_epoch()
        while self.progress.epoch < self._epochs and not (rows and diverged(rows[-1])):
            self._train_epoch()
            self._end_epoch()
        if not rows:  # epochs=0: only evaluate the model
            self._record({"epoch": 0, "step": 0, "passes": 0.0, "seconds": 0.0})
            self._inspect_epoch()
        return not diverged(rows[-1])

    def _train_epoch(self) -> None:
        progress = self.progress
        if progress.sums is None:
            num_sums = len(self._update.rule.sums)
            progress.sums = torch.zeros(num_sums, dtype=torch.float64, device=self._device)
        started = time.monotonic() - progress.epoch_seconds
        loss = progress.sums[self._update.rule.sums.index("loss")]  # a view, which follows the sums
        for images, targets, clean_targets in self._batches.epoch(progress.epoch, progress.step):
            lr = self._lr_at(self.num_steps_done)
            progress.sums += self._update(images, targets, lr, clean_targets, self.num_steps_done)
            progress.step += 1
            if self._average is not None:
                self._average.update(self._model, self.num_steps_done)
            for logger in self._loggers:
                logger.advance(progress.epoch, progress.step, loss)
            progress.epoch_seconds = time.monotonic() - started
            self._save_if_due()
        progress.sums.tolist()  # waits for the device, so that epoch_seconds includes all of its work
        progress.epoch_seconds = time.monotonic() - started

    def _save_if_due(self) -> None:
        if self.progress.step == self._batches.steps_per_epoch:
            return  # _end_epoch() saves
        if self._world.size > 1 and self.progress.step % STEPS_BETWEEN_AGREEMENTS:
            return
        if self._world.any(self._stop_requested(), self._device):
            self.save()
            raise Interrupted
        due = time.monotonic() - self._last_save > self._checkpoint_seconds
        if self._world.any(due and self._world.is_main, self._device):
            self.save()

    def _end_epoch(self) -> None:
        progress = self.progress
        self._average_statistics()
        row = self._trained()
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.sums, progress.epoch_seconds = None, 0.0
        self._record(row)
        self._inspect_epoch()
        if progress.epoch < self._epochs and self._world.any(self._stop_requested(), self._device):
            raise Interrupted  # after the last epoch, the worker checks for a stop once the result is written

    def _record(self, row: Row) -> None:
        """Evaluate the model, add the results to a row of metrics.csv, log the row, and save a checkpoint."""
        test = self._evaluate()
        row["test_loss"], row["test_error_pct"] = test.loss, test.error_pct
        row["test_top5_error_pct"] = test.top5_error_pct
        self.progress.rows.append(row)
        for logger in self._loggers:
            logger.log(row)
        self._keep_weights()  # before the checkpoint, so that a run that continues from it has them
        self.save()

    def _keep_weights(self) -> None:
        """Keep the weights, if those of this epoch are wanted."""
        if self._keep_weights_every is None or self.progress.epoch % self._keep_weights_every:
            return
        evaluated = self._model if self._average is None else self._average.network
        weights = gathered(evaluated.state_dict())
        if self._world.is_main:
            self.store.keep(self.progress.epoch, weights)

    def _inspect_epoch(self) -> None:
        if self._inspect is None or diverged(self.progress.rows[-1]):
            return
        began = time.monotonic()
        with self._world.main_first():
            if self._world.is_main:
                self._inspect(self.progress.epoch)
        self._started += time.monotonic() - began

    def _trained(self) -> Row:
        """Return the training columns of metrics.csv for the epoch that just ended."""
        progress = self.progress
        assert progress.sums is not None
        num_images = self._batches.steps_per_epoch * self._batches.batch_size
        totals = self._world.sum_(progress.sums).tolist()
        sums = dict(zip(self._update.rule.sums, totals, strict=True))
        return {
            "epoch": progress.epoch + 1,
            "step": self.num_steps_done,
            # The learning rate of the epoch's last update.
            "lr": self._lr_at(self.num_steps_done - 1),
            **train_means(sums),
            # Forward-backward passes per image: a measure of compute.
            "passes": sums["image_passes"] / num_images,
            "seconds": progress.epoch_seconds,
            "images_per_second": num_images / max(progress.epoch_seconds, 1e-9),
        }

    def save(self) -> None:
        """Write a checkpoint in the main process; all processes must call this together."""
        if self.progress.sums is not None:  # inside an epoch; _end_epoch() does this itself
            self._average_statistics()
            self._gather_sums(self.progress.sums)
        self.progress.total_seconds = time.monotonic() - self._started
        self._last_save = time.monotonic()
        state = self.state()
        if self._world.is_main:
            self.store.save(state)

    def _average_statistics(self) -> None:
        """Give every process the mean of all running statistics."""
        self._world.mean_(self._update.statistics.averaged)
        if self._average is not None:
            self._world.mean_(self._average.statistics)

    def _gather_sums(self, sums: Tensor) -> None:
        """Move the sums of all processes to the main process, which writes the checkpoint."""
        self._world.sum_(sums)
        sums *= self._world.is_main

    def state(self) -> dict[str, Any]:
        """Return the state for a bit-identical continuation; all processes must call this together."""
        progress = dataclasses.asdict(self.progress)
        average = {} if self._average is None else {"average": self._average.network.state_dict()}
        return {
            "model": gathered(self._model.state_dict()),
            **average,
            "optimizer": gathered(self._update.rule.optimizer.state_dict()),
            "scaler": self._update.scaler.state_dict(),
            "progress": progress,
            "random": self._world.gathered(RandomState(self._device).state()),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state that state() returned.

        Raises:
            ValueError: If the state belongs to another model, or is not a training state at all.
        """
        try:
            self._load(state)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"the checkpoint is not that of this run: {error!r}") from error

    def _load(self, state: dict[str, Any]) -> None:
        load_model(self._model, state["model"])
        if self._average is not None:
            load_model(self._average.network, state["average"])
        optimizer = self._update.rule.optimizer
        optimizer.load_state_dict(sharded_like(optimizer, state["optimizer"]))
        self._update.scaler.load_state_dict(state["scaler"])
        if self._update.replay is not None:
            self._update.replay.forget()  # the recordings hold the tensors of the state before
        self.progress = Progress(**state["progress"] | {"rows": Rows(**state["progress"]["rows"])})
        if self.progress.sums is not None:
            # _gather_sums() added them up in the main process.
            self.progress.sums = self.progress.sums.to(self._device) * self._world.is_main
        if self._world.rank < len(state["random"]):  # false if the run had fewer processes when it was saved
            RandomState(self._device, state["random"][self._world.rank]).restore()
