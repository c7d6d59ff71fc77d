"""The typed schema of a run; the files next to this one have the keys of each group.

Imports no torch, so that help, mistakes and skipped runs need no start-up time. The metadata of a field says
what is allowed. `science=False` marks keys that do not change the numbers: they are recorded, but are not
part of a run's identity. `sam_only=True` marks keys that SGD never reads.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from sam.config.analysis import AnalysisConfig
from sam.config.augmentation import AugmentationConfig
from sam.config.dataset import DatasetConfig
from sam.config.model import ModelConfig
from sam.config.optimizer import OptimizerConfig
from sam.config.runtime import RuntimeConfig
from sam.config.setting import setting

# The folders in configs/; train.py takes one file of each.
GROUPS = ("dataset", "model", "augmentation", "optimizer", "recipe", "runtime", "experiment", "analysis")


@dataclasses.dataclass
class TrainConfig:
    """One run."""

    dataset: DatasetConfig = dataclasses.field(default_factory=DatasetConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
    analysis: AnalysisConfig = dataclasses.field(default_factory=AnalysisConfig)
    # Number of epochs. 0 only evaluates the initial network, for example the loaded model.weights.
    epochs: int = setting(20, at_least=0)
    # Images per update, over all processes. The rest of an epoch that does not fill a batch is dropped.
    batch_size: int = setting(128, at_least=1)
    # Images per micro-batch. Each micro-batch has its own perturbation and batch statistics. null means all
    # images of a device.
    m: int | None = setting(None, at_least=1)
    # Label smoothing of the training loss.
    label_smoothing: float = setting(0.0, at_least=0, below=1)
    # Exponential moving average (EMA) of the weights and of the batch-norm statistics: weight of the old
    # average in each update, for example 0.999. The run, evaluate.py and analyses then measure errors at the
    # averaged weights. null means no average.
    ema_decay: float | None = setting(None, above=0, below=1)
    # Seed of the run: initial weights, order of the images, augmentation, label noise.
    seed: int = setting(0, at_least=0, at_most=2**31 - 1)
    # Folder of the run directories.
    outputs: str = setting("outputs", science=False)
    # Also send the curves to trackio or wandb, which must be installed. tensorboard sends them nowhere else:
    # TensorBoard's files are always written.
    logger: str = setting("tensorboard", choices=("tensorboard", "trackio", "wandb"), science=False)
    # Delete an earlier run of the same identity, and start again.
    force: bool = setting(False, science=False)


@dataclasses.dataclass
class EvaluateConfig:
    """One evaluation of a run."""

    # The run directory, or a folder with several runs below it.
    run: str = ""
    # The analysis to make. Without one, the errors are measured.
    analysis: AnalysisConfig = dataclasses.field(default_factory=AnalysisConfig)
    # Images to evaluate. test: the test images. train: the training images with the labels that the run was
    # trained on. train_clean: the training images with their true labels.
    split: str = setting("test", choices=("test", "train", "train_clean"))
    # auto (a GPU if there is one), cpu, cuda, or cuda:1.
    device: str = "auto"
    # Folder of the data. null means the folder that the run used.
    root: str | None = None


def config_items(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Yield (dotted key, value, field) of every key below a config dataclass."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from config_items(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value, field
