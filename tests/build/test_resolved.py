"""Tests of sam/build/resolved.py: what a config means on this machine and for this number of processes."""

import os

import pytest
import torch

from sam.build.resolved import advice_on_precision, resolve
from sam.system.errors import ConfigError
from sam.system.processes import ProcessInfo
from tests.conftest import changed, hidden_gpu


@pytest.mark.parametrize(
    ("chosen", "local_size", "threads"), [("", 2, 3), ("2", 2, 6), ("", 100, 1), ("", 1, 6)]
)
def test_processes_share_the_threads_of_the_machine_unless_told_otherwise(
    monkeypatch, chosen, local_size, threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("sam.build.resolved.DEFAULT_THREADS", 6)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert resolve(changed({}), ProcessInfo(local_size=local_size)).threads == threads
    assert resolve(changed({"runtime.threads": 5}), ProcessInfo(local_size=local_size)).threads == 5


@pytest.mark.parametrize(
    ("gpu", "name", "expected"),
    [(False, "auto", "cpu"), (True, "auto", "cuda:1"), (True, "cuda", "cuda:1"), (True, "cpu", "cpu")],
)
def test_each_process_takes_the_gpu_of_its_number_on_the_machine(monkeypatch, gpu, name, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # no GPU is needed to name it
    assert resolve(changed({"runtime.device": name}), ProcessInfo(local_rank=1)).device == torch.device(
        expected
    )


def test_tests_that_do_not_need_a_gpu_see_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with hidden_gpu():
        assert resolve(changed({})).device == torch.device("cpu")
        assert (os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.device_count()) == ("", 0)
    assert torch.cuda.is_available() and "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("name", ["meta", "nonsense", "cuda:9999"])
def test_device_that_is_not_there_is_refused_with_its_key(name):
    with pytest.raises(ConfigError, match=rf"^runtime\.device={name}: not usable here; allowed is auto, cpu"):
        resolve(changed({"runtime.device": name}))
    with pytest.raises(ConfigError, match=rf"^--device={name}: not usable here"):
        resolve(changed({}), device_name=name, key="--device")


def test_tf32_trains_on_a_gpu_only_and_may_be_evaluated_anywhere():
    config = changed({"runtime.precision": "tf32", "runtime.device": "cpu"})
    with pytest.raises(ConfigError, match="^runtime.precision=tf32 needs a GPU, and the device is cpu; use"):
        resolve(config)
    assert resolve(config, device_name="cpu").precision == "tf32"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_advice_is_for_fp32_on_a_gpu_and_names_what_is_faster(precision, device):
    advice = advice_on_precision(precision, device)
    if (precision, device) != ("fp32", "cuda"):
        assert advice is None
    else:
        assert advice.startswith("runtime.precision=fp32 ") and "\n" not in advice
        assert "runtime=gpu or runtime.precision=bf16" in advice


@pytest.mark.parametrize(
    ("workers", "local_size", "expected"),
    [(None, 4, 2), (None, 16, 1), (None, 1, 8), (3, 4, 3), (0, 1, 0)],
)
def test_workers_by_default_are_as_many_as_the_cores_of_each_process(
    monkeypatch, workers, local_size, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    config = changed({"runtime.workers": workers})
    assert resolve(config, ProcessInfo(local_size=local_size)).workers == expected


@pytest.mark.parametrize(("cores", "expected"), [(6, 6), (None, 1)])
def test_workers_are_as_many_as_all_cores_where_no_one_tells_which_are_ours(monkeypatch, cores, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert resolve(changed({})).workers == expected


@pytest.mark.parametrize(
    ("m", "message"),
    [
        (None, r"^m=null: with 2 processes, a micro-batch would be .*; set m=64, or a divisor of it$"),
        (48, r"^m=48 does not divide the 64 images of each of 2 processes; choose a divisor$"),
    ],
)
def test_m_has_to_mean_the_same_on_any_number_of_processes(m, message):
    with pytest.raises(ConfigError, match=message):
        resolve(changed({"batch_size": 128, "m": m}), ProcessInfo(0, 2))


@pytest.mark.parametrize(
    ("changes", "size", "expected"),
    [
        ({}, 1, None),
        ({"m": 32}, 1, 32),
        ({"m": 32, "optimizer.sync_ascent": True}, 1, 32),
        ({"m": 32}, 2, 32),
        ({"m": 32, "optimizer.sync_ascent": True}, 2, 16),
        ({"optimizer.sync_ascent": True}, 4, 32),
        # SGD shares no perturbation, whatever the key says.
        ({"m": 32, "optimizer.sync_ascent": True, "optimizer.name": "sgd"}, 2, 32),
    ],
)
def test_images_of_a_process_in_a_micro_batch_are_m_or_its_share_of_m_where_eps_is_shared(
    changes, size, expected
):
    assert resolve(changed({"batch_size": 128, **changes}), ProcessInfo(0, size)).m == expected


def test_m_that_processes_share_is_a_multiple_of_their_number():
    config = changed({"batch_size": 48, "m": 6, "optimizer.sync_ascent": True})
    told = r"^m=6 is shared by 4 processes, since optimizer\.sync_ascent=true; choose a multiple of 4$"
    with pytest.raises(ConfigError, match=told):
        resolve(config, ProcessInfo(0, 4))


def test_part_of_shared_images_that_sees_the_ascent_is_whole_in_every_process():
    keys = {"batch_size": 48, "m": 8, "optimizer.sync_ascent": True, "optimizer.ascent_fraction": 0.25}
    told = (
        r"optimizer\.ascent_fraction=0\.25 of the 2 images of each of 4 processes is 0\.5; choose a fraction"
    )
    with pytest.raises(ConfigError, match=told):
        resolve(changed(keys), ProcessInfo(0, 4))
    assert resolve(changed(keys), ProcessInfo(0, 2)).m == 4
    assert resolve(changed({**keys, "m": 3}), ProcessInfo(0, 1)).m == 3


NOT_RECORDED = {
    "the device cpu": {"runtime.device": "cpu"},
    "optimizer.second_order=true": {"optimizer.second_order": True},
    "runtime.parallel=fsdp": {"runtime.parallel": "fsdp"},
    "runtime.grad_checkpointing=true": {"runtime.grad_checkpointing": True},
    "optimizer.sync_ascent=true with several processes": {"optimizer.sync_ascent": True},
}


@pytest.fixture
def gpus(monkeypatch):
    """Let torch see a GPU; none is needed to name it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)


@pytest.mark.parametrize("obstacle", NOT_RECORDED)
def test_runs_that_no_cuda_graph_can_hold_are_eager_and_refuse_graph_true(gpus, obstacle):
    keys = {"m": 8, **NOT_RECORDED[obstacle]}
    told = f"^runtime.graph=true is not possible with {obstacle}; use runtime.graph=auto$"
    with pytest.raises(ConfigError, match=told):
        resolve(changed({**keys, "runtime.graph": "true"}), ProcessInfo(0, 2))
    resolved = resolve(changed(keys), ProcessInfo(0, 2))
    assert resolved.graph == "false"
    assert resolved.why_eager == (None if "cpu" in obstacle else obstacle)
    # A run of another machine can be evaluated here.
    assert resolve(changed({**keys, "runtime.graph": "true"}), device_name="cpu").graph == "false"


@pytest.mark.parametrize("graph", ["auto", "true", "false"])
def test_runs_on_gpus_record_as_the_key_says(gpus, graph):
    for keys, process in (
        ({}, ProcessInfo()),
        ({"m": 8}, ProcessInfo(0, 2)),
        ({"optimizer.sync_ascent": True}, ProcessInfo()),
    ):
        resolved = resolve(changed({**keys, "runtime.graph": graph}), process)
        assert (resolved.graph, resolved.why_eager) == (graph, None)
