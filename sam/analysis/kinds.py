"""The four analyses: from a config and a network to a result."""

import dataclasses
import itertools
import math
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor, nn

from sam.analysis import hessian, landscape, sharpness
from sam.analysis.compiled_product import compiled_product
from sam.analysis.layers import layer_spectra, num_layers
from sam.analysis.order_cosines import order_cosines
from sam.analysis.sample import SampleLoss
from sam.analysis.subject import Subject, copy_of, tell_cost
from sam.analysis.trajectory import Trajectory, kept_epochs, path_steps, trajectory_of
from sam.build.data import make_train_batches
from sam.build.from_run import trained_network
from sam.build.update import make_update
from sam.config.analysis import AnalysisConfig
from sam.config.optimizer import OptimizerConfig
from sam.record.analyses import read_analyses, read_arrays
from sam.record.directory import read_config
from sam.system.errors import ConfigError
from sam.system.files import replaced
from sam.system.foreign_files import check_arrays
from sam.training.update import Update

Tell: TypeAlias = Callable[[str], None]


def _sharpness(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, arrays: pathlib.Path, tell: Tell
) -> dict[str, Any]:
    cost = sharpness.num_image_passes(len(sample), chosen.m, chosen.ascent_steps)
    tell_cost("sharpness", cost, sample, tell)
    rows = sharpness.measure_sharpness(
        sample, chosen.rho, chosen.m, chosen.ascent_steps, chosen.ascent_step_size, adaptive=chosen.adaptive
    )
    not_finite = sum(not math.isfinite(row.loss_rise) for row in rows)
    return {"rows": [dataclasses.asdict(row) for row in rows], "not_finite": not_finite}


def _hessian(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, arrays: pathlib.Path, tell: Tell
) -> dict[str, Any]:
    # A product with the Hessian takes about two forward-backward passes.
    products = hessian.num_products(chosen.top, chosen.steps, chosen.probes)
    if chosen.per_layer:
        products += num_layers(sample) * hessian.num_products(1, 1, chosen.probes)
    vectors = hessian.basis_bytes(sample, chosen.steps) / 1e9
    note = f"; up to {vectors:,.1f} GB for vectors"
    tell_cost("hessian, at most", 2 * products * len(sample), sample, tell, note)
    compiled = compiled_product(sample, tell) if subject.config.runtime.compile else None
    spectrum = hessian.hessian_spectrum(
        sample,
        top=chosen.top,
        steps=chosen.steps,
        probes=chosen.probes,
        seed=chosen.seed,
        compiled=compiled,
    )
    kept = {"eigenvectors": spectrum.eigenvectors.cpu().numpy()} if chosen.save_vectors else {}
    _write_arrays(arrays, nodes=spectrum.nodes, weights=spectrum.weights, **kept)
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
        "compiled": compiled is not None,
        **_by_layer(chosen, sample),
    }


def _by_layer(chosen: AnalysisConfig, sample: SampleLoss) -> dict[str, Any]:
    if not chosen.per_layer:
        return {}
    # Eager: the weights of each layer would need a product of their own, and a compilation takes too long.
    layers = layer_spectra(sample, probes=chosen.probes, seed=chosen.seed)
    return {"layers": [dataclasses.asdict(layer) for layer in layers]}


def _landscape(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, arrays: pathlib.Path, tell: Tell
) -> dict[str, Any]:
    other = _other_network(chosen, subject, sample)
    path = trajectory_of(subject, sample, chosen.dimensions) if chosen.directions == "trajectory" else None
    if path is None:
        directions = _directions(chosen, subject, sample, chosen.dimensions - (other is not None))
    else:
        directions = path.directions
    surface = _begun_surface(arrays) or _empty_surface(chosen, path)
    tell_cost("landscape", landscape.num_image_passes(len(sample), surface), sample, tell)

    def save() -> None:
        more = {} if surface.steps_2 is None else {"steps_2": surface.steps_2}
        more |= {} if path is None else {"path": path.coordinates}
        _write_arrays(arrays, steps_1=surface.steps_1, **more, loss=surface.loss, error_pct=surface.error_pct)

    try:
        landscape.fill_surface(sample, surface, directions, other, save)
    finally:
        save()  # also after Ctrl-C: the analysis continues from it
    finite = surface.loss[numpy.isfinite(surface.loss)]
    # The loss of the sample at w, which is a point of the grid.
    return {
        "loss_at_centre": sample.measure()[0],
        "lowest": float(finite.min(initial=numpy.inf)),
        "highest": float(finite.max(initial=-numpy.inf)),
        "points": surface.loss.size,
        "not_finite": surface.loss.size - finite.size,
        **({} if path is None else _path(path, subject)),
    }


def _path(path: Trajectory, subject: Subject) -> dict[str, Any]:
    """Return the path of a run as it stands in the JSON file."""
    epochs = [*kept_epochs(subject), subject.moment.epoch]
    points = [
        {"epoch": epoch, "coordinates": row}
        for epoch, row in zip(epochs, path.coordinates.tolist(), strict=True)
    ]
    return {"explained_pct": path.explained_pct, "path": points}


