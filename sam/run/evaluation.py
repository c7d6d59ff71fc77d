"""The work of evaluate.py: evaluate or analyse the newest checkpoint of each run."""

import dataclasses
import pathlib
from collections.abc import Sequence

from sam.build.evaluation import make_evaluation
from sam.build.from_run import dataset_as_trained, trained_network
from sam.build.resolved import numerics, resolve
from sam.config.schema import EvaluateConfig, TrainConfig
from sam.data.images import with_true_labels
from sam.data.loading import end_workers
from sam.record.directory import read_config, refuse_links
from sam.system.errors import ConfigError, MissingDataset, user_errors
from sam.system.files import write_json
from sam.training.distributed import World
from sam.training.evaluation import Evaluation


def evaluate_or_analyse_all(directories: Sequence[pathlib.Path], config: EvaluateConfig) -> None:
    """Evaluate or analyse runs one after another; skip those that cannot be read.

    Raises:
        ConfigError: If runs were skipped; the message lists them with the reasons.
    """
    faults = []
    for directory in directories:
        try:
            evaluate_or_analyse(directory, config)
        except ConfigError as error:
            no_data = config.root is None and isinstance(error.__cause__, MissingDataset)
            message = f"{error}; for evaluate.py, use root=FOLDER" if no_data else str(error)
            if len(directories) == 1:
                raise ConfigError(message) from error
            faults.append(f"{directory}: {message}")
    if faults:
        raise ConfigError("\n".join([f"{len(faults)} of {len(directories)} runs were skipped:", *faults]))


def evaluate_or_analyse(directory: pathlib.Path, config: EvaluateConfig) -> None:
    """Evaluate or analyse one run."""
    training = read_config(directory)
    refuse_links(directory)
    if config.root is not None:
        training.dataset.root = config.root
    else:
        # No download into a folder that only the run's config names: the run may come from a stranger.
        training.dataset.download = False
    if config.analysis.name == "none":
        evaluate_and_write(directory, training, config)
        return
    from sam.run.inspection import analyse_run

    print(directory)
    analyse_run(training, directory, config.analysis, config.device)


def evaluate_and_write(directory: pathlib.Path, training: TrainConfig, config: EvaluateConfig) -> None:
    """Evaluate one run, print its errors, and write them to its evaluation-<split>.json."""
    moment, class_names, evaluation = evaluate_run(training, directory, config.split, config.device)
    held_out = config.split == "test" and training.dataset.validation != "none"
    split = "validation" if held_out else config.split
    weights = "" if training.ema_decay is None else f", averaged weights (ema_decay={training.ema_decay})"
    print(f"{directory}\n{split} split, {evaluation.num_images} images, after {moment}{weights}")
    for label, value in (
        ("loss", f"{evaluation.loss:.4f}"),
        ("top-1 error", f"{evaluation.error_pct:.2f} %"),
        ("top-5 error", f"{evaluation.top5_error_pct:.2f} %"),
        ("calibration error", f"{evaluation.calibration_error_pct:.2f} %"),
        *((f"  {n}", f"{e:.2f} %") for n, e in zip(class_names, evaluation.class_error_pct, strict=True)),
    ):
        print(f"{label:<24}{value:>10}")
    path = directory / f"evaluation-{split}.json"
    record = {"split": split, "after": moment, "ema_decay": training.ema_decay, "class_names": class_names}
    write_json(path, record | dataclasses.asdict(evaluation))
    print(f"written to {path}")


def evaluate_run(
    config: TrainConfig, directory: pathlib.Path, split: str, device_name: str
) -> tuple[str, list[str], Evaluation]:
    """Evaluate the newest checkpoint of a run.

    Args:
        config: The run's config.
        directory: The run directory.
        split: test; train, with the labels that the run was trained on; or train_clean, with the true labels.
        device_name: A device name, as in a config.

    Returns:
        The epoch and step of the checkpoint, in words, the names of the classes, and the evaluation.

    Raises:
        ConfigError: If there is no readable checkpoint, no dataset or no such device.
    """
    resolved = resolve(config, device_name=device_name)
    data = dataset_as_trained(config, directory)
    images = {"test": data.test, "train": data.train, "train_clean": with_true_labels(data.train)}[split]
    network, moment = trained_network(config, data, directory, resolved.device)
    test = make_evaluation(config.model, data, images, network, resolved, World())
    try:
        with user_errors(f"dataset={config.dataset.name}"), numerics(resolved):
            evaluation = test()
    finally:
        end_workers()
    return str(moment), list(data.class_names), evaluation
