"""The evaluation of a run by its newest checkpoint."""

import pathlib

from sam.build.data import make_evaluation_batches
from sam.build.from_run import dataset_as_trained, trained_network
from sam.build.resolved import resolve
from sam.config.schema import TrainConfig
from sam.data.images import with_true_labels
from sam.data.loading import end_workers
from sam.system.errors import user_errors
from sam.training.distributed import World
from sam.training.evaluation import Evaluation, evaluate
from sam.training.precision import Precision, float32_products


def evaluate_run(
    config: TrainConfig, directory: pathlib.Path, split: str, device_name: str
) -> tuple[str, list[str], Evaluation]:
    """Evaluate the newest checkpoint of a run.

    Args:
        config: Of the run.
        directory: Of the run.
        split: test; train, with the labels that it was trained on; or train_clean, with the true ones.
        device_name: As in a config.

    Returns:
        After how many epochs and steps, the names of the classes, and the evaluation.

    Raises:
        ConfigError: If there is no readable checkpoint, no data or no such device.
    """
    resolved = resolve(config, device_name=device_name)
    data = dataset_as_trained(config, directory)
    images = {"test": data.test, "train": data.train, "train_clean": with_true_labels(data.train)}[split]
    network, moment = trained_network(config, data, directory, resolved.device)
    batches = make_evaluation_batches(config.model, data, images, resolved)
    try:
        with user_errors(f"dataset={config.dataset.name}"), float32_products(resolved.precision):
            evaluation = evaluate(
                network,
                batches,
                num_classes=data.num_classes,
                device=resolved.device,
                precision=Precision(resolved.precision, resolved.device),
                world=World(),
            )
    finally:
        end_workers()
    return str(moment), list(data.class_names), evaluation
