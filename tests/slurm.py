"""A real Slurm on loopback, of one node or two, for the tests that send work to one; its daemons lie in a folder."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo", "squeue", "scancel", "setpriv")
INSTALL = "apt-get install slurmctld slurmd slurm-client munge, and this runs"
PATIENCE = 120
"""Seconds for the node to come up, and for the daemons to end."""

CONF = """
ClusterName=clinic
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={controller}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=64000 State=UNKNOWN\n"


def programs() -> str:
    """The path with the daemons' folders, which are not on everybody's."""
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


def missing() -> list[str]:
    """What of Slurm is not installed here."""
    return [name for name in PROGRAMS if shutil.which(name, path=programs()) is None]


@contextlib.contextmanager
def cluster(folder: Path, nodes: int = 1) -> Iterator[dict[str, str]]:
    """Start the daemons, one slurmd a node, wait for them, and give the environment that a user's commands need."""
    names = [f"node{number}" for number in range(nodes)]
    for name in ("state", *(f"spool-{name}" for name in names)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    settings = {"folder": folder, "host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
    made = [NODE.format(name=name, host=settings["host"], port=_port()) for name in names]
    (folder / "slurm.conf").write_text(CONF.format(**settings, controller=_port()) + "".join(made), "utf-8")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    environment = {"PATH": programs(), "SLURM_CONF": str(folder / "slurm.conf")}
    with contextlib.ExitStack() as stack:
        _start(stack, folder, environment, ["munged", "--foreground", "--force", *_munge(folder)])
        _wait(folder, "munged", lambda: (folder / "munge.socket").exists())
        _start(stack, folder, environment, ["slurmctld", "-D"])
        for name in names:
            _start(stack, folder, environment, ["slurmd", "-D", "-N", name])
        idle = " ".join(["idle"] * nodes)
        _wait(
            folder,
            "the nodes",
            lambda: " ".join(_ask(environment, "sinfo", "-N", "--noheader", "--format=%T").split()) == idle,
        )
        stack.callback(_clear, folder, environment)
        yield environment


def _munge(folder: Path) -> list[str]:
    names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return [f"--{option}={folder}/munge.{name}" for option, name in names.items()]


def _start(stack: contextlib.ExitStack, folder: Path, environment: dict[str, str], command: list[str]) -> None:
    """A daemon in the foreground whose words go into a log, and which ends with the test."""
    log = stack.enter_context((folder / f"{command[0]}.log").open("wb"))
    # They end with the process that began them, also when that is killed.
    command = ["setpriv", "--pdeathsig", "TERM", *command]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)

    def end() -> None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


def _wait(folder: Path, what: str, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > until:
            logs = "\n".join(f"{path.name}:\n{path.read_text('utf-8', 'replace')}" for path in folder.glob("*.log"))
            pytest.fail(f"{what} of the test's Slurm was waited for {PATIENCE} s in vain.\n{logs}")
        time.sleep(0.3)


def _ask(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _clear(folder: Path, environment: dict[str, str]) -> None:
    """What a failed test left in the queue ends before the daemons do: without them nobody would end it."""
    _ask(environment, "scancel", "--signal=KILL", "--full", f"--user={getpass.getuser()}")
    _ask(environment, "scancel", f"--user={getpass.getuser()}")
    _wait(folder, "an empty queue", lambda: not _ask(environment, "squeue", "--noheader"))


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
