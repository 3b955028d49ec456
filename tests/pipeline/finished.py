"""A whole recipe that was run once, for all tests that look at what it left; everything said and seen is kept."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medllm.localhub import LocalHub, serve
from medllm.work_progress import poll_in_background
from tests.pipeline import whole

MEDLLM = ("-c", "from medllm.cli import main; main()")


class Finished:
    """A recipe that was run, the Hub it stands on, and everything that was said or seen on the way."""

    def __init__(self, folder: Path, hub: LocalHub) -> None:
        self.folder, self.hub = folder, hub
        self.seen_processes: set[str] = set()
        self.tokens: list[str] = []
        self.first: subprocess.CompletedProcess[str]

    def environment(self, *, home: str = "home", token: str | None = None, url: str | None = None) -> dict[str, str]:
        """The environment of a shell that speaks to this Hub."""
        given = {"HF_ENDPOINT": url or self.hub.url, "HF_TOKEN": token or self.hub.token, "OMP_NUM_THREADS": "1"}
        return {**os.environ, **given, "HF_HOME": str(self.folder / home)}

    def call(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program and keep what it says and how it looks in `ps`."""
        with poll_in_background(lambda: self.seen_processes.update(command_lines()), 0.2, "watcher of processes"):
            done = subprocess.run(
                [sys.executable, *words],
                cwd=self.folder,
                env=self.environment(**more),
                capture_output=True,
                text=True,
                check=False,
            )
        self.tokens += [done.stdout, done.stderr]
        return done

    def medllm(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run medllm."""
        return self.call(*MEDLLM, *words, **more)

    def shell(self, line: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A line of the docs, by the program that it names."""
        program, *words = line.split()
        return self.medllm(*words, **more) if program == "medllm" else self.call(*words, **more)


def command_lines() -> set[str]:
    """Of all processes, as `ps` shows them to everybody."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("whole")
    whole.lay_out(folder)
    with serve(folder / "hub", user="clinic") as hub:
        run = Finished(folder, hub)
        run.first = run.medllm("run", "tiny.yaml")
        assert run.first.returncode == 0, run.first.stderr
        yield run
