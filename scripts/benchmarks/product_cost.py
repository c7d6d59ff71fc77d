"""Time and memory of one product with the Hessian: double backward, forward over reverse, and compiled."""

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sam.analysis.compiled_product import Product, compiled_product, forward_over_reverse
from sam.analysis.hessian import SampleHessian
from sam.analysis.sample import SampleLoss
from sam.config.schema import TrainConfig
from sam.system.errors import ConfigError
from sam.training.precision import float32_products
from scripts.benchmarks.hessian_cost import make_problem
from scripts.benchmarks.timing import alternate, peak_memory_bytes, wait

EAGER = "double backward"  # the others are compared with it
LARGEST_DEPARTURE = 1e-3  # of a product in fp32 from that in fp64, in units of its largest entry


def benchmark_products(config: TrainConfig, num_blocks: int, chunk_size: int = 100) -> list[dict[str, Any]]:
    """Time one product over the training images with one vector, for a network after some updates.

    Times on a CPU are those of the processor, which other programs change little; use one thread. The
    compilation is timed on its own, by the clock. Memory is what torch has allocated on a GPU
    (runtime.device=cuda), and what tensors hold on a CPU.

    Args:
        config: The config of the network, the images and runtime.device; dataset.num_train images are used.
        num_blocks: Number of measurements of each variant; the median is reported.
        chunk_size: Images per pass; must divide the number of images.

    Raises:
        ConfigError: If chunk_size does not divide the number of images, if torch cannot compile the product,
            or if the products differ.
    """
    problem = make_problem(config, chunk_size)
    torch.set_num_threads(problem.pop("threads"))
    sample = SampleLoss(**problem)
    device = sample.images.device
    size = sum(weight.numel() for weight in sample.weights)
    vectors = torch.randn(1, size, generator=torch.Generator().manual_seed(0)).to(device)
    with float32_products("fp32"):
        started = time.perf_counter()
        compiled = compiled_product(sample, print)
        wait(device)
        seconds_to_compile = time.perf_counter() - started
        if compiled is None:
            raise ConfigError(f"model={config.model.name}: torch cannot compile its products")
        makes = _variants(sample, compiled)
        starts = {name: partial(_start, make, vectors) for name, make in makes.items()}
        memory = {name: peak_memory_bytes(start, device) for name, start in starts.items()}
        runs = {name: start() for name, start in starts.items()}
        found = {name: run() for name, run in runs.items()}
        exact = _in_float64(sample).products(vectors.double())
        blocks: dict[str, list[float]] = {name: [] for name in runs}
        alternate(
            {name: partial(_timed, run, device, blocks[name]) for name, run in runs.items()}, num_blocks
        )
    seconds = {name: statistics.median(values[1:]) for name, values in blocks.items()}
    rows = [
        {
            "variant": name,
            "product_ms": round(1000 * own, 2),
            "time_over_eager": round(own / seconds[EAGER], 3),
            "peak_memory_mib": round(memory[name] / 2**20, 1),
            "memory_over_eager": round(memory[name] / memory[EAGER], 3),
            "departure": _departure(name, found[name], exact),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        }
        for name, own in seconds.items()
    ]
    rows[-1]["seconds_to_compile"] = round(seconds_to_compile, 1)
    return rows


def _variants(sample: SampleLoss, compiled: Product) -> dict[str, Callable[[], SampleHessian]]:
    """Return how each variant is made, by its name."""
    return {
        EAGER: partial(SampleHessian, sample),
        "double backward, graphs kept": partial(SampleHessian, sample, 2**40),
        "forward over reverse": partial(SampleHessian, sample, compiled=forward_over_reverse(sample)),
        "forward over reverse, compiled": partial(SampleHessian, sample, compiled=compiled),
    }


def _in_float64(sample: SampleLoss) -> SampleHessian:
    """Return the eager products of the same sample in float64."""
    network = copy.deepcopy(sample.network).double()
    return SampleHessian(SampleLoss(network, sample.images.double(), sample.targets, sample.chunk_size))


def _departure(name: str, found: Tensor, exact: Tensor) -> float:
    """Return the largest difference from the product in float64, in units of its largest entry."""
    departure = ((found - exact).abs().max() / exact.abs().max()).item()
    if departure > LARGEST_DEPARTURE:
        raise ConfigError(f"{name}: departs from float64 by {departure:.1e} of the largest entry")
    return float(f"{departure:.1e}")


def _start(make: Callable[[], SampleHessian], vectors: Tensor) -> Callable[[], Tensor]:
    """Return a function that makes one product."""
    return partial(make().products, vectors)


def _timed(run: Callable[[], Tensor], device: torch.device, seconds: list[float]) -> None:
    """Make one product, wait for it, and add its time to a list."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    run()
    wait(device)
    seconds.append(clock() - started)
