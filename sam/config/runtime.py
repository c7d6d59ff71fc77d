"""The keys that say where and how a run is computed, and which of them cannot be combined."""

import dataclasses
from collections.abc import Iterator

from sam.config.model import ModelConfig
from sam.config.setting import setting


@dataclasses.dataclass
class RuntimeConfig:
    """Where and how a run is computed; only `precision` changes its numbers (but see sync_ascent)."""

    # auto (a GPU if there is one), cpu, cuda, or cuda:1.
    device: str = setting("auto", science=False)
    # tf32 needs a GPU. bf16 and fp16 are autocast over fp32 weights.
    precision: str = setting("fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    # Number of processes that share every batch, one device each. null means one, or the number that torchrun
    # has started.
    processes: int | None = setting(None, at_least=1, at_most=1024, science=False)
    # ddp: every process holds all weights. fsdp: each process holds a shard (torch's fully_shard).
    parallel: str = setting("ddp", choices=("ddp", "fsdp"), science=False)
    # CPU threads of each process. null means torch's default, divided by the number of processes on this
    # machine.
    threads: int | None = setting(None, at_least=1, at_most=1024, science=False)
    # Use torch.compile. It needs a C++ compiler.
    compile: bool = setting(False, science=False)
    # Record the work of a micro-batch as a CUDA graph and replay it: faster, with the same numbers. auto does
    # this on a GPU if it is possible. true gives an error if it is not.
    graph: str = setting("auto", choices=("auto", "true", "false"), science=False)
    # On one GPU, the same command twice, or a run that was killed and continued, ends with the same bits. It
    # costs time. On a CPU it changes nothing.
    deterministic: bool = setting(False, science=False)
    # Number of worker processes that decode images and apply AutoAugment. null means one per CPU core, 0
    # means none.
    workers: int | None = setting(None, at_least=0, at_most=1024, science=False)
    # timm: gradient checkpointing, which needs less memory and more time.
    grad_checkpointing: bool = setting(False, science=False)
    # Several processes: how long one process waits for another. Then the run ends, and can be continued.
    timeout_minutes: float = setting(10.0, above=0, at_most=10080, science=False)
    # Longest time between two checkpoints inside an epoch. Every epoch also ends with a checkpoint.
    checkpoint_minutes: float = setting(5.0, above=0, science=False)
    # Keep the weights before the first epoch and after every such number of epochs, in the folder weights/ of
    # the run, for analysis.directions=trajectory. null means only the checkpoint.
    keep_weights_every: int | None = setting(None, at_least=1, science=False)

    def __post_init__(self) -> None:
        """Write true and false as YAML does: Hydra reads them as booleans."""
        self.graph = self.graph.lower()


def runtime_clashes(runtime: RuntimeConfig, model: ModelConfig) -> Iterator[str]:
    """Yield one message for each runtime key that the device, the model or sharded weights do not allow."""
    if runtime.precision == "tf32" and not runtime.device.startswith(("cuda", "auto")):
        yield f"runtime.precision=tf32 needs a GPU, but runtime.device={runtime.device}; use fp32"
    if runtime.grad_checkpointing and model.architecture != "timm":
        yield (
            f"runtime.grad_checkpointing=true: only timm models have it, not {model.architecture}; "
            "lower m or batch_size to save memory"
        )
    if runtime.parallel != "fsdp":
        return
    if runtime.precision == "fp16":
        yield (
            "runtime.parallel=fsdp needs runtime.precision=fp32, tf32 or bf16: in fp16, each process would "
            "see only the overflows of its own shard"
        )
    for key in ("compile", "grad_checkpointing"):
        if getattr(runtime, key):
            yield f"runtime.parallel=fsdp does not go with runtime.{key}=true; use runtime.parallel=ddp"
