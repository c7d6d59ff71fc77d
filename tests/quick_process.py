"""Processes of train.py and of other code for tests, without the seconds that each would spend on imports.

multiprocessing's fork server imports torch and sam once, and every process begins as a copy of it, where
nothing has been computed. Such a process has its own memory, signals, files and exit code. Two things differ
from python SCRIPT: the interpreter does not tidy up at its end, and runtime=ddp forks its processes, too.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import threading
from multiprocessing import forkserver
from unittest import mock

from torch.distributed.launcher import api
from torch.distributed.launcher.api import LaunchConfig

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAIN = ROOT / "train.py"
SERVER = multiprocessing.get_context("forkserver")
PRELOADED = ["torch._dynamo", "torch.distributed.fsdp", "torch.distributed.launcher.api", "sam.run.worker"]
PRELOADED += ["timm", "scipy.special", "sam.run.inspection", "sam.run.sweep", "pytest", "tests.quick_process"]


def start_server():
    """Start the fork server, unless it runs; after that, multiprocessing's "forkserver" is this one."""
    SERVER.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, {"PYTHONPATH": str(ROOT)}):
        forkserver.ensure_running()


def _forks(**settings):
    return LaunchConfig(**{**settings, "start_method": "fork"})


def _script(arguments, folder, environment, pipes, own_group):
    """Become python SCRIPT ARGUMENTS, in the folder."""
    api.LaunchConfig = _forks
    for number, pipe in enumerate(pipes, start=1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    # The server's own streams may believe that they can seek.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    if own_group:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(arguments)
    sys.path[:0] = [str(ROOT)]
    runpy.run_path(arguments[0], run_name="__main__")


class QuickProcess:
    """What subprocess.Popen is for [python, *arguments], with both outputs as texts.

    Args:
        arguments: A script and its arguments.
        folder: Where it runs.
        environment: Its environment variables; None for those of this process.
        own_group: Start it in a process group of its own, as a terminal does.
    """

    def __init__(self, arguments, folder, environment=None, own_group=False):
        start_server()
        readers, writers = zip(*(SERVER.Pipe(duplex=False) for _ in range(2)))
        environment = dict(os.environ if environment is None else environment)
        details = (list(map(str, arguments)), str(folder), environment, writers, own_group)
        self._process = SERVER.Process(target=_script, args=details)
        self._process.start()
        for writer in writers:
            writer.close()
        self.stdout, self.stderr = map(_as_text, readers)
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def kill(self):
        self._process.kill()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def communicate(self, timeout=None):
        """Wait for the end; return what nobody has read yet of stdout and stderr, those that are open."""
        texts = ["", ""]

        def read(index, file):
            with file:
                texts[index] = file.read()

        files = [(index, file) for index, file in enumerate((self.stdout, self.stderr)) if not file.closed]
        threads = [threading.Thread(target=read, args=pair) for pair in files]
        for thread in threads:
            thread.start()
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired("quick process", timeout)
        for thread in threads:
            thread.join()
        return tuple(texts)


def _as_text(reader):
    text = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
    reader.close()
    return text


def run(arguments, folder, environment=None):
    """Do what subprocess.run does for [python, *arguments] with capture_output and text."""
    process = QuickProcess(arguments, folder, environment)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)
