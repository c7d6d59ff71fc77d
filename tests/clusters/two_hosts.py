"""Two hosts on this machine, for tests: network namespaces with a cable between them (root, iproute2)."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOSTS = ("a", "b")
ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def why_not():
    """Why there can be no two hosts here; None if there can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "namespaces need root"
    if shutil.which("ip") is None:
        return "there is no iproute2"
    try:
        ip("netns", "add", f"sam-{os.getpid()}-try")
    except subprocess.CalledProcessError as error:
        return f"ip netns: {error.stderr.strip()}"
    ip("netns", "del", f"sam-{os.getpid()}-try")
    return None


class Hosts:
    """A run on both is started by torchrun, whose words and ours go to one file for each host."""

    def __init__(self, folder):
        self.folder = folder
        self.running = {}
        for host in HOSTS:
            ip("netns", "add", self.name(host))
        ends = [f"{self.cable(host)} netns {self.name(host)}" for host in HOSTS]
        ip("link", "add", *ends[0].split(), "type", "veth", "peer", "name", *ends[1].split())
        for host in HOSTS:
            ip("-n", self.name(host), "addr", "add", f"{ADDRESSES[host]}/24", "dev", self.cable(host))
            for device in ("lo", self.cable(host)):
                ip("-n", self.name(host), "link", "set", device, "up")

    def name(self, host):
        return f"sam-{os.getpid()}-{host}"

    def cable(self, host):
        return f"sam{os.getpid()}{host}"

    def cut(self):
        ip("-n", self.name("a"), "link", "set", self.cable("a"), "down")

    def mend(self):
        ip("-n", self.name("a"), "link", "set", self.cable("a"), "up")

    def start(self, launches, arguments):
        """Start torchrun with its own arguments for each host, and those of train.py."""
        for host in HOSTS:
            variables = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.cable(host)}
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", *launches[host]]
            with open(self.folder / f"{host}.log", "w") as log:
                self.running[host] = subprocess.Popen(
                    ["ip", "netns", "exec", self.name(host), *torchrun, str(ROOT / "train.py"), *arguments],
                    cwd=self.folder,
                    env={**os.environ, **variables},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )

    def said(self, host):
        return (self.folder / f"{host}.log").read_text()

    def wait_for(self, host, words, seconds):
        """Wait until a host says something."""
        deadline = time.monotonic() + seconds
        while words not in self.said(host):
            assert time.monotonic() < deadline, f"no {words!r} in {self.said(host)[-3000:]}"
            time.sleep(0.05)

    def end(self, host, seconds):
        """Wait for torchrun to end, and return its exit code."""
        return self.running[host].wait(timeout=seconds)

    def kill(self, host):
        """Kill all that runs on a host at once."""
        for pid in ip("netns", "pids", self.name(host)).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if host in self.running:
            self.running[host].wait()

    def close(self):
        for host in HOSTS:
            self.kill(host)
            ip("netns", "del", self.name(host))
