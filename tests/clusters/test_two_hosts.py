"""A run on two hosts: numbers, a cut cable, a host that dies. Real torchrun, gloo over a cable of our own."""

import os
import shutil
import subprocess
import sys
import time

import pytest
import torch

from sam.record.directory import read_result
from tests.clusters import two_hosts
from tests.clusters.two_hosts import ADDRESSES, HOSTS, ROOT, Hosts
from tests.test_train import metrics, only_run, without_times
from tests.tiny import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ddp,
    pytest.mark.xdist_group("two hosts"),
    pytest.mark.timeout(600),
]
EPOCHS = 12
LIMIT_SECONDS, STATED_BOUND_SECONDS = 18, 60
RUN = [*TINY, "m=4", "dataset.num_train=512", f"epochs={EPOCHS}", "runtime.timeout_minutes=0.3"]
SILENCE = "has received nothing from another process for runtime.timeout_minutes=0.3: the network between"
GO_ON = "; the same command goes on from the last checkpoint, if there is one\n"
# As a cluster gives them to each host; ours know no names, so who keeps the meeting place is said.
TWO = {
    host: ["--nnodes=2", f"--node-rank={rank}", f"--master-addr={ADDRESSES['a']}", "--master-port=29400"]
    for rank, host in enumerate(HOSTS)
}
# The main process is on the first host, the meeting place on the second.
ELASTIC = {
    host: [
        *("--nnodes=1:2", "--max-restarts=2", "--rdzv-backend=c10d", "--rdzv-id=run"),
        *(f"--rdzv-endpoint={ADDRESSES['b']}:29400", f"--local-addr={ADDRESSES[host]}"),
        f"--rdzv-conf=is_host={int(host == 'b')},last_call_timeout=5,keep_alive_interval=1",
    ]
    for host in HOSTS
}


@pytest.fixture
def hosts(tmp_path):
    if (reason := two_hosts.why_not()) is not None:
        pytest.skip(reason)
    both = Hosts(tmp_path)
    try:
        yield both
    finally:
        both.close()


def here(arguments, folder):
    """Train on this host alone."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr


def assert_equal(folder, other):
    """Two runs have ended with the same bits."""
    runs = only_run(folder), only_run(other)
    assert len(metrics(runs[0])) == EPOCHS
    assert without_times(metrics(runs[0])) == without_times(metrics(runs[1]))
    states = [torch.load(run / "checkpoint.pt", weights_only=True)["model"] for run in runs]
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())


def assert_told_once(said, fault):
    """Ours is one line, whatever torchrun adds of its own after it."""
    ours, _, _ = said.partition("torch/distributed/elastic")
    assert said.count("error: process of rank") == ours.count("error: process of rank") == 1
    assert fault in ours and GO_ON in ours and "Traceback" not in ours


def test_two_hosts_are_one_to_the_bit_and_a_cut_cable_ends_both_in_time_and_is_gone_on_from(hosts, tmp_path):
    here([*RUN, "runtime=ddp", "runtime.processes=2", "outputs=one"], tmp_path)
    hosts.start(TWO, [*RUN, "outputs=two"])
    hosts.wait_for("a", "epoch 2 of", 120)
    hosts.cut()
    cut = time.monotonic()
    for host in HOSTS:
        assert hosts.end(host, LIMIT_SECONDS + STATED_BOUND_SECONDS) == 1
        assert_told_once(hosts.said(host), SILENCE)
    assert time.monotonic() - cut >= LIMIT_SECONDS / 2
    assert read_result(only_run(tmp_path / "two")) is None
    hosts.mend()
    hosts.start(TWO, [*RUN, "outputs=two"])
    assert [hosts.end(host, 200) for host in HOSTS] == [0, 0], hosts.said("a")
    assert "epoch 1 of" not in hosts.said("a"), "it went on"
    assert read_result(only_run(tmp_path / "two"))["processes"] == 2
    assert_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("fate", ["dies", "is cut off"])
def test_host_that_stays_goes_on_by_itself_like_one_process_started_by_hand(hosts, tmp_path, fate):
    """It had the processes but the main one, and takes the run directory over."""
    hosts.start(ELASTIC, RUN)
    hosts.wait_for("a", "epoch 2 of", 120)
    if fate == "dies":
        hosts.kill("a")
        hosts.wait_for("b", "rank 1 has lost the connection to another process", 30)
    else:
        hosts.cut()
        hosts.wait_for("b", f"rank 1 {SILENCE}", LIMIT_SECONDS + STATED_BOUND_SECONDS)
        hosts.wait_for("a", f"rank 0 {SILENCE}", LIMIT_SECONDS + STATED_BOUND_SECONDS)
    shutil.copytree(tmp_path / "outputs", tmp_path / "by-hand")
    assert hosts.end("b", 240) == 0, hosts.said("b")
    assert_told_once(hosts.said("b"), "process of rank 1 has")
    assert read_result(only_run(tmp_path / "outputs"))["processes"] == 1
    assert "complete: " not in hosts.said("a")
    here([*RUN, "outputs=by-hand"], tmp_path)
    assert_equal(tmp_path / "outputs", tmp_path / "by-hand")
