"""Lives of a small real run: each in a child that is forked from here, where everything is imported already.

A life goes through what train.py does with a checked config: skip or train, one message, an exit code. Before
it begins, a sabotage may be done to the child alone.
"""

import csv
import os
import pathlib
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import torch

import sam.build.from_run  # noqa: F401
import sam.run.worker  # noqa: F401
import train as train_script
from sam.config.mistakes import report_mistakes
from sam.config.schema import EvaluateConfig, TrainConfig
from sam.record.directory import read_result
from sam.run.evaluation import evaluate_or_analyse
from sam.training.rows import Rows

KINDS = ("sam", "sgd", "noisy")
# What a part of torch says of itself where no file can be opened; it then does without.
BY_TORCH = ("Error in cpuinfo: ",)
FILES = (
    "labels.npz",
    "config.yaml",
    "metrics.csv",
    "events.out",
    "tensorboard'",
    "checkpoint.unfinished.pt",
    "checkpoint.pt",
    "result.json",
    "analysis",
    ".lock",
    "METADATA",
    "/dev/null",
)
# What may differ between two lives of the same bits: times, and git, which knows no strange user.
TIMES = ("seconds", "images_per_second", "peak_memory_mib", "ended_at", "commit", "checksums")
"".encode("cp437")  # zipfile's, which a child that is not root may not load


@dataclass
class Ending:
    """How a life ended: exit code (minus the signal's number), what it printed, what a sabotage noted."""

    code: int
    out: str
    err: str
    notes: str

    @property
    def is_clear(self) -> bool:
        """Whether it ended with a documented code and, where something was wrong, one message and no more."""
        lines = self.err.splitlines()
        errors = sum(line.startswith("error: ") for line in lines)
        others = [line for line in lines if not line.startswith(("error: ", "warning: ", *BY_TORCH))]
        expected = {0: 0, 2: 1, 130: 0, 143: 0, -signal.SIGKILL: 0}.get(self.code)
        return errors == expected and not others

    @property
    def files(self) -> list[str]:
        """The kinds of files and folders that its messages name, each with its exit code."""
        told = self.err + self.out.partition("warning")[2]
        kinds = [kind for kind in FILES if kind in told] or ["no file" if told else "no message"]
        return [f"{kind} -> {self.code}" for kind in kinds]


@dataclass
class Tally:
    """One row of the campaign's table."""

    case: str
    tries: int = 0
    lost: int = 0
    unequal: int = 0
    unclear: int = 0
    worst: str = ""
    codes: Counter[int] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def see(self, ending: Ending, label: object) -> None:
        """Count an ending, and keep the worst that was said: an unclear one, else the longest."""
        self.codes[ending.code] += 1
        if not ending.is_clear:
            self.unclear += 1
            self.faults.append(f"{label}: unclear, exit code {ending.code}: {ending.err}")
        if ending.code != -signal.SIGKILL:
            self.worst = max(
                self.worst, ending.err.strip(), key=lambda text: ("Traceback" in text, len(text))
            )

    def judge(self, label: object, *, kept: bool, equal: bool) -> None:
        """Count what became of a run: whether it was kept, and if so, whether its bits are right."""
        self.tries += 1
        self.lost += not kept
        self.unequal += kept and not equal
        if not (kept and equal):
            self.faults.append(f"{label}: {'unequal' if kept else 'lost'}")


def config_for(outputs: pathlib.Path, kind: str) -> TrainConfig:
    """Return a run of 12 updates that saves after each of them; a noisy one has labels.npz."""
    config = TrainConfig(epochs=3, batch_size=8, m=4, outputs=str(outputs))
    config.dataset.name = config.dataset.reader = "synthetic"
    config.dataset.num_train, config.dataset.num_test = 32, 16
    config.dataset.image_size, config.dataset.num_classes = 12, 4
    config.dataset.label_noise = 0.5 if kind == "noisy" else 0.0
    config.augmentation.flip, config.augmentation.crop_padding = True, 2
    config.augmentation.name = "basic"
    config.model.width = 4
    config.optimizer.name = "sgd" if kind == "sgd" else "sam"
    config.runtime.checkpoint_minutes = 1e-9
    config.runtime.threads = 1
    return config


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def note(text: str) -> None:
    """Leave word for the campaign, from inside of a life."""
    with open(os.environ["FAULT_NOTES"], "a") as file:
        file.write(text + "\n")


def live(
    config: TrainConfig,
    folder: pathlib.Path,
    sabotage: Callable[[], None] | None = None,
    kill_after: float | None = None,
) -> Ending:
    """Train, or skip, once.

    Args:
        config: Of the run.
        folder: For what is printed; not where a sabotage strikes.
        sabotage: Done in the child before it begins.
        kill_after: Seconds to a SIGKILL from outside.
    """
    return wait(begin(lambda: train_script.train(config), folder, sabotage), folder, kill_after)


def evaluate(directory: pathlib.Path, split: str, folder: pathlib.Path) -> Ending:
    """Evaluate a run once, as evaluate.py does."""
    config = EvaluateConfig(run=str(directory), split=split)
    return wait(begin(lambda: evaluate_or_analyse(directory, config), folder), folder)


def begin(
    main: Callable[[], None],
    folder: pathlib.Path,
    sabotage: Callable[[], None] | None = None,
    name: str = "life",
) -> int:
    """Fork a child that does this and no more; return its process id."""
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    for descriptor, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    code = 1
    try:
        os.environ["FAULT_NOTES"] = str(folder / f"{name}.notes")
        sys.argv = ["train.py"]
        train_script.command = lambda: "python train.py"
        if sabotage is not None:
            sabotage()
        report_mistakes(main)
        code = 0
    except SystemExit as ending_:
        code = int(ending_.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, folder: pathlib.Path, kill_after: float | None = None, name: str = "life") -> Ending:
    """Wait for a child to end, or kill it."""
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = []
    for ending in ("out", "err", "notes"):
        path = folder / f"{name}.{ending}"
        said.append(path.read_text() if path.exists() else "")
        path.unlink(missing_ok=True)
    return Ending(os.waitstatus_to_exitcode(status), *said)


def outcome(directory: pathlib.Path) -> object:
    """Return all that must be equal: weights, optimizer, random state, rows and metrics without times."""
    state = torch.load(directory / "checkpoint.pt", weights_only=True)
    del state["progress"]["total_seconds"]
    saved = list(Rows(**state["progress"].pop("rows")))
    with open(directory / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    result = read_result(directory) or {"config": {"outputs": ""}}
    del result["config"]["outputs"]  # each life has a folder of its own
    return [state, *map(without_times, [*saved, *rows, result])]


def without_times(record: dict[str, object]) -> dict[str, object]:
    """Return what does not depend on the clock."""
    return {key: value for key, value in record.items() if key not in TIMES}


def equal(one: object, other: object) -> bool:
    """Compare nested values, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(equal(one[key], other[key]) for key in one)
        )
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(equal, one, other))
    return one == other


def ended_as(directory: pathlib.Path, expected: object) -> bool:
    """Return whether a run ended with the bits of an undisturbed one."""
    try:
        return equal(outcome(directory), expected)
    except (OSError, RuntimeError, ValueError):
        return False


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    """Return the bytes of every file of a run but its evaluations and the lock."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith(("evaluation-", ".lock"))
    }
