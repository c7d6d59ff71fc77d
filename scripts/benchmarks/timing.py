"""Measures time and memory of variants."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch
from torch.profiler import profile

Key = TypeVar("Key", bound=Hashable)


def alternate(variants: Mapping[Key, Callable[[], None]], num_blocks: int) -> dict[Key, float]:
    """Run each variant once per block, after one warm-up block; return the median seconds."""
    seconds = seconds_of_blocks(variants, num_blocks)
    return {name: statistics.median(values) for name, values in seconds.items()}


def seconds_of_blocks(
    variants: Mapping[Key, Callable[[], None]], num_blocks: int, limit_seconds: float = math.inf
) -> dict[Key, list[float]]:
    """Run each variant once per block, after one warm-up block; return the seconds of all blocks.

    Args:
        variants: Each runs its own block and waits for the device.
        num_blocks: Largest number of blocks, at least 1.
        limit_seconds: After this time no new block starts; one is always measured.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in variants}
    began = time.monotonic()
    for block in range(num_blocks + 1):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            if block:
                seconds[name].append(time.perf_counter() - started)
        if block and time.monotonic() - began > limit_seconds:
            break
    return seconds


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(make: Callable[[], Callable[[], object]], device: torch.device) -> int:
    """Return the peak number of bytes held by tensors during make() and one call of its result."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run = make()
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as record:
        run = make()
        run()
    held = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
