"""Tests of scripts/benchmarks/benchmark.py and of its plain loop."""

import copy
import json

import pytest
import torch
from torch import nn

from sam.analysis.sample import SampleLoss
from sam.config.compose import composed
from sam.optim import SAM
from sam.system.errors import ConfigError
from scripts.benchmarks import benchmark, hessian_cost, product_cost, timing
from scripts.benchmarks.plain_loop import plain_update
from scripts.benchmarks.product_cost import benchmark_products
from tests.conftest import changed
from tests.tiny import TINY

SMALL = [item for item in TINY if not item.startswith("epochs")]


@pytest.mark.parametrize(("is_sam", "m"), [(True, None), (False, None), (True, 4), (False, 2)])
def test_plain_loop_makes_the_updates_of_sgd_and_sam(is_sam, m):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    twin = copy.deepcopy(model)
    config = changed({"optimizer.clip_norm": 0.5, "label_smoothing": 0.1, "optimizer.rho": 0.3})
    chosen = config.optimizer
    update = plain_update(model, config, is_sam, m)
    arguments = {"lr": chosen.lr, "momentum": 0.9, "nesterov": True, "weight_decay": chosen.weight_decay}
    sam = SAM(twin.parameters(), torch.optim.SGD, rho=0.3 if is_sam else 0.0, **arguments)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    weights = list(twin.parameters())
    for _ in range(3):
        inputs, targets = torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))
        update(inputs, targets)
        mean = [torch.zeros_like(weight) for weight in weights]
        for part, part_targets in zip(inputs.split(m or 8), targets.split(m or 8)):
            loss(twin(part), part_targets).backward()
            sam.first_step()
            share = len(part) / 8
            gradient = torch.autograd.grad(share * loss(twin(part), part_targets), weights)
            mean = [total + part for total, part in zip(mean, gradient)]
            sam.restore()
            sam.zero_grad()
        for weight, gradient in zip(weights, mean):
            weight.grad = gradient
        nn.utils.clip_grad_norm_(weights, 0.5)
        sam.base_optimizer.step()
        sam.zero_grad()
    for weight, other in zip(model.parameters(), twin.parameters()):
        # The plain loop adds 1e-12 to the norm.
        torch.testing.assert_close(weight, other, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_step_compares_rules_precisions_and_the_plain_loop(run_main, tmp_path):
    arguments = ["step", *SMALL, "m=4", "--plain", "--rules", "sgd", "quarter", "look_sam"]
    arguments += ["--precision", "fp32", "bf16", "--blocks", "1", "--json", "table.json", "runtime.workers=0"]
    code, out, _ = run_main(benchmark.main, "scripts/benchmarks/benchmark.py", *arguments)
    assert code == 0
    record = json.loads((tmp_path / "table.json").read_text())
    rows = {row["variant"]: row for row in record["rows"]}
    ours = [f"{rule}, {p}, m=4" for rule in ("sgd", "quarter", "look_sam") for p in ("fp32", "bf16")]
    assert list(rows) == [*ours, "plain sgd", "plain sam"]
    assert all(name in out for name in rows)
    for name, row in rows.items():
        assert row["images_per_second"] == pytest.approx(16 / row["step_ms"] * 1000, rel=0.05)
        plain = rows["plain sgd" if "sgd" in name else "plain sam"]
        assert row["speed_over_plain"] == pytest.approx(plain["step_ms"] / row["step_ms"], rel=0.05)
        base = "plain sgd" if "plain" in name else f"sgd, {name.split(', ')[1]}, m=4"
        assert row["time_over_sgd"] == pytest.approx(row["step_ms"] / rows[base]["step_ms"], rel=0.05)
        assert row["peak_memory_mib"] > 0


def test_optimizer_is_timed_without_its_passes(run_main, tmp_path):
    arguments = ["optimizer", "--blocks", "1", "--json", "table.json"]
    code, out, _ = run_main(benchmark.main, "scripts/benchmarks/benchmark.py", *arguments)
    assert code == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["base optimizer alone", "SAM", "SAM, tensor by tensor"]
    assert rows[1]["time_over_ours"] == 1 and all(row["variant"] in out for row in rows)
    assert rows[2]["time_over_ours"] == pytest.approx(rows[2]["update_ms"] / rows[1]["update_ms"], rel=0.05)


def test_step_refuses_what_does_not_go_together(run_main):
    arguments = ["step", *SMALL, "--rules", "second_order", "--precision", "bf16"]
    code, _, err = run_main(benchmark.main, "scripts/benchmarks/benchmark.py", *arguments)
    assert code == 2
    assert "optimizer.second_order=true needs runtime.precision=fp32 or tf32, not bf16" in err


def test_variants_take_turns_and_the_first_block_does_not_count(monkeypatch):
    clock, turns = iter([0, 0, 0, 1, 1, 3, 3, 6, 6, 7]), []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    variants = {name: lambda name=name: turns.append(name) for name in "ab"}
    # After the first block, a takes 1 and 3 seconds, and b takes 2 and 1.
    assert timing.alternate(variants, 2) == {"a": 2, "b": 1.5}
    assert turns == ["a", "b"] * 3


def test_hessian_names_the_library_that_is_missing(run_main, monkeypatch):
    monkeypatch.setattr(hessian_cost, "LIBRARIES", {"another": "none_such"})
    code, _, error = run_main(
        benchmark.main, "scripts/benchmarks/benchmark.py", "hessian", *SMALL, "--blocks", "1"
    )
    assert (code, error) == (
        2,
        "error: a library to compare with is missing: pip install --no-deps another\n",
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # in torch, for forward derivatives
def test_products_are_timed_and_compared(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    rows = benchmark_products(composed(SMALL), num_blocks=1, chunk_size=16)
    assert [row["variant"] for row in rows] == [
        "double backward",
        "double backward, graphs kept",
        "forward over reverse",
        "forward over reverse, compiled",
    ]
    assert rows[0]["time_over_eager"] == rows[0]["memory_over_eager"] == 1
    assert rows[1]["memory_over_eager"] > 1 and all(row["product_ms"] > 0 for row in rows)
    assert "seconds_to_compile" in rows[-1]
    with pytest.raises(ConfigError, match="^other: departs from float64 by 5.0e-02 of the largest entry"):
        product_cost._departure("other", torch.tensor([1.0, -2.1]), torch.tensor([1.0, -2]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # in torch, for what curvlinops calls
@pytest.mark.parametrize("task", ["top", "density"])
def test_hessian_is_measured_on_problems_that_all_solve_alike(task):
    pytest.importorskip("curvlinops")
    config = composed(SMALL)
    problem = hessian_cost.make_problem(config, chunk_size=16)
    del problem["threads"]
    found = [
        solve(SampleLoss(**problem), task, 12) for solve in (hessian_cost._ours, hessian_cost._curvlinops)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    measured = {"seconds": 2.0, "processor_seconds": 3.0, "memory_mib": 10.0}
    ones = {
        "ours": [{**measured, "eigenvalues": found[0]}],
        "curvlinops": [{**measured, "seconds": 5.0, "eigenvalues": found[1]}],
    }
    rows = hessian_cost._rows(task, ones)
    assert [(row["variant"], row["time_over_ours"]) for row in rows] == [
        (f"{task}, ours", 1.0),
        (f"{task}, curvlinops", 2.5),
    ]
    ones["curvlinops"][0]["eigenvalues"] = [1.1 * value for value in found[0]]
    with pytest.raises(ConfigError, match=f"curvlinops, {task}: eigenvalues"):
        hessian_cost._rows(task, ones)
