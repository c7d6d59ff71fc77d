"""A sweep on a real Ray cluster of two nodes, of which one worker is killed, and then one node.

Then four runs share one GPU of the other node. No machine needs a GPU for this: Ray is told of one.
"""

import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from sam.record.directory import read_result
from tests.clusters.test_slurm import directory_of, rows, wait_until
from tests.faults.lives import equal, outcome
from tests.tiny import TINY

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, str(ROOT / "train.py"), "-m"]
RUNS = [*TINY, "epochs=20", "dataset.num_train=512", "optimizer=sam", "runtime.device=cpu", "seed=0,1,2"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray here"),
]

# Ray gives its workers a lower priority than every other process: next to other tests they would starve.
VARIABLES = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}

# In a process of its own, since Ray leaves files open, which are errors here.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster()
resources = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 10**8}
nodes = [cluster.add_node(**resources, include_dashboard=False) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster():
    """Start two nodes; give a process that says their address, and ends one for each line it is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **VARIABLES},
    )
    yield process
    process.communicate(timeout=60)


@pytest.fixture
def sweep(tmp_path, cluster):
    """Return a function that starts a sweep on the cluster; a sweep ends with the test at the latest."""
    address = cluster.stdout.readline().strip()
    on_ray = [
        *TRAIN,
        "hydra/launcher=ray",
        f"hydra.launcher.ray.init.address='{address}'",
        # A thread of Ray prints what runs say, and may do so in the middle of a line of ours.
        "hydra.launcher.ray.init.log_to_driver=false",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    with ExitStack() as stack:

        def start(*arguments):
            process = subprocess.Popen(
                [*on_ray, *arguments], cwd=tmp_path, env={**os.environ, **VARIABLES}, **pipes
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def workers(outputs):
    """Return the processes of Ray that hold the lock of a run, by its directory."""
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::" not in (process / "cmdline").read_bytes():
                continue
            for file in (process / "fd").iterdir():
                path = pathlib.Path(os.readlink(file))
                if path.name == ".lock" and outputs in path.parents:
                    found[path.parent] = int(process.name)
        except OSError:
            continue  # it has just ended
    return found


def test_sweep_survives_a_worker_and_a_node_that_are_killed_and_four_runs_share_a_gpu(
    tmp_path, cluster, sweep
):
    undisturbed, outputs = tmp_path / "undisturbed", tmp_path / "outputs"
    first = sweep(*RUNS, f"outputs={outputs}")
    wait_until(lambda: min(rows(outputs, 0), rows(outputs, 1)) > 2)
    killed = workers(outputs)[directory_of(outputs, 0)]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: workers(outputs).get(directory_of(outputs, 0), killed) != killed)
    before = rows(outputs, 0)
    assert before >= 2, "it went on where it was"
    wait_until(lambda: rows(outputs, 0) > before)
    cluster.stdin.write("remove\n")
    cluster.stdin.flush()
    out, _ = first.communicate(timeout=300)
    assert first.returncode == 0, out
    assert "\n3 runs: 3 complete, 0 diverged, 0 failed\n" in out
    subprocess.run([*TRAIN, *RUNS, f"outputs={undisturbed}"], check=True, capture_output=True)
    for seed in range(3):
        assert read_result(directory_of(outputs, seed))["status"] == "complete"
        assert equal(*(outcome(directory_of(folder, seed)) for folder in (outputs, undisturbed)))

    # Four runs share the GPU of the node that is left.
    shares = [f"hydra.launcher.ray.remote.num_{kind}=0.25" for kind in ("cpus", "gpus")]
    shared = tmp_path / "shared"
    second = sweep(*shares, *RUNS[:-1], "seed=0,1,2,3", f"outputs={shared}")
    wait_until(lambda: len(set(workers(shared).values())) == 4)
    out, _ = second.communicate(timeout=300)
    assert second.returncode == 0 and "\n4 runs: 4 complete, 0 diverged, 0 failed\n" in out, out
