"""Runs jobs: each in a separate folder and process group, with its output in a log and its end recorded."""

import logging
import shutil
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress

from medllm.errors import HubError
from medllm.localhub.jobs import command, records, volumes
from medllm.localhub.jobs.records import JobLog, Spec
from medllm.localhub.store.accounts import Caller
from medllm.localhub.store.store import Store
from medllm.processes import start_guarded

log = logging.getLogger("medllm.localhub")


class _Running:
    """A job's process, and the stage in which a user or a timeout ends it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped: str | None = None
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()

    def stop(self, stage: str) -> None:
        """Close the guard's pipe: it ends the whole group."""
        with self.lock:
            self.stopped = self.stopped or stage
            if self.process is not None and self.process.stdin is not None:
                with suppress(OSError):
                    self.process.stdin.close()


class JobRunner:
    """The jobs of one server."""

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url
        self._running: dict[str, _Running] = {}
        records.end_all_left_over(store)

    def start(self, caller: Caller, number: str, spec: Spec, secret: Mapping[str, str]) -> None:
        """Start a job that is already recorded."""
        running = self._running[number] = _Running()
        running.thread = threading.Thread(target=self._run, args=(running, caller, number, spec, secret), daemon=True)
        running.thread.start()

    def cancel(self, number: str) -> None:
        """End a job and everything it started."""
        running = self._running.get(number)
        if running is not None:
            running.stop("CANCELED")
            records.set_stage(self._store, number, "CANCELED")

    def stop(self) -> None:
        """Ask every job to end."""
        for running in list(self._running.values()):
            running.stop("ERROR")

    def close(self) -> None:
        """End every job; the server stops."""
        self.stop()
        for running in list(self._running.values()):
            if running.thread is not None:
                running.thread.join(15)

    def _run(self, running: _Running, caller: Caller, number: str, spec: Spec, secret: Mapping[str, str]) -> None:
        folder = self._store.folder / "jobs" / number
        folder.mkdir(parents=True)
        lines = JobLog(records.log_path(self._store, number), self._store.limits.job_log_lines)
        try:
            stage, message = self._work(running, caller, number, spec, secret, lines)
        except (HubError, OSError) as fault:
            stage, message = "ERROR", str(fault)
            lines.write(str(fault))
        except Exception:
            log.exception("job %s failed", number)
            stage, message = "ERROR", "The hub failed to run this job; the hub's log shows why"
        lines.close()
        if running.stopped == "CANCELED":
            stage, message = "CANCELED", None
        elif running.stopped == "TIMEOUT":
            stage, message = "ERROR", "Job timeout"
        records.set_stage(self._store, number, stage, message)
        for name in ("volumes", "work", "home"):  # as in a container: what was not pushed or put in a bucket is gone
            shutil.rmtree(folder / name, ignore_errors=True)
        self._running.pop(number, None)

    def _work(
        self, running: _Running, caller: Caller, number: str, spec: Spec, secret: Mapping[str, str], lines: JobLog
    ) -> tuple[str, str | None]:
        folder = self._store.folder / "jobs" / number
        places = {volume.mount: folder / "volumes" / str(index) for index, volume in enumerate(spec.volumes)}
        for volume in spec.volumes:
            volumes.fill(self._store, caller, volume, places[volume.mount])
        plan = command.plan([command.relocate(word, places) for word in spec.command])
        lines.write(f"===== Job started on this machine: no image is used ({number}) =====")
        for note in plan.notes:
            lines.write(note)
        if not plan.command:
            return "ERROR", plan.notes[0]
        given = {name: command.relocate(value, places) for name, value in spec.environment.items()}
        standard = {
            "HF_ENDPOINT": self._url,
            "HF_HOME": str(folder / "home"),
            "JOB_ID": number,
            "NO_PROXY": "127.0.0.1,localhost",
        }
        code = self._wait(
            running, number, plan.command, command.environment({**standard, **given, **secret}), spec, lines
        )
        for volume in spec.volumes:
            if count := volumes.take_back(self._store, caller, volume, places[volume.mount]):
                lines.write(f"{count} files went back to the bucket {volume.source}")
        return ("COMPLETED", None) if code == 0 else ("ERROR", f"Job failed with exit code: {code}")

    def _wait(
        self, running: _Running, number: str, words: list[str], environment: dict[str, str], spec: Spec, lines: JobLog
    ) -> int:
        work = self._store.folder / "jobs" / number / "work"
        work.mkdir()
        with running.lock:
            if running.stopped:
                return 1
            running.process = process = start_guarded(
                words, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        records.set_stage(self._store, number, "RUNNING")
        timer = threading.Timer(spec.timeout, running.stop, ("TIMEOUT",)) if spec.timeout else None
        if timer:
            timer.daemon = True
            timer.start()
        with process:
            if process.stdout is not None:
                while line := process.stdout.readline(65536):
                    lines.write(line.decode("utf-8", "replace").rstrip("\r\n"))
            code = process.wait()
        if timer:
            timer.cancel()
        return code
