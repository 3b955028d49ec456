"""What every test may ask for: the shared exam data, where it is present."""

import itertools
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from medllm import foreign_messages
from tests.hang import Watch

# Before any library reads it: what the tests download must not land in, or come from, the cache of whoever runs them.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="medllm-tests-hf-home-")
# A local Hub asks the public one for sources that it does not hold; no test may.
os.environ["MEDLLM_UPSTREAM"] = "none"
# On a shared machine the threads of a small matrix product wait for each other far longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

NUMBERS = itertools.count()
ROOT = Path(__file__).parent.parent

HEAVY = ("browser", "long", "matrix", "slow")
"""Marks of tests that wait for a browser, a server or a training in another process."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background, a shell's children ignore Ctrl-C, and so would every process of a test.
    signal.signal(signal.SIGINT, signal.default_int_handler)


TOGETHER = ("tests/pipeline/test_whole", "tests/corpus/decontaminate/", "tests/localhub/clients/")
"""Files that share what is expensive to make: of several processes of tests, one runs all that match."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Give each process whole files, and files that share a fixture to the same one."""
    from xdist.scheduler import LoadFileScheduling

    class ByFixture(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((one for one in TOGETHER if re.match(one, nodeid)), super()._split_scope(nodeid))

    return ByFixture(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Make every warning an error but those that medllm silences by name."""
    for known in foreign_messages.WARNINGS:
        if known.message:
            config.addinivalue_line("filterwarnings", f"ignore:{known.message}:{known.category.__name__}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, and try what waits for another process twice; the summary shows both."""
    heavy = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long")}
    # Trainings take longest: were they last, one process would end with them alone.
    order = {path: number for number, path in enumerate(sorted(heavy, reverse=True))}
    # The browser comes last: while playwright is there, its event loop runs, and no other test could run one.
    items.sort(key=lambda item: (item.get_closest_marker("browser") is not None, order.get(item.path, len(order))))
    for item in items:
        if any(item.get_closest_marker(mark) for mark in HEAVY) and not item.get_closest_marker("flaky"):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))


@pytest.fixture(autouse=True)
def _own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the replies of a test to itself: another test asks its models anew."""
    monkeypatch.setenv("MEDLLM_ANSWERS", f"{os.environ['HF_HOME']}/answers-{next(NUMBERS)}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real exams and texts, which are never part of this repository; absent in CI is a failure, not a skip."""
    folder = Path(os.environ.get("MEDLLM_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        reason = f"no exam data at {folder}: set MEDLLM_SHARED_DATA to a folder with igakuqa/, yakugakuqa/, ..."
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture
def watchdog():
    """End what this test has started when it hangs, so that a hang is a failure within a minute; leave none behind."""
    mine = set()
    begin = subprocess.Popen.__init__

    def noted(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        mine.add(self)

    subprocess.Popen.__init__ = noted
    watch = Watch(os.getpid())
    watch.start()
    yield
    watch.stop()
    subprocess.Popen.__init__ = begin
    left = [one for one in mine if one.poll() is None]
    for one in left:
        one.kill()
    assert watch.fault is None, watch.fault
    assert left == [], "a process outlived its maker"
