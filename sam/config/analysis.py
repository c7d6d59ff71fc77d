"""The schema of an analysis: what is looked at around the weights of a network, and how closely."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from sam.config.runtime import RuntimeConfig
from sam.config.setting import setting


def look(default: Any, **rules: Any) -> Any:
    """Declare one key that only looks, and so decides nothing of a run's numbers."""
    return setting(default, science=False, **rules)


@dataclasses.dataclass
class AnalysisConfig:
    """An analysis of a run by evaluate.py, or of the network that train.py is training."""

    # sharpness: rise of the loss in a ball (m-sharpness). hessian: largest eigenvalues, trace and density.
    # landscape: the loss along one or two directions. second_order: cosine between the updates of SAM with
    # and without the term that it drops.
    name: str = look("none", choices=("none", "sharpness", "hessian", "landscape", "second_order"))
    # train.py: measure after the first epoch, after every such number of epochs, and after the last. Not used
    # by evaluate.py.
    every: int = look(10, at_least=1)
    # train: training images with the labels of the training, without augmentation. test: test images.
    split: str = look("train", choices=("train", "test"))
    # Number of images, with equal shares of the classes. null means all.
    num_images: int | None = look(1000, at_least=1)
    # Images per pass; it bounds the memory.
    chunk_size: int = look(100, at_least=1)
    # Batch norm: evaluation uses the running statistics, batch uses those of each pass, as training does.
    statistics: str = look("evaluation", choices=("evaluation", "batch"))
    # Number format of the passes.
    dtype: str = look("float32", choices=("float32", "float64"))
    # Seed of probes and random directions.
    seed: int = look(0, at_least=0, at_most=2**31 - 1)
    # sharpness: radius of the ball, in weight units. (second_order takes the rho of the run.)
    rho: float = look(0.05, at_least=0)
    # sharpness: use ASAM's ball.
    adaptive: bool = look(False)
    # sharpness: numbers of images that share one perturbation. All images together are always measured too.
    m: list[int] = look([1, 4, 16, 64, 256], at_least=1)
    # sharpness: numbers of ascent steps. 1 is SAM's own ascent.
    ascent_steps: list[int] = look([1], at_least=1)
    # sharpness: length of the steps after the first, in units of rho.
    ascent_step_size: float = look(1.0, above=0)
    # hessian: number of eigenvalues.
    top: int = look(5, at_least=1)
    # hessian: Lanczos steps of the density.
    steps: int = look(90, at_least=2)
    # hessian: random probes of the density and the trace.
    probes: int = look(3, at_least=1)
    # hessian: keep the eigenvectors for landscape. They take top times the size of the network.
    save_vectors: bool = look(False)
    # landscape: random directions with filter normalisation, the eigenvectors that hessian kept, or the line
    # to another run.
    directions: str = look("random", choices=("random", "eigenvectors", "run"))
    # landscape: run directory of the other run, for directions=run.
    other: str | None = look(None)
    # landscape: one or two directions.
    dimensions: int = look(2, at_least=1, at_most=2)
    # landscape: the weights move by up to span times their own size to either side. Towards another run: from
    # about span/2 before this one to as much behind the other.
    span: float = look(1.0, above=0)
    # landscape: number of points in each direction, an odd number.
    points: int = look(25, at_least=3, at_most=1001)
    # second_order: number of training batches, those with which the next epoch would begin.
    num_batches: int = look(8, at_least=1)


def analysis_clashes(analysis: AnalysisConfig) -> Iterator[str]:
    """Yield one message for each set of keys of an analysis that do not go together."""
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
        yield f"analysis.points={analysis.points} leaves out the run itself; choose an odd number"


def schedule_clashes(analysis: AnalysisConfig, runtime: RuntimeConfig) -> Iterator[str]:
    """Yield one message for each key that does not go with an analysis during training."""
    if analysis.name != "none" and runtime.parallel == "fsdp":
        yield (
            f"analysis={analysis.name} needs whole weights during training, but runtime.parallel=fsdp shards "
            "them; analyse the run afterwards: python evaluate.py run=... analysis=..."
        )
    if analysis.name == "landscape" and analysis.directions == "eigenvectors":
        yield (
            "analysis.directions=eigenvectors needs those of an earlier hessian analysis; use evaluate.py "
            "once the run has ended"
        )
