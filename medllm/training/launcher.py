"""Start the processes of a training, on one node or several, end them with the run, and be one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from medllm.errors import MedllmError, TrainingError
from medllm.foreign_messages import silence_known_messages
from medllm.processes import exit_with_stdin
from medllm.recipe.settings import Cpt, Grpo, Rpo, Sft
from medllm.recipe.training import NAMED
from medllm.training.devices import refuse_config

MODULE = "medllm.training.launcher"
NODE = "node"
"""The first argument of the module where it is to be the launcher of a node, and not a process that trains."""
PASSED_ON = (signal.SIGUSR1, signal.SIGTERM)
"""Signals at which a training saves and ends; the processes that train get them, not the launchers between."""
GRACE = 60.0
"""Seconds that the processes have to end after Ctrl-C."""
OTHERS = "lost"
"""How the name of the file begins in which a process reports that it lost another one."""
STOPPED = "training.stopped-on-request"
"""The code of a process that saved its state because a scheduler asked it to end."""
FOLDER = "MEDLLM_LAUNCHED"
"""Set for the processes that were started here, which must not start any themselves: where they leave their words."""


def command(config: Path, *arguments: str) -> list[str]:
    """The command that starts every process of a training: here, or by `srun` one launcher on each node."""
    values = yaml.safe_load(config.read_text("utf-8"))
    nodes = int(values.get("num_machines") or 1)
    if nodes == 1:
        return [*launcher(config, values), "-m", MODULE, *arguments]
    meet = [socket.gethostname(), str(_port(os.environ.get("SLURM_JOB_ID", "")))]
    each = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", f"--cpus-per-task={each}"]
    node = [sys.executable, "-m", MODULE, NODE, str(config.absolute()), *meet]
    return [*srun, "--kill-on-bad-exit=1", *node, *arguments]


def launcher(config: Path, values: dict[str, Any], meet: tuple[str, str, str] | None = None) -> list[str]:
    """The launcher of one node; `meet` is the first node's name and port, and this node's number.

    Accelerate's own launcher wants MPI for several processes on a CPU; torch's does without.
    """
    if values.get("distributed_type") == "MULTI_CPU":
        nodes = int(values.get("num_machines") or 1)
        each = ["--nproc_per_node", str(int(values["num_processes"]) // nodes)]
        torch = [sys.executable, "-m", "torch.distributed.run"]
        # On a free port: at its usual one, two trainings on the same machine would be in each other's way.
        if meet is None:
            return [*torch, "--standalone", *each]
        return [*torch, *each, f"--nnodes={nodes}", f"--node_rank={meet[2]}", f"--master_addr={meet[0]}",
                f"--master_port={meet[1]}"]  # fmt: skip
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    if meet is None:
        return words
    return [*words, "--machine_rank", meet[2], "--main_process_ip", meet[0], "--main_process_port", meet[1]]


def on_cpu(config: Path) -> dict[str, str]:
    """What the processes must know when they are to leave GPUs alone."""
    values = yaml.safe_load(config.read_text("utf-8"))
    return {"ACCELERATE_USE_CPU": "true"} if values.get("use_cpu") else {}


def run(words: list[str], environment: dict[str, str]) -> int:
    """Run a program whose processes end with this one, even when it is killed: the pipe they hold then closes.

    SIGUSR1 and SIGTERM go on to the training processes, which save and end. After Ctrl-C they have a minute.
    """
    process = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin, _passing_on(process, environment[FOLDER]):
        return _awaited(process)


def _awaited(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except BaseException:
        try:
            process.wait(GRACE)  # Ctrl-C reached them too
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
        raise


@contextmanager
def _passing_on(process: subprocess.Popen[bytes], folder: str) -> Iterator[None]:
    """Hand signals to the processes that train, and to `srun`, which hands them to the other nodes."""

    def pass_on(number: int, _: FrameType | None) -> None:
        processes = enlisted(Path(folder))
        for worker in processes:
            with suppress(ProcessLookupError):
                os.kill(worker, number)
        if not processes or (isinstance(process.args, list) and process.args[0] == "srun"):
            process.send_signal(number)

    before = {}
    try:
        for number in PASSED_ON:
            before[number] = signal.signal(number, pass_on)
    except ValueError:  # only a main thread can listen to signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def enlist() -> None:
    """Record the process that trains here, so that a signal to save reaches it."""
    folder = Path(os.environ[FOLDER])
    if folder.is_dir():
        (folder / f"pid-{os.getpid()}-{socket.gethostname()}").touch()


def enlisted(folder: Path) -> list[int]:
    """The processes of this machine that train."""
    host = socket.gethostname()
    names = [path.name.split("-", 2) for path in folder.glob("pid-*")]
    return [int(number) for _, number, where in names if where == host]


def leave_fault(fault: BaseException) -> None:
    """Leave the message of a process that dies, for the run to show."""
    folder, rank = Path(os.environ[FOLDER]), os.environ.get("RANK", "0")
    if not folder.is_dir():
        return
    stopped = isinstance(fault, MedllmError) and fault.code == STOPPED
    kind = OTHERS if of_another(fault) else "stopped" if stopped else "fault"
    text = str(fault) if isinstance(fault, MedllmError) else f"{type(fault).__name__}: {fault}"
    with suppress(OSError):  # the disk may be what is full
        (folder / f"{kind}-{time.time():.6f}-{rank}").write_text(text, "utf-8")


def of_another(fault: BaseException) -> bool:
    """Whether a process fails only because it lost the connection to another one."""
    words = str(fault).lower()
    lost = ("connection closed by peer", "connection reset", "broken pipe", "gloo", "nccl", "timed out")
    named = type(fault).__name__.startswith("Dist")
    return named or (isinstance(fault, RuntimeError) and any(word in words for word in lost))


def first_fault(folder: Path) -> str | None:
    """Who died first, and its message; the others end because of it.

    Where every message is a lost connection, its other end was killed before it could report anything.
    """
    named = [*folder.glob("fault-*"), *folder.glob("stopped-*")]
    files = sorted(named, key=lambda path: float(path.name.split("-")[1]))
    if not files:
        killed = "a process was killed by a signal, as the kernel does when memory is full"
        return killed if any(folder.glob(f"{OTHERS}-*")) else None
    reasons = {path.read_text("utf-8") for path in files}
    if len(reasons) == 1 and len(files) > 1:
        return reasons.pop()
    return f"process {files[0].name.split('-')[2]}: {files[0].read_text('utf-8')}"


def was_stopped(folder: Path) -> bool:
    """Whether a process stopped on request with its state saved, and none for another reason."""
    return any(folder.glob("stopped-*")) and not any(folder.glob("fault-*"))


def _port(job: str) -> int:
    """A port that the nodes of a job agree on without speaking: from its number."""
    return 20_000 + zlib.crc32(f"medllm {job}".encode()) % 20_000


def _launch_node(config: str, host: str, port: str, *arguments: str) -> None:
    """Be the launcher of one node: `srun` starts one on each."""
    values = yaml.safe_load(Path(config).read_text("utf-8"))
    number = os.environ["SLURM_NODEID"]
    here = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    sys.stderr.write(f"medllm: node {int(number) + 1} of {values['num_machines']} ({here}) meets at {host}:{port}\n")
    words = launcher(Path(config), values, (host, port, number))
    sys.exit(run([*words, "-m", MODULE, *arguments], dict(os.environ)))


SETTINGS: dict[str, type[Cpt] | type[Sft] | type[Rpo] | type[Grpo]] = {"cpt": Cpt, "sft": Sft, "rpo": Rpo, "grpo": Grpo}


def launch_processes(stage: str, settings: Cpt | Sft | Rpo | Grpo, sources: dict[str, Path], out: Path) -> bool:
    """Run the stage under `accelerate launch` when its settings ask for it and we are not there already."""
    if settings.accelerate is None or FOLDER in os.environ or "RANK" in os.environ:
        return False
    config = Path(settings.accelerate)
    if settings.accelerate in NAMED:  # one device: there is nothing to divide
        return False
    if not config.is_file():
        raise TrainingError(
            "training.no-accelerate-config",
            f"{stage}.accelerate: there is no file {config}. Write {' or '.join(NAMED)}, or the path of a config file.",
        )
    refuse_config(stage, settings, yaml.safe_load(config.read_text("utf-8")))
    out.parent.mkdir(parents=True, exist_ok=True)
    given = out.with_name(out.name + ".given.json")
    places = {name: str(path.absolute()) for name, path in sources.items()}
    given.write_text(
        json.dumps({"stage": stage, "settings": settings.model_dump(mode="json"), "sources": places}), "utf-8"
    )
    folder = out.with_name(out.name + ".processes")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    words = command(config, str(given), str(out))
    try:
        code = run(words, {**os.environ, FOLDER: str(folder.absolute()), **on_cpu(config)})
        fault, stopped = first_fault(folder), was_stopped(folder)
    finally:
        given.unlink()
        shutil.rmtree(folder, ignore_errors=True)
    if stopped:
        raise TrainingError("training.stopped-on-request", f"{fault} All processes have ended.")
    if code or not (out / "facts.json").is_file():
        why = f"{fault.rstrip('.')}. All processes have ended" if fault else f"the processes ended with code {code}"
        raise TrainingError(
            "training.process-failed",
            f"{stage}: {why}; the log above has more. Run again to continue from the last checkpoint.",
        )
    return True


def _train(given: Path, out: Path) -> None:
    """Be one of the processes."""
    silence_known_messages()
    exit_with_stdin()  # so that a resumed run never writes at the same time as this process
    enlist()
    read = json.loads(given.read_text("utf-8"))
    stage = read["stage"]
    settings = SETTINGS[stage].model_validate(read["settings"])
    sources = {name: Path(path) for name, path in read["sources"].items()}
    try:
        import_module(f"medllm.stages.{stage}").make(settings, sources, out)
    except MedllmError as fault:
        leave_fault(fault)
        sys.exit(f"{stage}: {fault}")  # a foreseen fault needs no traceback from each process
    except BaseException as fault:
        leave_fault(fault)
        raise


def main() -> None:
    """Be the launcher of a node, or one of the processes, by the first argument."""
    if sys.argv[1] == NODE:
        _launch_node(*sys.argv[2:])
    else:
        _train(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
