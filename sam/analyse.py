"""One analysis of a run: from what the config asks for to numbers, arrays and a picture in its directory.

<run>/analysis/<name>-epoch<k>-<8 hex of what was asked for>.json, .npz (hessian, landscape) and .png. What is
there is not done again, and a surface that was interrupted goes on.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import statistics
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor, nn

from sam import build, build_data
from sam.analysis import hessian, landscape, sharpness
from sam.analysis.sample import SampleLoss
from sam.analysis_config import AnalysisConfig
from sam.config import ConfigError, OptimizerConfig, TrainConfig, user_errors
from sam.logs.console import say
from sam.logs.tensorboard import append_picture
from sam.report.analyses import Analysis, read_analyses, read_analysis
from sam.result import environment
from sam.run_directory import read_config, write_json
from sam.subject import Subject, copy_of, sample_of, tell_cost
from sam.trained import dataset_as_trained, trained_network
from sam.training.distributed import World
from sam.training.order_cosines import order_cosines
from sam.training.precision import Precision
from sam.training.random_state import RandomState
from sam.training.update import Update

Say: TypeAlias = Callable[[str], None]
# Keys that decide the numbers of each analysis.
COMMON_KEYS = ("split", "num_images", "chunk_size", "statistics", "dtype")
KEYS = {
    "sharpness": ("rho", "adaptive", "m", "ascent_steps", "ascent_step_size"),
    "hessian": ("top", "steps", "probes", "seed", "save_vectors"),
    "landscape": ("directions", "other", "dimensions", "span", "points", "seed"),
    "second_order": ("num_batches",),
}


def analyse_run(
    config: TrainConfig, directory: pathlib.Path, chosen: AnalysisConfig, device_name: str
) -> None:
    """Analyse the newest checkpoint of a run, and say what comes out."""
    device = build.device(device_name, key="device")
    data = dataset_as_trained(config, directory)
    network, moment = trained_network(config, data, directory, device)
    analysis = analyse(chosen, Subject(config, directory, data, network, moment, device), say)
    picture = analysis.path.with_suffix(".png")
    append_picture(directory / "tensorboard", picture)
    say(f"{chosen.name} after {moment}: {analysis.summary}")
    say(f"written to {analysis.path} and {picture.name}")


def analyse(chosen: AnalysisConfig, subject: Subject, say: Say) -> Analysis:
    """Analyse a network and write what comes out, unless that is there already.

    The network, its random draws and its statistics stay as they are. Passes are made without autocast.

    Args:
        chosen: What is asked for; its name is not none.
        subject: The network and its run.
        say: Hears, before the work begins, how long it will take.

    Raises:
        ConfigError: If the analysis is impossible for this network or these files.
    """
    path = path_of_analysis(chosen, subject)
    if path.exists():
        with suppress(ValueError):  # a damaged file is made anew
            return read_analysis(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = RandomState(subject.device)
    Precision("fp32", subject.device)  # not tf32, whatever the run trained with
    started = time.monotonic()
    try:
        with user_errors(f"analysis={chosen.name}"):
            sample = sample_of(chosen, subject)
            loss, error_pct = sample.measure()
            result = ANALYSES[chosen.name](chosen, subject, sample, path.with_suffix(".npz"), say)
    finally:
        draws.restore()
        Precision(subject.config.runtime.precision, subject.device)
    record = {
        "analysis": chosen.name,
        **subject.moment._asdict(),
        **{key: getattr(chosen, key) for key in COMMON_KEYS},
        "num_images": len(sample),
        "settings": {key: getattr(chosen, key) for key in KEYS[chosen.name]},
        "seconds": round(time.monotonic() - started, 2),
        **environment(subject.device),
        "loss": loss,
        "error_pct": error_pct,
        "result": result,
    }
    analysis = Analysis(path, record)
    _draw(analysis)
    write_json(path, record)  # last: its presence means that all is there
    return analysis


def path_of_analysis(chosen: AnalysisConfig, subject: Subject) -> pathlib.Path:
    """Return where the numbers of an analysis lie: one place for each moment and each set of wishes."""
    keys = [*COMMON_KEYS, *KEYS[chosen.name]]
    if chosen.statistics == "evaluation":
        keys.remove("chunk_size")  # it then decides nothing but the memory
    text = json.dumps({key: getattr(chosen, key) for key in keys}, sort_keys=True)
    moment = f"epoch{subject.moment.epoch}" + (f"step{subject.moment.step}" if subject.moment.step else "")
    name = f"{chosen.name}-{moment}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    return subject.directory / "analysis" / name


def _sharpness(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, arrays: pathlib.Path, say: Say
) -> dict[str, Any]:
    cost = sharpness.num_image_passes(len(sample), chosen.m, chosen.ascent_steps)
    tell_cost("sharpness", cost, sample, say)
    rows = sharpness.measure_sharpness(
        sample, chosen.rho, chosen.m, chosen.ascent_steps, chosen.ascent_step_size, adaptive=chosen.adaptive
    )
    return {"rows": [dataclasses.asdict(row) for row in rows]}


def _hessian(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, arrays: pathlib.Path, say: Say
) -> dict[str, Any]:
    # A product with the Hessian takes about two forward-backward passes.
    products = hessian.num_products(chosen.top, chosen.steps, chosen.probes)
    tell_cost("hessian, at most", 2 * products * len(sample), sample, say)
    spectrum = hessian.hessian_spectrum(
        sample, top=chosen.top, steps=chosen.steps, probes=chosen.probes, seed=chosen.seed
    )
    vectors = {"eigenvectors": spectrum.eigenvectors.cpu().numpy()} if chosen.save_vectors else {}
    _write_arrays(arrays, nodes=spectrum.nodes, weights=spectrum.weights, **vectors)
    largest = spectrum.eigenvalues
    return {
        "eigenvalues": largest,
        "residuals": spectrum.residuals,
        "smallest": spectrum.smallest,
        "lambda_max": largest[0],
        "lambda_max_over_5": largest[0] / largest[4] if len(largest) > 4 and largest[4] else None,
        "trace": spectrum.trace,
        "trace_standard_error": spectrum.trace_standard_error,
        "num_parameters": sum(weight.numel() for weight in sample.weights),
        "num_products": spectrum.num_products,
    }


def _landscape(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, arrays: pathlib.Path, say: Say
) -> dict[str, Any]:
    other = _other_network(chosen, subject, sample)
    directions = _directions(chosen, subject, sample, chosen.dimensions - (other is not None))
    surface = _begun_surface(arrays) or _empty_surface(chosen)
    tell_cost("landscape", landscape.num_image_passes(len(sample), surface), sample, say)

    def save() -> None:
        second = {} if surface.steps_2 is None else {"steps_2": surface.steps_2}
        _write_arrays(
            arrays, steps_1=surface.steps_1, **second, loss=surface.loss, error_pct=surface.error_pct
        )

    try:
        landscape.fill_surface(sample, surface, directions, other, save)
    finally:
        save()  # what was measured before Ctrl-C, too
    finite = surface.loss[numpy.isfinite(surface.loss)]
    # The loss of the sample at w, which is a point of the grid.
    return {
        "loss_at_centre": sample.measure()[0],
        "lowest": float(finite.min()),
        "highest": float(finite.max()),
    }


def _empty_surface(chosen: AnalysisConfig) -> landscape.Surface:
    first = landscape.steps_between if chosen.directions == "run" else landscape.symmetric_steps
    second = landscape.symmetric_steps(chosen.span, chosen.points) if chosen.dimensions == 2 else None
    return landscape.empty_surface(first(chosen.span, chosen.points), second)


def _begun_surface(arrays: pathlib.Path) -> landscape.Surface | None:
    """Return what an interrupted analysis has left; None if there is nothing, or it cannot be read."""
    try:
        with numpy.load(arrays, allow_pickle=False) as file:
            second = file["steps_2"] if "steps_2" in file else None
            return landscape.Surface(file["steps_1"], second, file["loss"], file["error_pct"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _directions(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, number: int
) -> list[list[Tensor]]:
    """Return so many directions to look along."""
    if chosen.directions != "eigenvectors":
        return landscape.random_directions(sample.weights, number, chosen.seed)
    found = [
        analysis
        for analysis in read_analyses(subject.directory, "hessian")[0]
        if analysis.settings.get("save_vectors")
        and (analysis.epoch, analysis.record.get("step")) == subject.moment
    ]
    if not found:
        raise ConfigError(
            f"analysis.directions=eigenvectors: {subject.directory} has none of this moment; first run "
            f"python evaluate.py run={subject.directory} analysis=hessian analysis.save_vectors=true"
        )
    with numpy.load(found[-1].arrays, allow_pickle=False) as file:
        vectors = torch.from_numpy(file["eigenvectors"])
    if len(vectors) < number:
        raise ConfigError(f"analysis.dimensions={number}: {found[-1].arrays} has {len(vectors)} eigenvector")
    return landscape.eigenvector_directions(sample.weights, vectors[:number])


def _other_network(chosen: AnalysisConfig, subject: Subject, sample: SampleLoss) -> nn.Module | None:
    if chosen.other is None:
        return None
    directory = pathlib.Path(chosen.other).expanduser()
    config = read_config(directory, "analysis.other")
    network, _ = trained_network(config, subject.data, directory, subject.device)
    return network.to(sample.images.dtype)


def _second_order(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, arrays: pathlib.Path, say: Say
) -> dict[str, Any]:
    config = subject.config
    # SAM with the run's own rho, and nothing else of what makes it cheaper or different.
    kept = ("lr", "momentum", "nesterov", "weight_decay", "weight_decay_in", "rho", "true_gradient", "replay")
    plain = {key: getattr(config.optimizer, key) for key in kept}
    runtime = dataclasses.replace(config.runtime, precision="fp32", workers=0)
    network = copy_of(subject.network).train()
    m = build_data.micro_batch_size(config, World())
    tell_cost("second_order", 6 * chosen.num_batches * config.batch_size, sample, say)

    def update(second_order: bool) -> Update:
        optimizer = OptimizerConfig(name="sam", second_order=second_order, **plain)
        wanted = dataclasses.replace(config, optimizer=optimizer, runtime=runtime)
        precision = Precision("fp32", subject.device)
        return build.update(wanted, network, network, precision, m=m, num_steps=1)

    batches = build_data.train_batches(
        dataclasses.replace(config, runtime=runtime), subject.data, subject.device, World()
    )
    coming = itertools.islice(batches.epoch(subject.moment.epoch), chosen.num_batches)
    cosines = order_cosines(
        (update(False), update(True)), list(network.parameters()), ((i, t) for i, t, _ in coming)
    )
    spread = statistics.stdev(cosines) if len(cosines) > 1 else None
    return {"cosines": cosines, "mean": statistics.fmean(cosines), "standard_deviation": spread}


def _write_arrays(path: pathlib.Path, **arrays: Any) -> None:
    """Write a file of arrays so that whoever looks sees all of it or the one before."""
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "wb") as file:
        numpy.savez(file, **arrays)
    os.replace(unfinished, path)


def _draw(analysis: Analysis) -> None:
    from sam.figures.analysis import draw_analysis  # matplotlib takes a second

    draw_analysis(analysis).savefig(analysis.path.with_suffix(".png"), format="png")


ANALYSES = {
    "sharpness": _sharpness,
    "hessian": _hessian,
    "landscape": _landscape,
    "second_order": _second_order,
}
