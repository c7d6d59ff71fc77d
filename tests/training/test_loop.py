"""Stopping and going on, step by step, without files: a run stopped anywhere is the run never stopped."""

import copy
import itertools
import math
from contextlib import suppress

import pytest
import torch

from sam.models.cifar_resnet import CifarResNet
from sam.optim.schedule import Ascents, cosine
from sam.training.checkpoint import CheckpointStore
from sam.training.distributed import World
from sam.training.evaluation import Evaluation
from sam.training.loop import Interrupted, Trainer
from sam.training.rows import Rows
from sam.training.weight_average import WeightAverage
from tests.training.test_update import make_update

CPU = torch.device("cpu")
LOOK_SAM = {"steps": {"ascents": Ascents(1, 8, 3)}, "reuse": 0.7}
KEPT = {"keep_weights_every": 2, "ema_decay": 0.4}
TIMES = ("seconds", "images_per_second")


class Batches:
    steps_per_epoch = 3
    batch_size = 4

    def epoch(self, epoch, first_step=0):
        for step in range(first_step, self.steps_per_epoch):
            generator = torch.Generator().manual_seed(100 * epoch + step)
            yield (
                torch.randn(4, 3, 8, 8, generator=generator),
                torch.randint(0, 3, (4,), generator=generator),
                None,
            )


class Recorder:
    def __init__(self):
        self.rows, self.steps = [], []

    def restart(self, rows):
        self.rows = list(rows)

    def log(self, row):
        self.rows.append(row)

    def advance(self, epoch, step, loss):
        assert math.isfinite(loss)
        self.steps.append((epoch, step))

    def close(self):
        pass


def make_trainer(
    folder,
    stop=lambda: False,
    test_losses=None,
    lr=0.1,
    checkpoint_seconds=1e9,
    epochs=3,
    inspect=None,
    ema_decay=None,
    keep_weights_every=None,
    **rule,
):
    torch.manual_seed(0)
    model = CifarResNet(depth=8, width=2, in_channels=3, num_classes=3)
    losses = iter(test_losses or itertools.repeat(1.0))
    recorder = Recorder()
    trainer = Trainer(
        model=model,
        update=make_update(model, "sam", m=2, **rule),
        batches=Batches(),
        evaluate=lambda: Evaluation(next(losses), 50.0, 10.0, [50.0] * 3, 1.0, [], 7),
        epochs=epochs,
        lr_at=lambda step: lr * cosine(step, 3 * epochs),
        store=CheckpointStore(folder),
        loggers=[recorder],
        world=World(),
        device=CPU,
        checkpoint_seconds=checkpoint_seconds,
        stop_requested=stop,
        inspect=inspect,
        keep_weights_every=keep_weights_every,
        average=None if ema_decay is None else WeightAverage(model, ema_decay),
    )
    return trainer, recorder