def _empty_surface(chosen: AnalysisConfig, path: Trajectory | None) -> landscape.Surface:
    if path is not None:
        return landscape.empty_surface(
            *(path_steps(along, chosen.span, chosen.points) for along in path.coordinates.T)
        )
    first = landscape.steps_between if chosen.directions == "run" else landscape.symmetric_steps
    second = landscape.symmetric_steps(chosen.span, chosen.points) if chosen.dimensions == 2 else None
    return landscape.empty_surface(first(chosen.span, chosen.points), second)


def _begun_surface(arrays: pathlib.Path) -> landscape.Surface | None:
    """Return the surface of an interrupted analysis; None if there is no file, or it cannot be read."""
    try:
        check_arrays(arrays, arrays.stat().st_size)
        with numpy.load(arrays, allow_pickle=False) as file:
            second = file["steps_2"] if "steps_2" in file else None
            return landscape.Surface(file["steps_1"], second, file["loss"], file["error_pct"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _directions(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, number: int
) -> list[list[Tensor]]:
    """Return the directions of the landscape's axes, `number` of them."""
    if chosen.directions != "eigenvectors":
        return landscape.random_directions(sample.weights, number, chosen.seed)
    found = [
        analysis
        for analysis in read_analyses(subject.directory, "hessian")[0]
        if analysis.settings.get("save_vectors")
        and (analysis.epoch, analysis.record.get("step")) == subject.moment
        and all(analysis.record.get(key) == getattr(chosen, key) for key in ("split", "statistics"))
    ]
    if not found:
        raise ConfigError(
            f"analysis.directions=eigenvectors: {subject.directory} has none of this moment, split and "
            f"statistics; first run python evaluate.py run={subject.directory} analysis=hessian "
            "analysis.save_vectors=true"
        )
    (vectors,) = read_arrays(found[-1], "eigenvectors")
    if len(vectors) < number:
        raise ConfigError(f"analysis.dimensions={number}: {found[-1].arrays} has {len(vectors)} eigenvector")
    return landscape.eigenvector_directions(sample.weights, torch.from_numpy(vectors[:number]))


def _other_network(chosen: AnalysisConfig, subject: Subject, sample: SampleLoss) -> nn.Module | None:
    if chosen.other is None:
        return None
    directory = pathlib.Path(chosen.other).expanduser()
    config = read_config(directory, "analysis.other")
    network, _ = trained_network(config, subject.data, directory, subject.device)
    return network.to(sample.images.dtype)


def _second_order(
    chosen: AnalysisConfig, subject: Subject, sample: SampleLoss, arrays: pathlib.Path, tell: Tell
) -> dict[str, Any]:
    config = subject.config
    variants = {"rule": "sam", "adaptive": False, "p": 2.0, "direction": "gradient"}
    for key, plain_value in variants.items() if config.optimizer.name == "sam" else ():
        if getattr(config.optimizer, key) != plain_value:
            raise ConfigError(
                f"analysis=second_order: this run has optimizer.{key}={getattr(config.optimizer, key)}, and "
                "the second-order term is defined for rule=sam, adaptive=false, p=2 and direction=gradient "
                "(Eq. 3); use a run with these values"
            )
    # SAM with the run's own rho, but without the options that make it cheaper or different.
    kept = ("lr", "momentum", "nesterov", "weight_decay", "weight_decay_in", "rho", "true_gradient", "replay")
    plain = {key: getattr(config.optimizer, key) for key in kept}
    resolved = dataclasses.replace(subject.resolved, precision="fp32", workers=0, graph="false")
    network = copy_of(subject.network).train()
    tell_cost("second_order", 6 * chosen.num_batches * config.batch_size, sample, tell)

    def update(second_order: bool) -> Update:
        optimizer = OptimizerConfig(name="sam", second_order=second_order, **plain)
        return make_update(
            optimizer, network, network, resolved, num_steps=1, label_smoothing=config.label_smoothing
        )

    batches = make_train_batches(config, subject.data, resolved)
    coming = itertools.islice(batches.epoch(subject.moment.epoch), chosen.num_batches)
    cosines = order_cosines(
        (update(False), update(True)), list(network.parameters()), ((i, t) for i, t, _ in coming)
    )
    finite = [cosine for cosine in cosines if math.isfinite(cosine)]
    return {
        "cosines": cosines,
        "mean": float(numpy.mean(finite)) if finite else None,
        "standard_deviation": float(numpy.std(finite, ddof=1)) if len(finite) > 1 else None,
        "not_finite": len(cosines) - len(finite),
    }


def _write_arrays(path: pathlib.Path, /, **arrays: Any) -> None:
    """Write a file of arrays atomically: a reader sees either the old file or the complete new one."""
    with replaced(path, "wb") as file:
        numpy.savez(file, **arrays)


ANALYSES = {
    "sharpness": _sharpness,
    "hessian": _hessian,
    "landscape": _landscape,
    "second_order": _second_order,
}
