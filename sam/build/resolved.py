"""What a run works with here: its config, this machine and the number of processes, put together once."""

import os
from dataclasses import dataclass

import torch

from sam.config.schema import TrainConfig
from sam.system.errors import ConfigError
from sam.system.processes import Place

# torch's choice for a process that has the machine for itself.
DEFAULT_THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Resolved:
    """The values that a config leaves open, or that depend on where it runs.

    Attributes:
        place: This process among those that share the run.
        device: Where the passes are made.
        precision: fp32, tf32, bf16 or fp16.
        threads: CPU threads of this process.
        workers: Processes that read images for this process; 0 for none.
        m: Images of this process in a micro-batch; None means all images that it has.
    """

    place: Place
    device: torch.device
    precision: str
    threads: int
    workers: int
    m: int | None


def resolve(
    config: TrainConfig,
    place: Place = Place(),  # noqa: B008 - it is frozen
    device_name: str | None = None,
    key: str = "device",
) -> Resolved:
    """Return what a config means for this process.

    Args:
        config: A checked config.
        place: This process among those that share the run; the default is a process alone.
        device_name: A device in the place of the config's, where a run that was trained elsewhere is read.
        key: The key that gave the device_name, for messages.

    Raises:
        ConfigError: If there is no such device, tf32 is to be trained without a GPU, or m does not fit the
            number of processes.
    """
    if device_name is None:
        device = _device(config.runtime.device, place.local_rank, "runtime.device")
        if config.runtime.precision == "tf32" and device.type != "cuda":
            raise ConfigError(
                f"runtime.precision=tf32 needs a GPU, and the device is {device}; use runtime.precision=fp32"
            )
    else:
        device = _device(device_name, place.local_rank, key)
    return Resolved(
        place=place,
        device=device,
        precision=config.runtime.precision,
        threads=config.runtime.threads or _default_threads(place.local_size),
        workers=_default_workers(place.local_size)
        if config.runtime.workers is None
        else config.runtime.workers,
        m=_images_of_a_micro_batch(config, place.size),
    )


def _device(name: str, local_rank: int, key: str) -> torch.device:
    """Return the device of a name; auto is the GPU of this process if there is one, else the CPU."""
    gpu = f"cuda:{local_rank}"
    chosen = {"auto": gpu if torch.cuda.is_available() else "cpu", "cuda": gpu}.get(name, name)
    try:
        device = torch.device(chosen)
        torch.empty(0, device=device)
        usable = device.type in ("cpu", "cuda")
    except (RuntimeError, AssertionError):
        usable = False
    if not usable:
        raise ConfigError(
            f"{key}={name}: not usable here; allowed is auto, cpu, or cuda where there is a GPU"
        )
    return device


def _default_threads(local_size: int) -> int:
    """Return torch's choice; where the processes of this machine share it and nobody chose, their share."""
    return DEFAULT_THREADS if "OMP_NUM_THREADS" in os.environ else max(1, DEFAULT_THREADS // local_size)


def _default_workers(local_size: int) -> int:
    """Return one worker for each core that is this process's share of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // local_size)


def _images_of_a_micro_batch(config: TrainConfig, size: int) -> int | None:
    """Return how many images of one process make a micro-batch; None means all that it has.

    That is m. Where processes share eps, m counts the images of all of them.

    Raises:
        ConfigError: If m would not mean the same on another number of processes, or does not divide.
    """
    if size == 1 or config.batch_size % size:
        return config.m  # TrainBatches refuses processes that cannot share a batch
    if config.optimizer.name == "sam" and config.optimizer.sync_ascent:
        return _share_of_m(config, size)
    share = config.batch_size // size
    if config.m is None:
        raise ConfigError(
            f"m=null: each of {size} processes would take its share for a micro-batch, which one alone "
            f"would not; say m={share}, or a divisor of it"
        )
    if share % config.m:
        raise ConfigError(
            f"m={config.m} does not divide the {share} images of each of {size} processes; choose a divisor"
        )
    return config.m


def _share_of_m(config: TrainConfig, size: int) -> int:
    """Return how many of the m images that share eps belong to one process."""
    m, rest = divmod(config.m or config.batch_size, size)
    if rest:
        raise ConfigError(
            f"m={config.m} is shared by {size} processes, since optimizer.sync_ascent=true; choose a multiple"
        )
    ascent = config.optimizer.ascent_fraction * m
    if abs(ascent - round(ascent)) > 1e-6:
        raise ConfigError(
            f"optimizer.ascent_fraction={config.optimizer.ascent_fraction} of the {m} images of each of "
            f"{size} processes is {ascent:g}; choose a fraction or m that makes it whole"
        )
    return m
