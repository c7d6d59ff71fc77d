"""Evaluate ended or interrupted runs, or analyse them: python evaluate.py run=RUN_DIRECTORY [analysis=NAME].

Without an analysis, prints loss, top-1, top-5 and per-class error and the expected calibration error of the
newest checkpoint, and writes them to evaluation-<split>.json in the run directory. An analysis (sharpness,
hessian, landscape, second_order) leaves numbers and a picture in the folder analysis/ there.
"""

import dataclasses
import pathlib
import sys

import hydra
from omegaconf import DictConfig

from sam.config.compose import checked
from sam.config.mistakes import refuses_mistakes, report_mistakes, told_at_once
from sam.config.schema import EvaluateConfig, TrainConfig
from sam.record.directory import read_config, refuse_links
from sam.record.reader import find_runs
from sam.system.errors import ConfigError
from sam.system.files import write_json

# Absolute, so that this module may also be imported, as worker processes and tests do.
CONFIGS = str(pathlib.Path(__file__).resolve().parent / "configs")


@refuses_mistakes(EvaluateConfig)
@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Evaluate or analyse one run, or all below a folder."""
    with told_at_once():
        config = checked(composed, EvaluateConfig)
        found = directories(config.run)
        faults = []
        for directory in found:
            try:
                look_at(directory, config)
            except ConfigError as error:
                no_data = config.root is None and "dataset.download=false" in str(error)
                told = f"{error}; for evaluate.py that is root=FOLDER" if no_data else str(error)
                if len(found) == 1:
                    raise ConfigError(told) from error
                faults.append(f"{directory}: {told}")
        if faults:
            raise ConfigError("\n".join([f"{len(faults)} of {len(found)} runs were left out:", *faults]))


def directories(run: str) -> list[pathlib.Path]:
    """Return the run directory that is named, or those below the folder that is."""
    if not run:
        raise ConfigError("run is empty; name a run directory: python evaluate.py run=outputs/...")
    named = pathlib.Path(run)
    runs, problems = find_runs([named])
    for problem in problems if runs else []:  # one run that is damaged says so when it is read
        print(f"warning: {problem.path}: {problem.reason}", file=sys.stderr)
    return [found.directory for found in runs] or [named]


def look_at(directory: pathlib.Path, config: EvaluateConfig) -> None:
    """Evaluate or analyse one run."""
    training = read_config(directory)
    refuse_links(directory)
    if config.root is not None:
        training.dataset.root = config.root
    else:
        # Nothing is fetched into a folder that only the run names: it may come from elsewhere.
        training.dataset.download = False
    if config.analysis.name == "none":
        evaluate(directory, training, config)
        return
    from sam.run.inspection import analyse_run

    print(directory)
    analyse_run(training, directory, config.analysis, config.device)


def evaluate(directory: pathlib.Path, training: TrainConfig, config: EvaluateConfig) -> None:
    """Evaluate, print, write."""
    from sam.run.evaluation import evaluate_run

    moment, class_names, evaluation = evaluate_run(training, directory, config.split, config.device)
    held_out = config.split == "test" and training.dataset.validation != "none"
    split = "validation" if held_out else config.split
    print(f"{directory}\n{split} split, {evaluation.num_images} images, after {moment}")
    for label, value in (
        ("loss", f"{evaluation.loss:.4f}"),
        ("top-1 error", f"{evaluation.error_pct:.2f} %"),
        ("top-5 error", f"{evaluation.top5_error_pct:.2f} %"),
        ("calibration error", f"{evaluation.calibration_error_pct:.2f} %"),
        *((f"  {n}", f"{e:.2f} %") for n, e in zip(class_names, evaluation.class_error_pct, strict=True)),
    ):
        print(f"{label:<24}{value:>10}")
    path = directory / f"evaluation-{split}.json"
    record = {"split": split, "after": moment, "class_names": class_names}
    write_json(path, record | dataclasses.asdict(evaluation))
    print(f"written to {path}")


if __name__ == "__main__":
    report_mistakes(main)
