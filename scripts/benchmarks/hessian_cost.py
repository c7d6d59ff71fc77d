"""Time and memory of the Hessian's spectrum, compared with curvlinops and hessian-eigenthings.

There are two tasks: the five largest eigenvalues, with residuals below 1e-3 of the largest; and a density by
Lanczos quadrature with one probe. All libraries get the same network, images and chunks, and are used as in
their documentation. Each measurement runs in a new process. Its memory is what the task adds to the network,
the images and the imported library.
"""

import importlib
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sam.analysis.hessian import hessian_spectrum
from sam.analysis.sample import SampleLoss
from sam.build.data import load_dataset, make_evaluation_batches
from sam.build.network import make_network
from sam.build.resolved import resolve
from sam.config.schema import TrainConfig
from sam.system.errors import ConfigError
from sam.system.machine import peak_memory_mib

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOP, TOLERANCE, NUM_UPDATES = 5, 1e-3, 40
MEASURED = ("seconds", "processor_seconds", "memory_mib")
LIBRARIES = {"curvlinops": "curvlinops", "hessian-eigenthings": "hessian_eigenthings"}
VARIANTS = ("ours", "ours, no graphs kept", *LIBRARIES)
# Takes the sample, the task and its number of steps; returns eigenvalues to compare, the largest first.
Measure = Callable[[SampleLoss, str, int], list[float]]


