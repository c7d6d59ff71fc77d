"""A real Slurm on this machine, for a test: munged, MariaDB, slurmdbd, slurmctld and slurmd, started by hand.

All of it lives in one folder and ends with the test. It has two partitions on the same two cores; jobs of
"urgent" preempt those of "normal", which Slurm then queues again.
"""

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager

PROGRAMS = (
    "munged",
    "mungekey",
    "mariadbd",
    "mariadb-install-db",
    "mariadb",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sacctmgr",
    "sbatch",
)
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdSpoolDir={folder}/slurmd
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldDebug=verbose
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass={folder}/munge.socket
AccountingStoragePort={ports[2]}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=300
SchedulerParameters=sched_interval=2,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=normal Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent Nodes={host} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""
DATABASE_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={ports[2]}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def why_not():
    """Return why there can be no Slurm here; None if there can."""
    if os.geteuid() != 0:
        return "Slurm's daemons want to be root"
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    return f"{missing[0]} is not installed" if missing else None


@contextmanager
def slurm(folder):
    """Start a cluster of this machine; give the environment that its commands need."""
    ports = _free_ports(3)
    values = {"folder": folder, "ports": ports, "cpus": os.cpu_count(), "host": socket.gethostname()}
    for name in ("slurmd", "state", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
    (folder / "slurmdbd.conf").write_text(DATABASE_CONF.format(**values))
    (folder / "slurmdbd.conf").chmod(0o600)
    env = {
        **os.environ,
        "PATH": os.environ["PATH"] + ":/usr/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
        "MYSQL_UNIX_PORT": str(folder / "mariadb.socket"),
    }
    with ExitStack() as stack:
        for command in _daemons(folder, env):
            stack.enter_context(_running(command, folder, env))
            _wait_for(folder, command[0], env)
        yield env
        subprocess.run(["scancel", "--state=RUNNING"], env=env, check=False)


def _daemons(folder, env):
    """Give the commands of the daemons, each once those before it answer."""
    key, data = folder / "munge.key", folder / "data"
    subprocess.run(["mungekey", "--create", f"--keyfile={key}"], env=env, check=True)
    yield [
        *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"),
        *(f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munged.log"),
        *(f"--seed-file={folder}/munge.seed", "--origin=127.0.0.1"),
    ]
    install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}"]
    subprocess.run(
        [*install, "--auth-root-authentication-method=normal"], env=env, check=True, capture_output=True
    )
    yield [
        *("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-networking"),
        *(f"--socket={folder}/mariadb.socket", f"--pid-file={folder}/mariadb.pid"),
    ]
    yield ["slurmdbd", "-D"]
    subprocess.run(["sacctmgr", "-i", "add", "cluster", "test"], env=env, check=False, capture_output=True)
    yield ["slurmctld", "-D", "-c"]
    yield ["slurmd", "-D"]


ANSWERS = {
    "munged": ["test", "-S", "munge.socket"],
    "mariadbd": ["mariadb", "--no-defaults", "-e", "select 1"],
    "slurmdbd": ["sacctmgr", "-n", "list", "cluster"],
    "slurmctld": ["scontrol", "ping"],
    "slurmd": ["sinfo", "--noheader", "--states=idle", "--responding"],
}


def _wait_for(folder, daemon, env, seconds=60):
    """Wait until a daemon answers."""
    deadline = time.monotonic() + seconds
    while True:
        asked = subprocess.run(ANSWERS[daemon], cwd=folder, env=env, capture_output=True, text=True)
        if asked.returncode == 0 and (daemon != "slurmd" or "idle" in asked.stdout):
            return
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob(f"{daemon}*.log"))
            raise TimeoutError(f"{daemon} does not answer: {asked.stdout}{asked.stderr}\n{logs}")
        time.sleep(0.2)


@contextmanager
def _running(command, folder, env):
    with open(folder / f"{command[0]}.printed.log", "wb") as printed:
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=printed, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(number):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
