"""Tests of scripts/benchmarks/capacity.py: closed forms, and what scripts/reproduce.py lists."""

from functools import partial

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from sam.config.compose import composed
from sam.models.wide_resnet import WideResNet
from scripts.benchmarks.capacity import (
    Job,
    flops,
    job,
    main,
    network_of,
    ring_bytes,
    runs_of_table,
    wall_seconds,
)

CIFAR = ("experiment=table1/wrn_28_10_200", "dataset=cifar10", "augmentation=basic", "recipe=released_code")


def test_ring_sends_each_gradient_twice_but_for_one_part() -> None:
    assert ring_bytes(1000, 1) == 0
    assert ring_bytes(1000, 2) == 4000
    assert ring_bytes(1000, 8) == 7000  # 8,000 bytes are what ever more GPUs come to


def test_network_is_counted_as_by_hand() -> None:
    config = composed([*CIFAR, "model=resnet8", "model.width=16"])
    # Multiplications of the convolutions of 3 x 3 on 32, 16 and 8 pixels a side, and of the last layer.
    stages = [(32, 3 * 16 + 2 * 16 * 16), (16, 16 * 32 + 32 * 32), (8, 32 * 64 + 64 * 64)]
    by_hand = sum(9 * pixels**2 * channels for pixels, channels in stages) + 64 * 10
    assert network_of(config) == (75_290, 2 * by_hand)


def test_pass_takes_three_times_the_operations_of_its_forward_part() -> None:
    with torch.device("meta"):
        network = WideResNet(depth=16, width=4, in_channels=3, num_classes=10, init="torch")
        images, targets = torch.empty(2, 3, 32, 32), torch.zeros(2, dtype=torch.long)
    counts = []
    for work in (partial(network, images), lambda: _loss(network, images, targets).backward()):
        with FlopCounterMode(display=False) as counter:
            work()
        counts.append(counter.get_total_flops())
    assert counts[1] / counts[0] == pytest.approx(3, rel=0.01)  # the images need no gradient


def _loss(network: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(network(images), targets)


def test_sam_takes_twice_the_passes_and_the_same_evaluations() -> None:
    sgd, sam = (composed([*CIFAR, f"optimizer={name}"]) for name in ("sgd", "sam"))
    forward = network_of(sgd).forward_flops
    num_images = 200 * (50_000 // 256) * 256
    assert flops(sgd) == pytest.approx((3 * num_images + 200 * 10_000) * forward)
    assert flops(sam) == pytest.approx((6 * num_images + 200 * 10_000) * forward)


def test_small_images_take_one_gpu_and_large_ones_a_host() -> None:
    small = composed([*CIFAR, "optimizer=sam"])
    large = composed(["experiment=table2/resnet50_100", "optimizer=sam"])
    assert (job(small, "bf16", 1).num_gpus, job(large, "bf16", 1).num_gpus) == (1, 8)
    # 1.64 times the 2470 images a second that are published for SGD, on eight cards.
    images = 2 * 100 * (1_281_167 // 4096) * 4096 + 100 * 50_000 / 3
    assert job(large, "bf16", 1).seconds == pytest.approx(images / (8 * 1.64 * 2470), rel=0.01)


@pytest.mark.parametrize(
    ("jobs", "num_hosts", "expected"),
    [
        ([], 1, 0.0),
        ([Job(1, 5.0)] * 8, 1, 5.0),
        ([Job(1, 5.0)] * 9, 1, 10.0),
        ([Job(1, 2.0)] * 8 + [Job(1, 4.0)] * 8, 1, 6.0),
        ([Job(8, 3.0), Job(1, 5.0)], 1, 8.0),
        ([Job(8, 3.0), Job(1, 5.0)], 2, 5.0),
        ([Job(8, 3.0)] * 3, 2, 6.0),
    ],
)
def test_wall_time_is_that_of_the_longest_jobs_first(
    jobs: list[Job], num_hosts: int, expected: float
) -> None:
    assert wall_seconds(jobs, num_hosts) == expected


def test_table_5_has_the_runs_that_reproduce_lists() -> None:
    runs = runs_of_table("5")
    assert len(runs) == 80


@pytest.mark.slow
def test_main_prints_a_line_for_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    counts = {row[0]: row[1] for row in rows[:9] if row}
    assert counts["table1"] == "450" and counts["table2"] == "90" and counts["table3"] == "172"
    # Methods that are bootstrapped share the runs that label their images.
    assert counts["table4"] == "220" and counts["table5"] == "80"
    assert counts["all, shared runs once"] == "1012"