def benchmark_hessian(
    config: TrainConfig, num_blocks: int, chunk_size: int = 100, steps: int = 90
) -> list[dict[str, Any]]:
    """Time the tasks on the training images, for a network after some updates.

    Args:
        config: The config of the network, the images and runtime.threads; dataset.num_train images are used.
        num_blocks: Number of measurements of each variant; the median is reported.
        chunk_size: Images per pass; must divide the number of images, as hessian-eigenthings averages chunks.
        steps: Number of Lanczos steps of the density.

    Raises:
        ConfigError: If chunk_size does not divide the number of images, if a library is missing, or if the
            eigenvalues of the libraries differ.
    """
    missing = [name for name, module in LIBRARIES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(f"a library to compare with is missing: pip install --no-deps {' '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        problem = pathlib.Path(folder) / "problem.pt"
        torch.save(make_problem(config, chunk_size), problem)
        run = partial(_in_process, problem)
        # Lanczos in hessian-eigenthings needs its number of steps in advance; finding it is not timed.
        iterations = run("hessian-eigenthings", "iterations", 0)["iterations"]
        rows = []
        for task, length in (("top", iterations), ("density", steps)):
            measured: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
            for _ in range(num_blocks):
                for variant in VARIANTS:
                    measured[variant].append(run(variant, task, length))
            rows += _rows(task, measured)
    return rows


def make_problem(config: TrainConfig, chunk_size: int) -> dict[str, Any]:
    """Return a network after a short training, and its training images."""
    torch.manual_seed(config.seed)
    resolved = resolve(config)
    data = load_dataset(config.dataset, config.seed)
    network = make_network(config.model, data, resolved.device).to(memory_format=torch.contiguous_format)
    batches = list(make_evaluation_batches(config.model, data, data.train, resolved))
    images, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    if len(images) % chunk_size:
        raise ConfigError(f"chunk size {chunk_size} must divide the number of images, {len(images)}")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(NUM_UPDATES):
        chosen = torch.randint(len(images), (min(64, len(images)),), device=resolved.device)
        optimizer.zero_grad()
        functional.cross_entropy(network.train()(images[chosen]), targets[chosen]).backward()
        optimizer.step()
    threads = config.runtime.threads or torch.get_num_threads()
    optimizer.zero_grad()
    images = images.contiguous()
    return {
        "network": network.eval(),
        "images": images,
        "targets": targets,
        "chunk_size": chunk_size,
        "threads": threads,
    }


def _in_process(problem: pathlib.Path, variant: str, task: str, length: int) -> dict[str, Any]:
    """Run one task in a new process; return what it prints."""
    module = ["-m", "scripts.benchmarks.hessian_cost"]
    command = [sys.executable, "-W", "ignore", *module, str(problem), variant, task, str(length)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise ConfigError(f"{variant}, {task}: {ended.stderr.strip()}")
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def _rows(task: str, measured: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row per variant, with ratios to ours."""
    middle = {
        variant: {key: statistics.median(one[key] for one in ones) for key in MEASURED}
        for variant, ones in measured.items()
    }
    ours = torch.tensor(measured["ours"][0]["eigenvalues"])
    rows = []
    for variant, values in middle.items():
        theirs = torch.tensor(measured[variant][0]["eigenvalues"])
        departure = ((theirs - ours).abs() / ours.abs()).max().item()
        # curvlinops computes the ends of a density with a larger tolerance.
        if departure > (1e-3 if task == "top" else 2e-2):
            raise ConfigError(f"{variant}, {task}: eigenvalues {theirs.tolist()}, ours {ours.tolist()}")
        rows.append(
            {
                "variant": f"{task}, {variant}",
                "seconds": round(values["seconds"], 2),
                "processor_seconds": round(values["processor_seconds"], 2),
                "time_over_ours": round(values["seconds"] / middle["ours"]["seconds"], 2),
                "peak_memory_mib": round(values["memory_mib"]),
                "memory_over_ours": round(values["memory_mib"] / middle["ours"]["memory_mib"], 2),
                "largest": round(theirs[0].item(), 5),
                "departure": float(f"{departure:.1e}"),
            }
        )
    return rows


def _ours(sample: SampleLoss, task: str, length: int, memory_bytes: int = 2**30) -> list[float]:
    """Compute our eigenvalues: the five largest, or the largest node of the density."""
    steps, top = (1, TOP) if task == "top" else (length, 1)
    spectrum = hessian_spectrum(
        sample, top=top, steps=steps, probes=1, tolerance=TOLERANCE, memory_bytes=memory_bytes
    )
    return spectrum.eigenvalues


def _curvlinops(sample: SampleLoss, task: str, length: int) -> list[float]:
    """Compute the eigenvalues with curvlinops, and scipy's eigsh as in its documentation."""
    library = importlib.import_module("curvlinops")
    hessian = library.HessianLinearOperator(
        sample.network, nn.CrossEntropyLoss(), sample.weights, list(sample.chunks())
    )
    if task == "top":
        eigsh = importlib.import_module("scipy.sparse.linalg").eigsh
        values = eigsh(hessian.to_scipy(), k=TOP, which="LA", tol=TOLERANCE, return_eigenvectors=False)
        return sorted(map(float, values), reverse=True)
    spectrum = importlib.import_module("curvlinops.papyan2020traces.spectrum")
    grid, _ = spectrum.lanczos_approximate_spectrum(hessian, length)
    # The grid extends the spectrum by a twentieth of its width on both sides.
    return [(grid[-1] - (grid[-1] - grid[0]) * 0.05 / 1.1).item()]


def _eigenthings(sample: SampleLoss, task: str, length: int) -> list[float]:
    """Compute them with hessian-eigenthings; for the task iterations, its number of Lanczos steps."""
    library = importlib.import_module("hessian_eigenthings")
    loss = library.supervised_loss(functional.cross_entropy)
    hessian = library.HessianOperator(sample.network, list(sample.chunks()), loss)
    lanczos = partial(library.lanczos, hessian, k=TOP, which="LA", tol=TOLERANCE, seed=0)
    if task == "density":
        density = library.spectral_density(hessian, num_runs=1, lanczos_steps=length, seed=0)
        return [density.raw_eigenvalues.max().item()]
    if task == "top":
        return sorted(lanczos(max_iter=length).eigenvalues.tolist(), reverse=True)
    length = 2 * TOP
    while not lanczos(max_iter=length).converged.all():
        length += 2 * TOP
    return [length]


def _child(problem_path: str, variant: str, task: str, length: str) -> None:
    """Run one measurement and print it."""
    # This program wrote the file.
    problem = torch.load(problem_path, weights_only=False)  # nosec B614
    torch.set_num_threads(problem.pop("threads"))
    sample = SampleLoss(**problem)
    if variant in LIBRARIES:
        importlib.import_module(LIBRARIES[variant])
    measures: dict[str, Measure] = {
        "ours": _ours,
        "ours, no graphs kept": partial(_ours, memory_bytes=0),
        "curvlinops": _curvlinops,
        "hessian-eigenthings": _eigenthings,
    }
    before = peak_memory_mib(sample.images.device)
    started, worked = time.perf_counter(), time.process_time()
    values = measures[variant](sample, task, int(length))
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - worked
    if task == "iterations":
        print(json.dumps({"iterations": int(values[0])}))
    else:
        memory = peak_memory_mib(sample.images.device) - before
        result = dict(zip(MEASURED, (seconds, processor_seconds, memory), strict=True))
        print(json.dumps({**result, "eigenvalues": values}))


if __name__ == "__main__":
    _child(*sys.argv[1:])
