"""How much a precision changes SAM: precision.py RUN [--batches N] [--json FILE].

It computes SAM's gradients with the weights of a run, for batches of its training images and in the
micro-batches of the run: in fp32 and in each lower precision of the device (bf16, fp16, and on a GPU tf32).
It prints means over the micro-batches:

first      cosine between the gradients at w, in fp32 and in the precision
update     cosine between the gradients at w + eps, with which the base optimizer steps
sam        cosine between the differences that SAM makes: the gradient at w + eps minus the gradient at w
length     length of the perturbation in units of rho, after w + eps and w are rounded to the precision (a GPU
           rounds the factors of products to tf32)
direction  cosine between eps and this rounded perturbation

Even fp32 has rounding errors, since sums depend on their order. The row fp32 compares fp32 with float64.
"""

import argparse
import dataclasses
import json
import pathlib
import platform
import sys
from typing import Any

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # this checkout, whatever is installed

from torch import Tensor, nn

from sam.build.data import load_dataset, make_train_batches
from sam.build.from_run import trained_network
from sam.build.resolved import resolve
from sam.config.mistakes import report_mistakes
from sam.config.schema import TrainConfig
from sam.optim import SAM
from sam.optim.running_statistics import RunningStatistics
from sam.record.directory import read_config
from sam.record.identity import identity
from sam.system.errors import ConfigError
from sam.system.machine import commit
from sam.training.forward_backward import ForwardBackward
from sam.training.precision import AUTOCAST_DTYPES, Precision, float32_products
from sam.training.random_state import RandomState

COLUMNS = ("first", "update", "sam", "length", "direction")


@dataclasses.dataclass
class Passes:
    """SAM's two gradients for some images, eps, and eps as rounded in the passes; flat vectors in float64."""

    first: Tensor
    second: Tensor
    eps: Tensor
    seen: Tensor


def two_passes(
    network: nn.Module, config: TrainConfig, precision: str, images: Tensor, targets: Tensor
) -> Passes:
    """Compute SAM's gradients without a step; of the network, only the running statistics change.

    Args:
        network: The network, in training mode.
        config: The config of the run.
        precision: The precision of the passes.
        images: The images of one micro-batch.
        targets: The labels of the images.
    """
    device = images.device
    in_loss = config.optimizer.weight_decay_in == "loss"
    forward_backward = ForwardBackward(
        network,
        Precision(precision, device),
        RunningStatistics(network),
        label_smoothing=config.label_smoothing,
        weight_decay_in_loss=config.optimizer.weight_decay if in_loss else 0.0,
    )
    sam = SAM(network.parameters(), torch.optim.SGD, rho=config.optimizer.rho, lr=config.optimizer.lr)
    draws = RandomState(device)

    def gradient() -> Tensor:
        sam.zero_grad()
        draws.restore()
        with float32_products(precision):
            forward_backward(images, targets, share=1.0, sync=True, clean=False)
        scale = forward_backward.precision.unscaled(torch.ones((), device=device)).double()
        return flat([w.grad for w in network.parameters() if w.grad is not None]) * scale

    def weights() -> tuple[Tensor, Tensor]:
        return flat([*network.parameters()]), flat(
            [rounded(w.detach(), precision) for w in network.parameters()]
        )

    first, (before, seen_before) = gradient(), weights()
    sam.perturb()
    eps, seen = (after - other for after, other in zip(weights(), (before, seen_before), strict=True))
    second = gradient()
    sam.restore()
    return Passes(first, second, eps, seen)


def rounded(numbers: Tensor, precision: str) -> Tensor:
    """Return numbers as the products of a precision read them; tf32 has the 10 mantissa bits of fp16."""
    if (
        precision == "tf32"
    ):  # to the nearest of the float32 numbers whose last 13 bits are 0, halves away from 0
        return ((numbers.view(torch.int32) + 2**12) & -(2**13)).view(torch.float32)
    return numbers.to(AUTOCAST_DTYPES.get(precision, numbers.dtype))


def flat(tensors: list[Tensor]) -> Tensor:
    """Return all entries as one float64 vector."""
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def compare(passes: Passes, truth: Passes, rho: float) -> dict[str, float]:
    """Return COLUMNS for one micro-batch."""

    def cosine(one: Tensor, other: Tensor) -> float:
        return float(nn.functional.cosine_similarity(one, other, dim=0))

    return {
        "first": cosine(passes.first, truth.first),
        "update": cosine(passes.second, truth.second),
        "sam": cosine(passes.second - passes.first, truth.second - truth.first),
        "length": float(passes.seen.norm()) / rho,
        "direction": cosine(passes.seen, passes.eps),
    }


def measure(directory: pathlib.Path, num_batches: int, device_name: str) -> list[dict[str, Any]]:
    """Return one row of means for every precision."""
    config = read_config(directory, "RUN")
    if config.optimizer.name != "sam":
        raise ConfigError(f"RUN={directory} was trained with {config.optimizer.name}; name a run of SAM")
    resolved = resolve(config, device_name=device_name, key="--device")
    device = resolved.device
    data = load_dataset(config.dataset, config.seed)
    network, moment = trained_network(config, data, directory, device)
    print(f"{directory}, after {moment}: {num_batches} batches of {config.batch_size} images")
    networks = {"fp32": network, "fp64": trained_network(config, data, directory, device)[0].double()}
    precisions = ["fp32", "bf16", "fp16"] + (["tf32"] if device.type == "cuda" else [])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in precisions}
    batches = make_train_batches(config, data, resolved).epoch(0)
    for _, (images, targets, _) in zip(range(num_batches), batches, strict=False):
        m = config.m or len(targets)
        for part, part_targets in zip(images.split(m), targets.split(m), strict=True):
            truth = two_passes(networks["fp32"], config, "fp32", part, part_targets)
            exact = two_passes(networks["fp64"], config, "fp32", part.double(), part_targets)
            for name in precisions:
                passes = two_passes(networks["fp32"], config, name, part, part_targets)
                found[name].append(compare(passes, exact if name == "fp32" else truth, config.optimizer.rho))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return [
        {"precision": name, "n": len(rows), **means(rows), "device": where} for name, rows in found.items()
    ]


def means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each column."""
    return {key: round(sum(row[key] for row in rows) / len(rows), 5) for key in COLUMNS}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, help="a run directory")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--json", type=pathlib.Path, help="write the table and the machine's data to this file"
    )
    arguments = parser.parse_args()
    rows = measure(arguments.run, arguments.batches, arguments.device)
    print("".join(f"{key:<12}" for key in rows[0]))
    for row in rows:
        print("".join(f"{value!s:<12}" for value in row.values()))
    if arguments.json:
        record = {
            "command": f"python scripts/benchmarks/precision.py RUN --batches {arguments.batches}",
            "run": f"{arguments.run.parent} {identity(read_config(arguments.run, 'RUN'))}",
            "commit": commit(),
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    report_mistakes(main)
