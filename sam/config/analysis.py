"""The keys of an analysis, and which of them cannot be combined."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from sam.config.runtime import RuntimeConfig
from sam.config.setting import setting


def analysis_setting(default: Any, **rules: Any) -> Any:
    """Declare one key of an analysis; it does not change the numbers of the run."""
    return setting(default, science=False, **rules)


@dataclasses.dataclass
class AnalysisConfig:
    """An analysis of a run by evaluate.py, or of the network that train.py is training."""

    # sharpness: rise of the loss in a ball (m-sharpness). hessian: largest eigenvalues, trace and density.
    # landscape: the loss along one or two directions. second_order: cosine between the updates of SAM with
    # and without the term that it drops.
    name: str = analysis_setting(
        "none", choices=("none", "sharpness", "hessian", "landscape", "second_order")
    )
    # train.py: measure after every such number of epochs (10: after epochs 10, 20, ...), and after the first
    # and the last epoch. evaluate.py does not use it.
    every: int = analysis_setting(10, at_least=1)
    # train: training images without augmentation, with the labels that the run trains on. test: test images.
    split: str = analysis_setting("train", choices=("train", "test"))
    # Number of images, with equal shares of the classes. null means all.
    num_images: int | None = analysis_setting(1000, at_least=1)
    # Images per pass. A smaller number needs less memory.
    chunk_size: int = analysis_setting(100, at_least=1)
    # Batch norm: evaluation uses the running statistics, batch uses those of each pass, as training does.
    statistics: str = analysis_setting("evaluation", choices=("evaluation", "batch"))
    # Number format of the passes.
    dtype: str = analysis_setting("float32", choices=("float32", "float64"))
    # Seed of probes and random directions.
    seed: int = analysis_setting(0, at_least=0, at_most=2**31 - 1)
    # sharpness: radius of the ball, in weight units. (second_order takes the rho of the run.)
    rho: float = analysis_setting(0.05, at_least=0)
    # sharpness: use ASAM's ball.
    adaptive: bool = analysis_setting(False)
    # sharpness: numbers of images that share one perturbation. m = all images is always measured too.
    m: list[int] = analysis_setting([1, 4, 16, 64, 256], at_least=1)
    # sharpness: numbers of ascent steps. 1 is the ascent of SAM.
    ascent_steps: list[int] = analysis_setting([1], at_least=1)
    # sharpness: length of the steps after the first, in units of rho.
    ascent_step_size: float = analysis_setting(1.0, above=0)
    # hessian: number of eigenvalues.
    top: int = analysis_setting(5, at_least=1)
    # hessian: Lanczos steps of the density.
    steps: int = analysis_setting(90, at_least=2)
    # hessian: random probes of the density and the trace.
    probes: int = analysis_setting(3, at_least=1)
    # hessian: save the eigenvectors, for landscape. They need top times the disk space of the weights.
    save_vectors: bool = analysis_setting(False)
    # hessian: also measure the largest eigenvalue and the trace of each layer's block of the Hessian.
    per_layer: bool = analysis_setting(False)
    # landscape: random directions with filter normalisation, the eigenvectors that hessian saved, the line to
    # the weights of another run, or the principal components of the path of this run (trajectory), which
    # needs runtime.keep_weights_every in training.
    directions: str = analysis_setting("random", choices=("random", "eigenvectors", "run", "trajectory"))
    # landscape: run directory of the other run, for directions=run.
    other: str | None = analysis_setting(None)
    # landscape: one or two directions.
    dimensions: int = analysis_setting(2, at_least=1, at_most=2)
    # landscape: the coordinates are from -span to span; a coordinate of 1 moves each filter by its own norm.
    # With directions=run, they are from about -span/2 to 1 + span/2; this run is at 0, the other at 1. With
    # directions=trajectory, they are in weight units and go beyond the path by span/2 of its extent.
    span: float = analysis_setting(1.0, above=0)
    # landscape: number of points in each direction, an odd number.
    points: int = analysis_setting(25, at_least=3, at_most=1001)
    # second_order: number of training batches: the first ones of the next epoch.
    num_batches: int = analysis_setting(8, at_least=1)


def analysis_clashes(analysis: AnalysisConfig) -> Iterator[str]:
    """Yield one message for each set of keys of an analysis that cannot be combined."""
    if analysis.adaptive and max(analysis.ascent_steps, default=1) > 1:
        yield f"analysis.adaptive=true needs analysis.ascent_steps=[1], not {analysis.ascent_steps}"
    if analysis.name != "landscape":
        return
    if (analysis.directions == "run") != (analysis.other is not None):
        yield (
            f"analysis.directions={analysis.directions} and analysis.other={analysis.other}: name the other "
            "run with analysis.directions=run, and only there"
        )
    if analysis.points % 2 == 0:
        yield f"analysis.points={analysis.points} leaves out the point of the run; choose an odd number"


def schedule_clashes(analysis: AnalysisConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each key that cannot be combined with an analysis during training."""
    if analysis.name != "none" and runtime.parallel == "fsdp":
        yield (
            f"analysis={analysis.name} needs whole weights during training, but runtime.parallel=fsdp shards "
            "them; analyse the run afterwards: python evaluate.py run=... analysis=..."
        )
    if analysis.name == "landscape" and analysis.directions == "trajectory":
        yield (
            "analysis.directions=trajectory needs the weights of several epochs; set "
            "runtime.keep_weights_every=1, and use evaluate.py after the run has ended"
        )
    if analysis.name == "landscape" and analysis.directions == "eigenvectors":
        yield (
            "analysis.directions=eigenvectors needs the eigenvectors of an earlier hessian analysis; use "
            "evaluate.py after the run has ended"
        )
