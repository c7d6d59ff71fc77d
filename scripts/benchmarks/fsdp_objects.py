"""Do updates of sharded weights leave Python objects or memory behind? fsdp_objects.py [--updates N].

Two processes on the CPU (gloo) train a small network with runtime.parallel=fsdp. The table shows the number
of live Python objects of process 0 and its resident memory after a fifth of the updates and after all.
Below it are the kinds of objects that have become more. The first updates fill caches, so they do not count.
"""

import argparse
import collections
import gc
import pathlib
import sys
import tempfile

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # this checkout, whatever is installed

from sam.build.resolved import resolve
from sam.build.update import make_update
from sam.config.optimizer import OptimizerConfig
from sam.config.runtime import RuntimeConfig
from sam.config.schema import TrainConfig
from sam.models.cifar_resnet import CifarResNet
from sam.system.processes import ProcessInfo
from sam.training.distributed import close_process_group
from sam.training.sharding import shard

NUM_PROCESSES = 2
BATCH_SIZE = 8  # of each process
OPTIMIZERS = {
    "sgd": {"name": "sgd"},
    "sam": {"name": "sam", "sync_ascent": True},
    "adamw": {"name": "sgd", "base": "adamw", "lr": 1e-3},
    "sam, adamw": {"name": "sam", "base": "adamw", "lr": 1e-3, "sync_ascent": True},
}


def objects() -> collections.Counter[str]:
    """Return the number of live objects of each type that Python's collector tracks."""
    gc.collect()
    return collections.Counter(f"{type(one).__module__}.{type(one).__name__}" for one in gc.get_objects())


def resident_mib() -> float:
    """Return the memory of this process (Linux)."""
    status = pathlib.Path("/proc/self/status").read_text()
    return float(status.split("VmRSS:")[1].split()[0]) / 1024


def work(rank: int, folder: str, num_updates: int, name: str) -> None:
    """Train in one process; rank 0 prints the counts."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=NUM_PROCESSES
    )
    torch.manual_seed(0)
    network = CifarResNet(depth=8, width=4, in_channels=3, num_classes=10)
    shard(network, NUM_PROCESSES)
    optimizer = OptimizerConfig(**OPTIMIZERS[name])  # type: ignore[arg-type]
    runtime = RuntimeConfig(device="cpu", parallel="fsdp")
    config = TrainConfig(
        optimizer=optimizer, runtime=runtime, batch_size=NUM_PROCESSES * BATCH_SIZE, m=BATCH_SIZE
    )
    resolved = resolve(config, ProcessInfo(rank, NUM_PROCESSES))
    update = make_update(optimizer, network, network, resolved, num_steps=num_updates)
    for group in update.rule.optimizer.param_groups:
        group["foreach"] = True  # torch's choice on GPUs
    images, targets = torch.randn(BATCH_SIZE, 3, 8, 8), torch.randint(10, (BATCH_SIZE,))
    before, memory = objects(), resident_mib()
    for step in range(num_updates):
        update(images, targets, optimizer.lr, None, step)
        if step + 1 == num_updates // 5:
            before, memory = objects(), resident_mib()
    after = objects()
    if rank == 0:
        counts = f"{before.total():>12,}{after.total():>12,}"
        print(f"{name:<12}{counts}{memory:>10.1f}{resident_mib():>10.1f}", flush=True)
        for kind, more in (after - before).most_common(5):
            print(f"    {more:+,} {kind}", flush=True)
    close_process_group(0)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--only", nargs="+", choices=list(OPTIMIZERS), default=list(OPTIMIZERS))
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {NUM_PROCESSES} processes, {arguments.updates} updates")
    print(f"{'optimizer':<12}{'objects':>12}{'at the end':>12}{'MiB':>10}{'at the end':>10}")
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            of_each = (folder, arguments.updates, name)
            spawn(work, of_each, NUM_PROCESSES)


if __name__ == "__main__":
    main()