def same(one, other):
    """Compare nested states bit by bit, but for times."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        if "columns" in one:
            return same(list(Rows(**one)), list(Rows(**other)))
        return all(
            same(one[key], other[key]) for key in one if key not in TIMES and "seconds" not in str(key)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("stop_after", range(1, 9))
@pytest.mark.parametrize("rule", [{"ema_decay": 0.4}, LOOK_SAM], ids=["SAM with EMA", "LookSAM"])
def test_run_stopped_after_any_step_ends_like_one_never_stopped(tmp_path, stop_after, rule):
    whole, whole_log = make_trainer(tmp_path, **rule)
    assert whole.fit()
    expected = copy.deepcopy(whole.state())

    folder = tmp_path / "stopped"
    folder.mkdir()
    stopped, log = make_trainer(folder, stop=lambda: len(log.steps) >= stop_after, **rule)
    with pytest.raises(Interrupted):
        stopped.fit()
    resumed, resumed_log = make_trainer(folder, **rule)
    resumed.load(CheckpointStore(folder).load())
    assert resumed.num_steps_done == stop_after
    assert resumed.fit()
    assert same(resumed.state(), expected)
    assert same(resumed_log.rows, whole_log.rows)
    assert resumed.num_passes == whole.num_passes
    assert log.steps + resumed_log.steps == whole_log.steps


def test_weights_are_kept_from_the_start_also_by_a_run_that_goes_on(tmp_path):
    kept = []
    for name, stops in {"whole": [99], "stopped": [4, 6, 99]}.items():
        folder = tmp_path / name
        folder.mkdir()
        for last in stops:
            kept.append(kept_after(folder, last))
    assert [list(weights) for weights in kept] == [[0, 2], [0], [0, 2], [0, 2]]
    assert same(kept[0], kept[-1])
    start, _ = make_trainer(tmp_path)
    assert same(dict(start.state()["model"]), kept[0][0])


def kept_after(folder, num_steps):
    """Go on with a run up to this number of updates; return the weights that it has kept, by epoch."""
    trainer, _ = make_trainer(folder, lambda: trainer.num_steps_done >= num_steps, **KEPT)
    if (state := trainer.store.load()) is not None:
        trainer.load(state)
    with suppress(Interrupted):
        trainer.fit()
    return {epoch: trainer.store.kept(epoch) for epoch in trainer.store.kept_epochs()}


def test_checkpoint_without_the_average_is_not_that_of_a_run_with_one(tmp_path):
    plain, _ = make_trainer(tmp_path)
    averaged, _ = make_trainer(tmp_path, ema_decay=0.4)
    with pytest.raises(ValueError, match="the checkpoint is not that of this run: KeyError"):
        averaged.load(plain.state())


def test_checkpoints_inside_an_epoch_come_when_they_are_due(tmp_path):
    saved = []
    trainer, _ = make_trainer(tmp_path, checkpoint_seconds=0)
    trainer.store.save = lambda state: saved.append(state["progress"]["step"])
    trainer.fit()
    assert saved == [1, 2, 0] * 3
    saved.clear()
    trainer, _ = make_trainer(tmp_path)
    trainer.store.save = lambda state: saved.append(state["progress"]["step"])
    trainer.fit()
    assert saved == [0] * 3


def test_every_epoch_is_inspected_once_it_is_saved_and_again_where_the_run_goes_on(tmp_path):
    seen = []

    def inspect(epoch):
        seen.append(epoch)
        assert CheckpointStore(tmp_path).load()["progress"]["epoch"] == epoch

    stopped, log = make_trainer(tmp_path, stop=lambda: len(log.steps) >= 6, inspect=inspect)
    with pytest.raises(Interrupted):
        stopped.fit()
    assert seen == [1, 2]
    resumed, _ = make_trainer(tmp_path, inspect=inspect)
    resumed.load(CheckpointStore(tmp_path).load())
    resumed.fit()
    assert seen == [1, 2, 2, 3]


def test_a_run_that_goes_on_inside_an_epoch_is_not_inspected_there(tmp_path):
    stopped, log = make_trainer(tmp_path, stop=lambda: len(log.steps) >= 4)
    with pytest.raises(Interrupted):
        stopped.fit()
    seen = []
    resumed, _ = make_trainer(tmp_path, inspect=seen.append)
    resumed.load(CheckpointStore(tmp_path).load())
    resumed.fit()
    assert seen == [2, 3]


def test_time_of_inspection_is_not_that_of_the_run(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def inspect(epoch):
        clock[0] += 1000.0

    trainer, log = make_trainer(tmp_path, inspect=inspect)
    trainer.fit()
    trainer.save()
    assert trainer.progress.total_seconds == 0
    assert [row["seconds"] for row in log.rows] == [0, 0, 0]


def test_rows_say_what_happened(tmp_path):
    trainer, log = make_trainer(tmp_path)
    trainer.fit()
    assert [row["epoch"] for row in log.rows] == [1, 2, 3]
    assert [row["step"] for row in log.rows] == [3, 6, 9]
    for row in log.rows:
        # the last update of the epoch, step - 1 counted from 0
        assert row["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * (row["step"] - 1) / 9)))
        assert row["loss_rise"] == pytest.approx(row["perturbed_loss"] - row["train_loss"])
        assert row["loss_rise"] > 0
        assert "cosine" not in row, "m is below the batch size"
        assert row["images_per_second"] == pytest.approx(12 / row["seconds"])
        assert (row["passes"], row["unperturbed"]) == (2, 0)
    assert trainer.num_passes == 18


def test_rows_of_a_late_phase_know_the_updates_that_perturb(tmp_path):
    # Three updates an epoch: the last of the second epoch, and those of the third.
    trainer, log = make_trainer(tmp_path, steps={"ascents": Ascents(5, 9)})
    trainer.fit()
    assert [row["passes"] for row in log.rows] == pytest.approx([1, 4 / 3, 2])
    assert [row["unperturbed"] for row in log.rows] == [0, 0, 0]
    assert ["perturbed_loss" in row for row in log.rows] == [False, True, True]
    assert ["loss_rise" in row for row in log.rows] == [False, True, True]
    assert trainer.num_passes == pytest.approx(3 + 4 + 6)


def test_loss_rise_is_left_out_where_the_losses_are_of_other_images(tmp_path):
    # As many images in clean as in perturbed passes, but not the same: 2 + 4 + 2 of the ascents on a half and
    # the plain update between them, and 4 + 4.
    steps = {"ascents": Ascents(0, 3, 2), "ascent_fraction": 0.5}
    trainer, log = make_trainer(tmp_path, steps=steps)
    trainer.fit()
    assert "loss_rise" not in log.rows[0]


def test_loss_that_is_not_finite_ends_the_run(tmp_path):
    trainer, log = make_trainer(tmp_path, test_losses=[1.0, math.nan, 1.0])
    assert not trainer.fit()
    assert len(log.rows) == 2
    resumed, _ = make_trainer(tmp_path)
    resumed.load(CheckpointStore(tmp_path).load())
    assert not resumed.fit(), "a diverged run stays so"
    assert resumed.num_steps_done == 6


def test_run_without_epochs_evaluates_once_and_changes_nothing(tmp_path):
    trainer, log = make_trainer(tmp_path, epochs=0, test_losses=[0.7])
    before = copy.deepcopy(trainer.state())
    assert trainer.fit()
    row = {"epoch": 0, "step": 0, "passes": 0.0, "seconds": 0.0, "test_loss": 0.7}
    assert log.rows == [row | {"test_error_pct": 50.0, "test_top5_error_pct": 10.0}]
    assert (log.steps, trainer.num_steps_done, trainer.num_passes) == ([], 0, 0)
    saved = CheckpointStore(tmp_path).load()
    for key in ("model", "optimizer", "random"):
        assert same(saved[key], before[key])
    # It has measured all there is to measure: a second evaluation would fail.
    resumed, resumed_log = make_trainer(tmp_path, epochs=0)
    resumed._evaluate = None
    resumed.load(saved)
    assert resumed.fit()
    assert resumed_log.rows == log.rows


def test_run_without_epochs_whose_loss_is_not_finite_is_not_complete(tmp_path):
    trainer, log = make_trainer(tmp_path, epochs=0, test_losses=[math.nan])
    assert not trainer.fit()
    assert len(log.rows) == 1


def test_state_of_another_model_is_refused(tmp_path):
    trainer, _ = make_trainer(tmp_path)
    state = trainer.state()
    state["model"].pop("conv.weight")
    with pytest.raises(ValueError, match="the checkpoint does not fit the model"):
        trainer.load(state)


@pytest.mark.parametrize(
    ("key", "value"), [("model", 3), ("optimizer", []), ("progress", {}), ("progress", {"rows": 3})]
)
def test_state_of_something_else_is_refused(tmp_path, key, value):
    trainer, _ = make_trainer(tmp_path)
    with pytest.raises(ValueError, match="the checkpoint is not that of this run"):
        trainer.load(trainer.state() | {key: value})
