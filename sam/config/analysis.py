"""The schema of an analysis: what is looked at around the weights of a network, and how closely."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from sam.config.setting import setting


def look(default: Any, **rules: Any) -> Any:
    """Declare one key that only looks, and so decides nothing of a run's numbers."""
    return setting(default, science=False, **rules)


@dataclasses.dataclass
class AnalysisConfig:
    """An analysis of a run by evaluate.py, or of the network that train.py is training."""

    # sharpness: rise of the loss in a ball (m-sharpness); hessian: largest eigenvalues, trace and density;
    # landscape: the loss along one or two directions; second_order: cosine between the updates of SAM with
    # and without the term that it drops.
    name: str = look("none", choices=("none", "sharpness", "hessian", "landscape", "second_order"))
    # train.py: look after the first epoch, after every so many, and after the last; evaluate.py: not read.
    every: int = look(10, at_least=1)
    # Images of the training split with the labels they are trained on, without augmentation, or of the test
    # split; so many of them, classes in equal shares; null means all.
    split: str = look("train", choices=("train", "test"))
    num_images: int | None = look(1000, at_least=1)
    # Images of one pass, which bound the memory.
    chunk_size: int = look(100, at_least=1)
    # Batch norm: evaluation uses the running statistics; batch those of each pass, as training does.
    statistics: str = look("evaluation", choices=("evaluation", "batch"))
    dtype: str = look("float32", choices=("float32", "float64"))
    # Of probes, random directions and the like.
    seed: int = look(0, at_least=0, at_most=2**31 - 1)
    # sharpness: radius of the ball, in weight units; of ASAM's ball with adaptive. (second_order takes the
    # rho of the run.)
    rho: float = look(0.05, at_least=0)
    adaptive: bool = look(False)
    # sharpness: images that share one perturbation; all of the sample together are always measured too.
    m: list[int] = look([1, 4, 16, 64, 256], at_least=1)
    # sharpness: ascent steps; one is SAM's own. Those after the first have this length, in units of rho.
    ascent_steps: list[int] = look([1], at_least=1)
    ascent_step_size: float = look(1.0, above=0)
    # hessian: so many of the largest eigenvalues; Lanczos steps and random probes of density and trace.
    top: int = look(5, at_least=1)
    steps: int = look(90, at_least=2)
    probes: int = look(3, at_least=1)
    # hessian: keep the eigenvectors, top times as large as the network, for landscape.
    save_vectors: bool = look(False)
    # landscape: filter-normalised random directions, the eigenvectors that hessian kept, or the way to
    # another run.
    directions: str = look("random", choices=("random", "eigenvectors", "run"))
    other: str | None = look(None)
    dimensions: int = look(2, at_least=1, at_most=2)
    # landscape: the weights move by up to so many times their own size to either side (towards another run:
    # from about half of that before this one to as much behind that one), over so many points in each
    # dimension.
    span: float = look(1.0, above=0)
    points: int = look(25, at_least=3, at_most=1001)
    # second_order: so many training batches, those that the next epoch would begin with.
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
