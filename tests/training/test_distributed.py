"""Two processes on one CPU train like one."""

import multiprocessing
import os
import signal
import socket
import threading
import time

import pytest
import torch

from sam.record.directory import read_result
from sam.system.errors import ProcessError
from sam.system.processes import ProcessInfo, this_process
from sam.training.distributed import World, joined_world, loss_of_a_peer
from tests.quick_process import TRAIN, run
from tests.test_train import metrics, only_run
from tests.tiny import TINY


def test_single_process_talks_to_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world(ProcessInfo(), torch.device("cpu"), 1.0) as world:
        assert (world, world.is_main) == (World(0, 1), True)
        tensor = torch.tensor([1.0, 2.0])
        assert torch.equal(world.sum_(tensor.clone()), tensor)
        world.mean_([tensor])
        assert torch.equal(tensor, torch.tensor([1.0, 2.0]))
        assert world.any(True, torch.device("cpu")) and not world.any(False, torch.device("cpu"))


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError(f"{GLOO}unbound_buffer.cc:81] Timed out waiting 30000ms for recv to complete"),
            "has received nothing from another process for runtime.timeout_minutes=0.5: the network between "
            "them is cut, or that process hangs",
        ),
        (
            RuntimeError(f"{GLOO}pair.cc:561] Connection closed by peer [127.0.0.1]:1."),
            "has lost the connection to another process: that process failed, it was ended, or its machine "
            "failed",
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_loss_of_another_process_is_told_from_other_faults(error, told):
    assert loss_of_a_peer(error, 0.5) == told


PATIENCE_SECONDS = 8


def work_at_length(rank, hangs, port, pipe):
    """The main process works first, longer than the other has patience; then one of both hangs."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        with joined_world(this_process(), torch.device("cpu"), PATIENCE_SECONDS / 60) as world:
            with world.main_first():
                time.sleep(1.5 * PATIENCE_SECONDS * world.is_main)
            pipe.send("done")
            if rank == hangs:
                threading.Timer(1, os.kill, [os.getpid(), signal.SIGSTOP]).start()
            with world.main_first():
                time.sleep(300)
    except ProcessError as error:
        pipe.send(str(error))
    os._exit(0)


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("hangs", [0, 1])
def test_others_wait_for_the_main_process_while_it_works_and_neither_waits_for_one_that_hangs(hangs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawning = multiprocessing.get_context("spawn")
    pipes = [spawning.Pipe() for _ in range(2)]
    processes = [
        spawning.Process(target=work_at_length, args=(rank, hangs, port, pipes[rank][1])) for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        for ours, _ in pipes:
            assert ours.poll(60)
            assert ours.recv() == "done"
        began = time.monotonic()
        assert pipes[1 - hangs][0].poll(3 * PATIENCE_SECONDS)
        told = f"process of rank {1 - hangs} has received nothing from another process for runtime.timeout_"
        assert pipes[1 - hangs][0].recv().startswith(told)
        assert time.monotonic() - began > PATIENCE_SECONDS / 2
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.ddp
@pytest.mark.parametrize("optimizer", [pytest.param("sgd", marks=pytest.mark.slow), "sam"])
def test_two_processes_with_the_same_m_train_like_one(tmp_path, optimizer):
    # 15 test images do not divide by two. m = 4: four micro-batches in one process, two in each of two.
    arguments = [*TINY, f"optimizer={optimizer}", "m=4", "epochs=2", "dataset.num_test=15"]
    arguments += ["optimizer.lr=0.01", "augmentation=basic", "ema_decay=0.5"]
    for name, more in {"one": [], "two": ["runtime=ddp", "runtime.processes=2"]}.items():
        ended = run([TRAIN, *arguments, f"outputs={name}", *more], tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("epoch 1 of 2") == 1, "only the main process speaks"
    one, two = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    assert read_result(two)["processes"] == 2
    for row, other in zip(metrics(one), metrics(two), strict=True):
        for key in set(row) - {"seconds", "images_per_second"}:
            if row[key]:
                # float32 sums in another order, grown over four updates
                assert float(row[key]) == pytest.approx(float(other[key]), rel=2e-3, abs=1e-4), key
    states = [torch.load(run / "checkpoint.pt", weights_only=True) for run in (one, two)]
    for part in ("model", "average"):
        for key, tensor in states[0][part].items():
            torch.testing.assert_close(tensor, states[1][part][key], rtol=1e-3, atol=1e-4)
