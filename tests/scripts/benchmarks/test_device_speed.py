"""Tests of device_speed.py with made-up variants; test_gpu_check.py runs it with a network."""

import torch

from scripts.benchmarks import device_speed
from scripts.benchmarks.gpu_lines import speed_lines

CASE = device_speed.Case("resnet8", 8, 4, "bf16")


def test_ratios_are_those_of_blocks_that_took_turns():
    each = {"davda54 sam": [4.0, 6.0, 9.0], "sam captured": [1.0, 2.0, 3.0], "sgd captured": [1.0, 1.0, 1.0]}
    row = device_speed._summary(each, batch_size=8)
    assert row["speed_over_reference"] == {"sam captured": [3, 3, 4]}
    assert row["sam_over_sgd"] == {"sam captured": [2, 1, 3]}
    assert (row["ms"]["sam captured"], row["images_per_second"]["sam captured"]) == (2000, 4)


def test_variant_that_fails_leaves_the_others(monkeypatch):
    calls = []

    def fails():
        raise torch.OutOfMemoryError("too large\nfor this card")

    variants = {
        "davda54 sam": lambda: lambda: calls.append("davda54"),
        "sam eager": lambda: lambda: calls.append("eager"),
        "sam captured": lambda: fails,  # starts, and fails in its first block
    }
    monkeypatch.setattr(device_speed, "_variants", lambda *_: variants)
    monkeypatch.setattr(device_speed, "BLOCK_SECONDS", 1e-9)
    row = device_speed.measure(CASE, torch.device("cpu"), limit_seconds=1e-9)
    assert row["failed"] == {"sam captured": "OutOfMemoryError: too large"}
    assert set(row["ms"]) == {"davda54 sam", "sam eager"} and set(calls) == {"davda54", "eager"}
    _, line, failure = speed_lines([row])
    assert line.startswith("resnet8 m=4 bf16") and failure.endswith(
        "sam captured: OutOfMemoryError: too large"
    )
