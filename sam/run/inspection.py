"""Analyses of a run: of its newest checkpoint, or during training."""

import pathlib
from collections.abc import Callable

import torch
from torch import nn

from sam.analysis.measure import analyse, path_of_analysis
from sam.analysis.subject import Subject
from sam.build.from_run import Moment, dataset_as_trained, trained_network
from sam.build.resolved import numerics, resolve
from sam.config.analysis import AnalysisConfig
from sam.config.schema import TrainConfig
from sam.data.images import Dataset
from sam.logs.console import say
from sam.logs.tensorboard import append_picture
from sam.record.analyses import Analysis
from sam.system.errors import ConfigError, user_errors
from sam.system.files import replaced


def analyse_run(
    config: TrainConfig, directory: pathlib.Path, chosen: AnalysisConfig, device_name: str
) -> None:
    """Analyse the newest checkpoint of a run, and print the result."""
    resolved = resolve(config, device_name=device_name)
    data = dataset_as_trained(config, directory)
    network, moment = trained_network(config, data, directory, resolved.device)
    subject = Subject(config, directory, data, network, moment, resolved)
    is_new = not path_of_analysis(chosen, subject).exists()
    with numerics(resolved):
        analysis = _analysed(chosen, subject)
    picture = analysis.path.with_suffix(".png")
    if is_new:
        append_picture(directory / "tensorboard", picture)
    say(f"{chosen.name} of the {analysis.record['split']} split after {moment}: {analysis.summary}")
    say(f"written to {analysis.path} and {picture.name}")


def _analysed(chosen: AnalysisConfig, subject: Subject) -> Analysis:
    """Analyse a network, and draw the picture unless it exists."""
    analysis = analyse(chosen, subject, say)
    picture = analysis.path.with_suffix(".png")
    if not picture.exists():
        from sam.figures.analysis import draw_analysis  # importing matplotlib takes a second

        with user_errors(f"analysis={chosen.name}"), replaced(picture, "wb") as file:
            draw_analysis(analysis).savefig(file, format="png")
    return analysis


def inspection_during_training(
    config: TrainConfig, directory: pathlib.Path, data: Dataset, network: nn.Module, device: torch.device
) -> Callable[[int], None] | None:
    """Return a function that analyses the network after the epochs in the config; None for no analysis."""
    wanted = config.analysis
    if wanted.name == "none":
        return None

    resolved = resolve(config, device_name=str(device))  # as a single process, since the others wait

    def inspect(epoch: int) -> None:
        if epoch % wanted.every and epoch not in (1, config.epochs):
            return
        subject = Subject(config, directory, data, network, Moment(epoch, 0), resolved)
        try:
            _analysed(wanted, subject)
        except (ConfigError, torch.OutOfMemoryError) as error:  # a failed analysis must not stop the training
            say(f"warning: epoch {epoch} is not analysed: {error}")

    return inspect
