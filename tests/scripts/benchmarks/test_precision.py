"""Tests of scripts/benchmarks/precision.py on a tiny run."""

import json

import pytest
import torch
from torch import nn

from sam.record.directory import read_config
from scripts.benchmarks import precision
from tests.conftest import changed
from tests.test_train import only_run
from tests.tiny import TINY


@pytest.fixture
def run_directory(command, tmp_path):
    assert command("train.py", *TINY, "m=8")[0] == 0
    return only_run(tmp_path)


def test_precision_of_a_run_is_a_row_for_each(run_directory, run_main, tmp_path):
    arguments = [
        str(run_directory),
        "--batches",
        "1",
        "--device",
        "cpu",
        "--json",
        str(tmp_path / "table.json"),
    ]
    code, out, _ = run_main(precision.main, "scripts/benchmarks/precision.py", *arguments)
    assert code == 0
    record = json.loads((tmp_path / "table.json").read_text())
    rows = {row["precision"]: row for row in record["rows"]}
    assert list(rows) == ["fp32", "bf16", "fp16"] and all(name in out for name in rows)
    assert {row["device"] for row in rows.values()} == {"cpu"}
    assert {row["n"] for row in rows.values()} == {2}, "a batch of 16 is two micro-batches"
    assert rows["fp32"]["update"] > 0.9999 and rows["fp32"]["length"] == pytest.approx(1, abs=1e-4)
    # 8 bits of precision keep less of SAM's difference than 11 bits.
    assert rows["bf16"]["sam"] < rows["fp16"]["sam"] < rows["fp32"]["sam"]
    assert rows["bf16"]["direction"] < rows["fp16"]["direction"] < 1


def test_precision_needs_a_run_of_sam(command, run_main, tmp_path):
    assert command("train.py", *TINY, "optimizer=sgd")[0] == 0
    code, _, err = run_main(precision.main, "scripts/benchmarks/precision.py", str(only_run(tmp_path)))
    assert code == 2 and "was trained with sgd; name a run of SAM" in err
    code, _, err = run_main(precision.main, "scripts/benchmarks/precision.py", "nowhere")
    assert code == 2 and "RUN=nowhere is not a run directory" in err


def test_two_passes_are_the_gradients_written_out_and_leave_the_weights(run_directory):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    before = precision.flat(list(network.parameters()))
    config = read_config(run_directory)
    images, targets = torch.randn(8, 3, 2, 2, dtype=torch.float64), torch.randint(0, 3, (8,))
    passes = precision.two_passes(network, config, "fp32", images, targets)
    assert torch.equal(precision.flat(list(network.parameters())), before)

    def gradient(at):
        shapes = [weight.shape for weight in network.parameters()]
        sizes = [shape.numel() for shape in shapes]
        leaf = at.clone().requires_grad_()
        parts = [part.view(shape) for part, shape in zip(leaf.split(sizes), shapes)]
        names = [name for name, _ in network.named_parameters()]
        logits = torch.func.functional_call(network, dict(zip(names, parts)), (images,))
        return torch.autograd.grad(nn.functional.cross_entropy(logits, targets), leaf)[0]

    first = gradient(before)
    eps = config.optimizer.rho * first / first.norm()
    torch.testing.assert_close(passes.first, first, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(passes.eps, eps, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(passes.seen, eps, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(passes.second, gradient(before + eps), rtol=1e-9, atol=1e-12)


def test_tf32_is_rounded_to_the_nearest_number_of_ten_mantissa_bits():
    numbers = torch.tensor([1.0, -1 - 2**-10, 1 + 2**-11, -1 - 2**-11 + 2**-20, 2 - 2**-12, 0.0, 3e-39])
    wanted = [1.0, -1 - 2**-10, 1 + 2**-10, -1.0, 2.0, 0.0, 3e-39]
    assert precision.rounded(numbers, "tf32").tolist() == pytest.approx(wanted, rel=0, abs=1e-41)
    torch.manual_seed(0)
    many = torch.randn(1000).clamp(min=1e-3)  # fp16 has ten mantissa bits as well, and is exact about halves
    assert torch.equal(precision.rounded(many, "tf32"), many.half().float())
    assert precision.rounded(many, "fp32") is many


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_also_has_a_row_for_tf32(run_directory):
    rows = {row["precision"]: row for row in precision.measure(run_directory, 1, "cuda")}
    assert list(rows) == ["fp32", "bf16", "fp16", "tf32"]
    assert rows["bf16"]["sam"] < rows["tf32"]["sam"] <= 1 and rows["tf32"]["length"] == pytest.approx(
        1, abs=0.1
    )


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_passes_see_weights_rounded_before_and_after_the_perturbation(name, dtype):
    network = nn.Linear(1, 2, bias=False)
    nn.init.ones_(network.weight)
    config = changed({"optimizer.rho": 0.004})
    passes = precision.two_passes(network, config, name, torch.ones(2, 1), torch.tensor([0, 0]))
    # The gradient is (-1/2, 1/2), so eps is 0.004 / sqrt(2) down and up.
    meant = torch.tensor([-1, 1]) * 0.004 / 2**0.5
    torch.testing.assert_close(passes.eps, meant.double(), rtol=0, atol=2e-7)
    assert torch.equal(passes.seen, (1 + meant).to(dtype).double() - 1)
    assert not torch.allclose(passes.seen, passes.eps, rtol=0.01)
