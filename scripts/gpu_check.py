"""Checks a GPU: the tests that need one, the same bits, and the speed. bash scripts/gpu_check.sh starts this.

Each part is a process with its own time limit, and the other parts go on if it fails. The printed lines are a
summary; the JSON file has all results. Without a name, all parts run, in the order of their importance:

"""

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import IO, Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # this checkout, whatever is installed

from scripts.benchmarks.gpu_lines import LINES

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOTAL_SECONDS = 465
# On a CPU, nothing is compiled, and all limits are longer.
REHEARSAL, REHEARSAL_FACTOR = {"TORCH_COMPILE_DISABLE": "1"}, 6
LEAST_SECONDS = 10  # a part with less time than this does not start
MOST_LINES, LONGEST_LINE = 16, 200
LOG_CHARACTERS = 4000
CHILD = "--child"
Row = dict[str, Any]


class Part(NamedTuple):
    """A part: where its function is, its time limit, and the modules that it needs."""

    module: str
    function: str
    limit_seconds: int
    needs: tuple[str, ...] = ()


TRAINING = ("torchvision", "timm", "yaml", "tensorboard")
PARTS = {
    "environment": Part("gpu_parts", "environment", 60),
    "tests": Part("gpu_parts", "gpu_tests", 180, ("pytest", "pytest_timeout", *TRAINING)),
    "speed": Part("device_speed", "speed", 190, TRAINING),
    "determinism": Part("whole_runs", "determinism", 70, TRAINING),
    "autoaugment": Part("gpu_parts", "auto_augment", 40, TRAINING),
    "epochs": Part("whole_runs", "epochs", 65, TRAINING),
    "hessian": Part("gpu_parts", "hessian", 60, TRAINING),
    "side_by_side": Part("whole_runs", "side_by_side", 60, TRAINING),
    "kill": Part("gpu_parts", "kill_and_continue", 60, ("hydra", "omegaconf", *TRAINING)),
    "quickstart": Part("gpu_parts", "quickstart", 80, ("hydra", "omegaconf", *TRAINING)),
}
PACKAGES = {"hydra": "hydra-core", "pytest_timeout": "pytest-timeout", "yaml": "pyyaml"}


class PartOutcome(NamedTuple):
    """The result of a part.

    Attributes:
        status: passed, or "failed: " or "skipped: " and the reason.
        seconds: Time of the part.
        rows: Its results, also those before a failure.
        log: The end of its other output, if it failed.
    """

    status: str
    seconds: float = 0.0
    rows: Sequence[Row] = ()
    log: str = ""


def run(name: str, device: str, limit_seconds: float) -> PartOutcome:
    """Run a part in a process of its own, until its end or its limit.

    Args:
        name: The part.
        device: A device of torch.
        limit_seconds: The time that is left for all parts.
    """
    part = PARTS[name]
    if missing := [PACKAGES.get(module, module) for module in part.needs if find_spec(module) is None]:
        return PartOutcome(f"skipped: needs {', '.join(missing)}")
    limit = min(part.limit_seconds * factor(device), limit_seconds)
    if limit < LEAST_SECONDS:
        return PartOutcome("skipped: no time is left")
    began = time.monotonic()
    command = [sys.executable, __file__, CHILD, name, device]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = _exit_code(command, out, err, limit, REHEARSAL if device == "cpu" else {})
        seconds = round(time.monotonic() - began, 1)
        out.seek(0)
        err.seek(0)
        # A process that was killed may have written a part of a line.
        rows = [json.loads(line) for line in out.read().splitlines(keepends=True) if line.endswith("\n")]
        log = err.read()[-LOG_CHARACTERS:]
    if code == 0:
        return PartOutcome("passed", seconds, rows)
    if rows and "error" in rows[-1]:
        return PartOutcome(f"failed: {rows.pop()['error']}", seconds, rows, log)
    reason = f"stopped at its limit of {limit:.0f} s" if code is None else f"exit code {code}"
    return PartOutcome(f"failed: {reason}", seconds, rows, log)


def factor(device: str) -> int:
    """Return the factor of all time limits."""
    return REHEARSAL_FACTOR if device == "cpu" else 1


def _exit_code(
    command: list[str], out: IO[str], err: IO[str], limit_seconds: float, variables: Mapping[str, str]
) -> int | None:
    """Run a command and end all that it has started; return its exit code, or None if it took too long."""
    quiet = {"KINETO_LOG_LEVEL": "5"}  # otherwise the profiler logs every start
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=out,
        stderr=err,
        env={**os.environ, **quiet, **variables},
        start_new_session=True,
    )
    try:
        return process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def child(name: str, device: str) -> int:
    """Run a part in this process: results go to stdout, one line of JSON each, and all else to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def emit(row: Row) -> None:
        print(json.dumps(row), file=out, flush=True)

    try:
        module = importlib.import_module(f"scripts.benchmarks.{PARTS[name].module}")
        getattr(module, PARTS[name].function)(importlib.import_module("torch").device(device), emit)
    except Exception as error:
        traceback.print_exc()
        first_line = next(iter(str(error).splitlines()), "")
        emit({"error": f"{type(error).__name__}: {first_line}"})
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; return 0 if none has failed, 1 if one has, and 2 if there is no GPU."""
    described = "\n".join(f"  {name:<14}at most {part.limit_seconds} s" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="gpu_check.sh",
        description=f"{__doc__}\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="run these parts only")
    parser.add_argument(
        "--json", type=pathlib.Path, default=ROOT / "outputs" / "gpu_check.json", metavar="FILE"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    device = os.environ.get("DEVICE", "cuda")
    began, outcomes = time.monotonic(), {}
    for name in dict.fromkeys(["environment", *(options.parts or PARTS)]):
        left = TOTAL_SECONDS * factor(device) - (time.monotonic() - began)
        outcomes[name] = run(name, device, left)
        show(name, outcomes[name])
        record = {part: outcome._asdict() for part, outcome in outcomes.items()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"device": device, "parts": record}, indent=1) + "\n")
        if name == "environment" and outcomes[name].status != "passed":
            return 2
    counts = [outcome.status.partition(":")[0] for outcome in outcomes.values()]
    words = ", ".join(f"{counts.count(word)} {word}" for word in ("passed", "failed", "skipped"))
    print(f"{words}, {time.monotonic() - began:.0f} s; all results: {options.json}")
    return int("failed" in counts)


def show(name: str, outcome: PartOutcome) -> None:
    """Print the status of a part, and a few lines on its results."""
    print(f"{name} ({outcome.seconds:.0f} s): {outcome.status[:LONGEST_LINE]}")
    if outcome.rows:
        for line in LINES[name](outcome.rows)[:MOST_LINES]:
            print(f"  {line[:LONGEST_LINE]}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(child(*sys.argv[2:]) if sys.argv[1:2] == [CHILD] else main())
