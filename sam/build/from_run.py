"""Load the network and the dataset of an existing run, to evaluate the run or to predict labels with it."""

import dataclasses
import pathlib
import sys
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sam.build.data import load_dataset, make_evaluation_batches
from sam.build.network import make_network
from sam.build.resolved import resolve
from sam.config.schema import TrainConfig
from sam.data.images import Dataset, Split, spoil_labels
from sam.data.label_files import read_labels
from sam.record.directory import read_config, read_result
from sam.system.errors import ConfigError, user_errors
from sam.training.checkpoint import CheckpointStore
from sam.training.distributed import World
from sam.training.evaluation import predict
from sam.training.precision import Precision, float32_products
from sam.training.sharding import load_model


class Moment(NamedTuple):
    """The progress of a run: complete epochs, and updates in the current epoch."""

    epoch: int
    step: int

    def __str__(self) -> str:
        return f"{self.epoch} epochs" + (f" and {self.step} steps" if self.step else "")


def dataset_as_trained(config: TrainConfig, directory: pathlib.Path) -> Dataset:
    """Return the dataset of a run, with the labels that the run is trained on.

    Changed labels are read from the run's labels.npz. Their source (a file or another run) is not needed.
    """
    if not (directory / "labels.npz").exists():
        if config.dataset.relabel_from is not None:
            raise ConfigError(f"{directory} has no labels.npz, which says what labels it is trained on")
        return load_dataset(config.dataset, config.seed)
    plain = dataclasses.replace(
        config.dataset, label_file=None, label_name=None, label_noise=0.0, relabel_from=None
    )
    data = load_dataset(plain, config.seed)
    return dataclasses.replace(data, train=spoil_labels(data.train, _stored_labels(directory, data.train)))


def relabelled(
    config: TrainConfig, data: Dataset, directory: pathlib.Path, device: torch.device, world: World
) -> Dataset:
    """Return the dataset with the training labels that an ended run predicts, if the config asks for them.

    Bootstrapping (Foret et al. 2021, section 3.3, after Jiang et al. 2019). Predictions are made once, at the
    start of the new run; a continued run reads them from its labels.npz.

    Args:
        config: The config of the run to train.
        data: The dataset of that run.
        directory: The directory of that run.
        device: The device that makes the predictions.
        world: The processes of the run; the main process predicts for all.

    Raises:
        ConfigError: If the ended run does not exist, has not ended, or its network does not fit the data.
    """
    if config.dataset.relabel_from is None:
        return data
    if (directory / "labels.npz").exists() and not config.force:
        labels = _stored_labels(directory, data.train)
    elif world.is_main:
        labels = _predictions(config, data, device)
    else:
        labels = torch.empty_like(data.train.targets)
    # All processes must have the same labels, even if their devices round differently.
    labels = world.of_main(labels.to(device)).cpu()
    return dataclasses.replace(data, train=spoil_labels(data.train, labels))


def _stored_labels(directory: pathlib.Path, images: Split) -> Tensor:
    """Return the labels that a run is trained on, int64 [N], from its labels.npz."""
    path = directory / "labels.npz"
    with user_errors(str(path)):
        _, labels = read_labels(path)
        if len(labels) != len(images):
            raise ValueError(f"it has {len(labels)} labels, the dataset {len(images)} training images")
    return labels


def check_labels(directory: pathlib.Path, images: Split) -> None:
    """Make sure that a run continues with the labels it began with.

    Raises:
        ConfigError: If the labels have changed since the run began.
    """
    if (directory / "labels.npz").exists() and not torch.equal(
        _stored_labels(directory, images), images.targets
    ):
        raise ConfigError(
            f"{directory / 'labels.npz'}: the training labels are no longer those that this run began with; "
            "put them back, or start again with force=true"
        )


def _predictions(wanting: TrainConfig, data: Dataset, device: torch.device) -> Tensor:
    """Return the classes that an ended run predicts for the training images, int64 [N]."""
    source = pathlib.Path(wanting.dataset.relabel_from or "").expanduser()
    with user_errors("dataset.relabel_from"):
        config = read_config(source, "dataset.relabel_from")
        for key in ("name", "reader", "image_size", "num_classes"):
            ours, theirs = (getattr(run.dataset, key) for run in (wanting, config))
            if ours != theirs:
                raise ConfigError(
                    f"dataset.relabel_from={source}: that run has dataset.{key}={theirs}, this one {ours}; "
                    "name a run on the same dataset"
                )
        result = read_result(source)
        if result is None:
            raise ConfigError(f"dataset.relabel_from={source}: that run has not ended; let it end first")
        if result["status"] != "complete":
            raise ConfigError(f"dataset.relabel_from={source}: that run has {result['status']}; name another")
        network, _ = trained_network(config, data, source, device)
        resolved = resolve(config, device_name=str(device))
        batches = make_evaluation_batches(config.model, data, data.train, resolved)
        with float32_products(resolved.precision):
            return predict(network, batches, Precision(resolved.precision, device)).cpu()


def trained_network(
    config: TrainConfig, data: Dataset, directory: pathlib.Path, device: torch.device
) -> tuple[nn.Module, Moment]:
    """Return the network of a run at its newest checkpoint, and the run's progress.

    If the run averages its weights, the network has the averaged weights.
    """
    state = load_checkpoint(CheckpointStore(directory))
    if state is None:
        raise ConfigError(f"run={directory} has no checkpoint yet; train it first")
    # The checkpoint replaces all weights, so pretrained weights are not loaded.
    network = make_network(dataclasses.replace(config.model, weights=None), data, device)
    with user_errors(str(directory)):
        try:
            load_model(network, state["model" if config.ema_decay is None else "average"])
            progress = state["progress"]
            return network, Moment(int(progress["epoch"]), int(progress["step"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the checkpoint is not that of a run: {error!r}") from error


def load_checkpoint(store: CheckpointStore) -> dict[str, Any] | None:
    """Return the newest readable state of a run, or None; warn in one line about a damaged checkpoint."""
    with warnings.catch_warnings(record=True) as caught, user_errors("checkpoint"):
        warnings.simplefilter("always")
        state = store.load()
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return state
