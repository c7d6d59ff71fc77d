"""The keys that say where and how a run is computed."""

import dataclasses

from sam.config.setting import setting


@dataclasses.dataclass
class RuntimeConfig:
    """Where and how it runs; of these keys only `precision` decides the numbers (but see sync_ascent)."""

    # auto takes a GPU if there is one; or cpu, cuda, cuda:1.
    device: str = setting("auto", science=False)
    # tf32 needs a GPU; bf16 and fp16 are autocast over fp32 weights.
    precision: str = setting("fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    # Processes that share every batch, one device each; null means one, or those that torchrun started.
    processes: int | None = setting(None, at_least=1, at_most=1024, science=False)
    # ddp: every process holds all weights. fsdp: each holds a shard (torch's fully_shard).
    parallel: str = setting("ddp", choices=("ddp", "fsdp"), science=False)
    # CPU threads of each process; null leaves torch's choice, divided by the processes of this machine.
    threads: int | None = setting(None, at_least=1, at_most=1024, science=False)
    # torch.compile; needs a C++ compiler.
    compile: bool = setting(False, science=False)
    # Processes that decode and AutoAugment images; null means one per CPU core, 0 none.
    workers: int | None = setting(None, at_least=0, at_most=1024, science=False)
    # timm: keep few activations and compute the others anew going backward: less memory, more time.
    grad_checkpointing: bool = setting(False, science=False)
    # Several processes: how long one waits for another before the run ends, which then can be gone on with.
    timeout_minutes: float = setting(10.0, above=0, at_most=10080, science=False)
    # Save at least this often inside an epoch; every epoch ends with a save anyway.
    checkpoint_minutes: float = setting(5.0, above=0, science=False)
