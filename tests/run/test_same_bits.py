"""Runs with runtime.deterministic=true: the same command twice, and a run that was killed and continued."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from sam.record.directory import read_result
from tests.quick_process import TRAIN
from tests.run.test_train_workers import stopped_and_continued, weights
from tests.test_train import SMALL, metrics, only_run, without_times
from tests.tiny import TINY

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
# Two epochs of two updates. A WideResNet has average pooling in its shortcuts.
RUN = [*TINY, "epochs=2", "m=8", "augmentation=basic", "model=wrn_16_2"]
RULES = {
    "sgd": ["optimizer=sgd"],
    "sam": ["optimizer.adaptive=true"],
    "second_order": ["optimizer.second_order=true"],
    "look_sam": ["optimizer.interval=2", "optimizer.reuse=0.7"],
    **{
        rule: [f"optimizer.rule={rule}"]
        for rule in ("msam", "s2_sam", "f_sam", "vasso", "le_sam", "functional_sam", "stable_sam")
    },
}
NOT_IN_FP16 = ("look_sam", "f_sam", "vasso", "le_sam")


def case(rule, precision="fp32", *more):
    return pytest.param(
        [*RULES[rule], f"runtime.precision={precision}", *more], id="-".join([rule, precision, *more[:1]])
    )


# On a GPU: all rules in all precisions that they allow, and all architectures.
ON_GPU = [
    case(rule, precision)
    for rule in RULES
    for precision in ("fp32", "tf32", "bf16", "fp16")
    if not (precision == "fp16" and rule in NOT_IN_FP16)
    and not (precision in ("bf16", "fp16") and rule == "second_order")
]
ON_GPU += [case("sam", "bf16", f"model.architecture={name}", *SMALL[name]) for name in SMALL]
ON_GPU.append(case("sam", "bf16", "augmentation=mixup", "dataset.label_noise=0.3"))


def assert_same_bits(one, other):
    """Check that two run directories have equal weights and metrics."""
    first, second = weights(one), weights(other)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert without_times(metrics(one)) == without_times(metrics(other))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [case("sam"), case("sgd", "bf16")])
def test_switch_changes_no_bit_on_a_cpu(command, tmp_path, monkeypatch, arguments):
    run = [*RUN, "model.width=1", "runtime.device=cpu", *arguments]
    wanted = [*run, "runtime.deterministic=true"]
    whole, _ = stopped_and_continued(command, tmp_path, monkeypatch, wanted, ended_in=4)
    assert command("train.py", *run, "outputs=without")[0] == 0
    without = only_run(tmp_path / "without")
    assert_same_bits(whole, without)
    assert (read_result(whole)["deterministic"], read_result(without)["deterministic"]) == (True, False)
    assert whole.name == without.name, "the identity of a run must not depend on it"
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("arguments", ON_GPU)
def test_runs_on_a_gpu_repeat_and_continue_to_the_same_bits(command, tmp_path, monkeypatch, arguments):
    run = [*RUN, "epochs=4", "runtime.device=cuda", "runtime.deterministic=true", *arguments]
    whole, _ = stopped_and_continued(command, tmp_path, monkeypatch, run, ended_in=6)
    assert command("train.py", *run, "outputs=again")[0] == 0
    assert_same_bits(whole, only_run(tmp_path / "again"))


def started(folder, *arguments):
    """Start train.py in a process of its own, without the variable that the run must set itself."""
    environment = {key: value for key, value in os.environ.items() if key != "CUBLAS_WORKSPACE_CONFIG"}
    return subprocess.Popen([sys.executable, TRAIN, *arguments], cwd=folder, env=environment)


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("compiled", [False, True])
def test_killed_process_on_a_gpu_is_continued_to_the_same_bits(tmp_path, compiled):
    run = [*RUN, "dataset.num_train=512", "batch_size=32", "epochs=4", "runtime.device=cuda"]
    run += ["runtime.deterministic=true", "runtime.precision=bf16", f"runtime.compile={compiled}"]
    for outputs in ("one", "two"):
        assert started(tmp_path, *run, f"outputs={outputs}").wait(300) == 0
    killed = [*run, "outputs=killed", "runtime.checkpoint_minutes=1e-9"]
    process = started(tmp_path, *killed)
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("killed/**/checkpoint.pt")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_result(only_run(tmp_path / "killed")) is None, "it had ended before it was killed"
    assert started(tmp_path, *killed).wait(300) == 0
    one, two, continued = (only_run(tmp_path / name) for name in ("one", "two", "killed"))
    assert_same_bits(one, two)
    assert_same_bits(one, continued)
