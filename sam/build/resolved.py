"""The values that depend on the config, this machine and the number of processes, derived once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from sam.config.schema import TrainConfig
from sam.system.errors import ConfigError
from sam.system.processes import ProcessInfo
from sam.training.determinism import deterministic_algorithms, fix_cublas_workspaces
from sam.training.precision import float32_products

# torch's default number of threads for a process that has the machine to itself.
DEFAULT_THREADS = torch.get_num_threads()


@dataclass(frozen=True)
class Resolved:
    """The values that a config leaves open, or that depend on where it runs.

    Attributes:
        process: The rank of this process and the number of processes.
        device: The device of the passes.
        precision: fp32, tf32, bf16 or fp16.
        deterministic: Whether a run on a GPU must repeat its bits.
        threads: Number of CPU threads of this process.
        workers: Number of processes that read images for this process; 0 for none.
        m: Images per micro-batch in this process; None means all images of the process.
        graph: Whether to record CUDA graphs: true, false, or auto (if the work allows it).
        why_eager: What forbids CUDA graphs in a run on a GPU with runtime.graph=auto; None if nothing does.
    """

    process: ProcessInfo
    device: torch.device
    precision: str
    deterministic: bool
    threads: int
    workers: int
    m: int | None
    graph: str
    why_eager: str | None


def resolve(
    config: TrainConfig,
    process: ProcessInfo = ProcessInfo(),  # noqa: B008 - it is frozen
    device_name: str | None = None,
    key: str = "device",
) -> Resolved:
    """Return what a config means for this process.

    Args:
        config: A checked config.
        process: The rank of this process and the number of processes; the default is a single process.
        device_name: A device to use instead of the config's, for a run that was trained elsewhere.
        key: The key that gave device_name, for error messages.

    Raises:
        ConfigError: If the device does not exist, if tf32 has no GPU, if several processes on GPUs must be
            deterministic, if graph=true is not possible, or if m does not fit the number of processes.
    """
    if config.runtime.deterministic:
        fix_cublas_workspaces()  # before _device(), which starts CUDA
    if device_name is None:
        device = _device(config.runtime.device, process.local_rank, "runtime.device")
        if config.runtime.precision == "tf32" and device.type != "cuda":
            raise ConfigError(
                f"runtime.precision=tf32 needs a GPU, and the device is {device}; use runtime.precision=fp32"
            )
    else:
        device = _device(device_name, process.local_rank, key)
    if config.runtime.deterministic and device.type == "cuda" and process.size > 1:
        raise ConfigError(
            f"runtime.deterministic=true is for one process on one GPU, not for {process.size} processes; "
            "use runtime.processes=1, or runtime.deterministic=false"
        )
    obstacle = _graph_obstacle(config, process, device)
    if obstacle and config.runtime.graph == "true" and device_name is None:
        raise ConfigError(f"runtime.graph=true is not possible with {obstacle}; use runtime.graph=auto")
    return Resolved(
        process=process,
        device=device,
        precision=config.runtime.precision,
        deterministic=config.runtime.deterministic,
        threads=config.runtime.threads or _default_threads(process.local_size),
        workers=_default_workers(process.local_size)
        if config.runtime.workers is None
        else config.runtime.workers,
        m=_images_of_a_micro_batch(config, process.size),
        graph="false" if obstacle else config.runtime.graph,
        why_eager=obstacle if config.runtime.graph == "auto" and device.type == "cuda" else None,
    )


@contextmanager
def numerics(resolved: Resolved) -> Iterator[None]:
    """Set the precision and the determinism of a run's passes, and reset both at the end.

    Raises:
        ConfigError: As in deterministic_algorithms().
    """
    with (
        float32_products(resolved.precision),
        deterministic_algorithms(resolved.deterministic, resolved.device),
    ):
        yield


def advice_on_precision(precision: str, device_type: str) -> str | None:
    """Return the line that tells a user of fp32 on a GPU about faster precisions; None for other runs."""
    if (precision, device_type) != ("fp32", "cuda"):
        return None
    return (
        "runtime.precision=fp32 is slow on a GPU; runtime=gpu or runtime.precision=bf16 is faster but rounds "
        "more (docs/gpus.md); WRN-28-10, m=256, one H100: 513 ms an update in fp32, 133 in tf32, 59.6 in bf16"
    )


def _device(name: str, local_rank: int, key: str) -> torch.device:
    """Return the device with this name; auto is the GPU of this process if there is one, else the CPU."""
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


def _graph_obstacle(config: TrainConfig, process: ProcessInfo, device: torch.device) -> str | None:
    """Return what forbids CUDA graphs; None if nothing does."""
    obstacles = {
        f"the device {device.type}": device.type != "cuda",
        "optimizer.second_order=true": config.optimizer.second_order,
        "runtime.parallel=fsdp": config.runtime.parallel == "fsdp",
        "runtime.grad_checkpointing=true": config.runtime.grad_checkpointing,
        "optimizer.sync_ascent=true with several processes": config.optimizer.sync_ascent
        and process.size > 1,
    }
    return next((obstacle for obstacle, is_there in obstacles.items() if is_there), None)


def _default_threads(local_size: int) -> int:
    """Return torch's default, divided by the processes on this machine unless OMP_NUM_THREADS is set."""
    return DEFAULT_THREADS if "OMP_NUM_THREADS" in os.environ else max(1, DEFAULT_THREADS // local_size)


def _default_workers(local_size: int) -> int:
    """Return this process's share of the machine's cores: one worker for each of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // local_size)


def _images_of_a_micro_batch(config: TrainConfig, size: int) -> int | None:
    """Return the number of images per micro-batch in one process; None means all images of the process.

    This number is m. With sync_ascent, processes share eps, and the config's m counts the images of all.

    Raises:
        ConfigError: If m would depend on the number of processes, or does not divide a process's images.
    """
    if size == 1 or config.batch_size % size:
        return config.m  # TrainBatches refuses processes that cannot share a batch
    if config.optimizer.name == "sam" and config.optimizer.sync_ascent:
        return _share_of_m(config, size)
    share = config.batch_size // size
    if config.m is None:
        raise ConfigError(
            f"m=null: with {size} processes, a micro-batch would be one process's share of the batch, so m "
            f"would depend on the number of processes; set m={share}, or a divisor of it"
        )
    if share % config.m:
        raise ConfigError(
            f"m={config.m} does not divide the {share} images of each of {size} processes; choose a divisor"
        )
    return config.m


def _share_of_m(config: TrainConfig, size: int) -> int:
    """Return one process's share of the m images that share eps."""
    m, rest = divmod(config.m or config.batch_size, size)
    if rest:
        raise ConfigError(
            f"m={config.m} is shared by {size} processes, since optimizer.sync_ascent=true; choose a "
            f"multiple of {size}"
        )
    ascent = config.optimizer.ascent_fraction * m
    if abs(ascent - round(ascent)) > 1e-6:
        raise ConfigError(
            f"optimizer.ascent_fraction={config.optimizer.ascent_fraction} of the {m} images of each of "
            f"{size} processes is {ascent:g}; choose a fraction or m that makes it whole"
        )
    return m
