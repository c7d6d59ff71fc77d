"""One analysis of a run: from the config to the numbers and arrays in the run's directory.

The files are <run>/analysis/<name>-epoch<k>-<8 hex digits of the settings>.json, and .npz for hessian and
landscape. An existing result is not measured again. An interrupted landscape continues.
"""

import hashlib
import json
import pathlib
import time
from typing import Any

from sam.analysis.kinds import ANALYSES, Tell
from sam.analysis.subject import Subject, sample_of
from sam.analysis.trajectory import kept_epochs
from sam.config.analysis import AnalysisConfig
from sam.record.analyses import Analysis, read_analysis
from sam.record.reader import find_runs
from sam.system.errors import user_errors
from sam.system.files import write_json
from sam.system.machine import environment
from sam.training.precision import float32_products
from sam.training.random_state import RandomState

# Keys that decide the numbers of each analysis.
COMMON_KEYS = ("split", "num_images", "chunk_size", "statistics", "dtype")
KEYS = {
    "sharpness": ("rho", "adaptive", "m", "ascent_steps", "ascent_step_size"),
    "hessian": ("top", "steps", "probes", "seed", "save_vectors"),
    "landscape": ("directions", "other", "dimensions", "span", "points", "seed"),
    "second_order": ("num_batches",),
}


def analyse(chosen: AnalysisConfig, subject: Subject, tell: Tell) -> Analysis:
    """Analyse a network and write the result, unless it exists already.

    The network, the random state and the running statistics are left unchanged. Passes use no autocast.

    Args:
        chosen: The analysis section of the config; its name is not none.
        subject: The network and its run.
        tell: Called with a cost estimate before the work starts.

    Raises:
        ConfigError: If the analysis is impossible for this network or these files.
    """
    path = path_of_analysis(chosen, subject)
    with user_errors(f"analysis={chosen.name}"):
        try:
            return read_analysis(path)
        except (OSError, ValueError):  # the file is missing or damaged
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, _measured(chosen, subject, path, tell))
            return read_analysis(path)


def _measured(chosen: AnalysisConfig, subject: Subject, path: pathlib.Path, tell: Tell) -> dict[str, Any]:
    """Run the analysis and return the contents of its JSON file."""
    draws = RandomState(subject.device)
    started = time.monotonic()
    try:
        with float32_products("fp32"):  # not tf32, whatever the run trains with
            sample = sample_of(chosen, subject)
            loss, error_pct = sample.measure()
            result = ANALYSES[chosen.name](chosen, subject, sample, path.with_suffix(".npz"), tell)
    finally:
        draws.restore()
    held_out = chosen.split == "test" and subject.config.dataset.validation != "none"
    return {
        "analysis": chosen.name,
        **subject.moment._asdict(),
        **{key: getattr(chosen, key) for key in COMMON_KEYS},
        "split": "validation" if held_out else chosen.split,
        "num_images": len(sample),
        "settings": {key: getattr(chosen, key) for key in _keys(chosen)},
        "seconds": round(time.monotonic() - started, 2),
        **environment(subject.device),
        "loss": loss,
        "error_pct": error_pct,
        "result": result,
    }


def path_of_analysis(chosen: AnalysisConfig, subject: Subject) -> pathlib.Path:
    """Return the path of an analysis's JSON file: one for each moment and each choice of settings."""
    keys = [*COMMON_KEYS, *_keys(chosen)]
    if chosen.statistics == "evaluation":
        keys.remove("chunk_size")  # it then changes the memory only, not the numbers
    asked = {key: getattr(chosen, key) for key in keys}
    if chosen.name == "landscape" and chosen.other is not None:
        asked["other_epoch"] = _last_epoch(pathlib.Path(chosen.other).expanduser())
    if chosen.name == "landscape" and chosen.directions == "trajectory":
        asked["kept_epochs"] = kept_epochs(subject)
    text = json.dumps(asked, sort_keys=True)
    moment = f"epoch{subject.moment.epoch}" + (f"step{subject.moment.step}" if subject.moment.step else "")
    name = f"{chosen.name}-{moment}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    return subject.directory / "analysis" / name


def _keys(chosen: AnalysisConfig) -> tuple[str, ...]:
    """Return the keys of an analysis; without per_layer=false, which older files do not know."""
    per_layer = ("per_layer",) if chosen.name == "hessian" and chosen.per_layer else ()
    return (*KEYS[chosen.name], *per_layer)


def _last_epoch(directory: pathlib.Path) -> int | None:
    """Return the last epoch of another run, which may still continue; None if there is no such run."""
    runs, _ = find_runs([directory])
    return runs[0].last_epoch if runs else None
