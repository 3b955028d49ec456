"""However a run fails, its token stands nowhere: not in what it says, its traceback, variables, or files it leaves."""

import errno
import io
import os
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.traceback import Traceback

from medllm.errors import MedllmError
from medllm.hub import connect
from medllm.launch.jobs import HubJobs
from medllm.localhub.store import accounts
from medllm.localhub.store.store import Store
from medllm.pipeline import BuildContext, make_plan, run
from tests.hub.weather import Storm, weather
from tests.refusals import refused


def nothing(workshop, proxy) -> tuple[str, ...]:
    """Leave all as it is."""
    return ()


def no_token(workshop, proxy):
    workshop.hub = replace(workshop.hub, token=None)
    return ()


def token_that_may_only_read(workshop, proxy):
    with Store(workshop.folder / "hub").database.write() as connection:
        token = accounts.issue(connection, accounts.add_user(connection, "clinic"), role="read", label="test")
    workshop.hub = replace(workshop.hub, token=token)
    return ()


def namespace_of_others(workshop, proxy):
    return ("namespace=other",)


def foreign_content(workshop, proxy):
    api = workshop.hub.api
    api.create_repo("clinic/toy-cpt")
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="a.txt", repo_id="clinic/toy-cpt")
    return ()


def full_disk(workshop, proxy):
    def fill(stage, part):
        raise OSError(errno.ENOSPC, "No space left on device")

    workshop.before_the_end = fill
    return ()


def fault_of_a_stage(workshop, proxy):
    def fail(stage, part):
        raise ZeroDivisionError

    workshop.before_the_end = fail
    return ()


def storm(**settings):
    """The Hub, or the way to it, fails every commit."""

    def brew(workshop, proxy):
        proxy.storms = [Storm("POST .*/commit/", 99, **settings)]
        return ()

    return brew


def wrong_clock(workshop, proxy):
    proxy.headers = {"Date": "Fri, 01 Jan 2100 00:00:00 GMT"}
    return storm(status=403)(workshop, proxy)


def nonsense(path):
    """The Hub answers what no Hub answers: a fault that nobody foresaw, with its whole traceback."""

    def brew(workshop, proxy):
        proxy.storms = [Storm(path, 99, 200, content=b"not a word of JSON")]
        return ()

    return brew


FAILURES = {
    "no token": (no_token, {"hub.no-token"}),
    "read-only": (token_that_may_only_read, {"hub.read-only-token"}),
    "wrong namespace": (namespace_of_others, {"hub.foreign-namespace"}),
    "foreign content": (foreign_content, {"hub.foreign-files"}),
    "network down": (storm(status=None), {"hub.unreachable"}),
    "network down after": (storm(status=None, after=True), {"hub.unreachable", "hub.moved"}),
    "clock skew": (wrong_clock, {"hub.forbidden"}),
    "moved": (storm(status=412), {"hub.moved"}),
    "full disk": (full_disk, {"stage.disk-full"}),
    "429": (storm(status=429), {"hub.too-many-requests"}),
    "500": (storm(status=500), {"hub.server-error"}),
    "507": (storm(status=507), {"hub.full"}),
    "nonsense for a commit": (nonsense("POST .*/commit/"), None),
    "nonsense for whoami": (nonsense("GET /api/whoami"), None),
    "nonsense for a repository": (nonsense("GET /api/(models|datasets)/"), None),
    "fault of a stage": (fault_of_a_stage, None),
}
SHORT = ("no token", "network down", "500", "nonsense for a commit", "fault of a stage")
"""One failure of each kind, for `make test`; the sweep is all of them."""


def everything_shown(fault: BaseException) -> str:
    """The traceback of a fault and of all that caused it, with the variables of every frame but the test's own."""
    ours = str(Path(__file__).parents[2] / "tests")
    settings = traceback.TracebackException.from_exception(fault, capture_locals=True)
    chain = [settings]
    while below := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(below)
    for one in chain:
        one.stack = traceback.StackSummary.from_list(
            frame for frame in one.stack if not frame.filename.startswith(ours)
        )
    page = io.StringIO()
    rich = Traceback.from_exception(type(fault), fault, fault.__traceback__, show_locals=True, locals_max_string=None)
    for stack in rich.trace.stacks:
        stack.frames = [frame for frame in stack.frames if not frame.filename.startswith(ours)]
    Console(file=page, width=400).print(rich)
    return "".join(settings.format(chain=True)) + page.getvalue() + "".join(traceback.format_exception(fault))


def searched(folder: Path, token: str) -> list[Path]:
    """Files that hold the token."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 3
    return [path for path in files if token.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("fails", "codes"),
    [pytest.param(*case, id=name, marks=[] if name in SHORT else pytest.mark.long) for name, case in FAILURES.items()],
)
def test_the_token_is_nowhere_after(workshop, capfd, monkeypatch, fails, codes):
    monkeypatch.setenv("HF_TOKEN", workshop.hub.token)
    proxy, end = weather(workshop.hub.endpoint)
    changes = fails(workshop, proxy)
    token = workshop.hub.token or os.environ["HF_TOKEN"]
    workshop.hub = replace(workshop.hub, endpoint=proxy.url, waits=())
    try:
        with pytest.raises(MedllmError if codes else Exception) as fault:
            workshop.run(*changes)
    finally:
        end()
    assert codes is None or fault.value.code in codes, fault.value
    shown = everything_shown(fault.value)
    assert "medllm/pipeline" in shown
    assert "hub = " in shown or "bench = " in shown, "no variables are shown, so nothing was searched"
    printed = capfd.readouterr()
    for text in (shown, printed.out, printed.err, *workshop.messages):
        assert token not in text
    assert searched(workshop.folder, token) == []
    assert not workshop.hub.cache.exists() or token.encode() not in b"".join(
        path.read_bytes() for path in workshop.hub.cache.rglob("*") if path.is_file()
    )


@pytest.mark.slow
def test_the_token_is_nowhere_after_a_job_that_dies(workshop, capfd, tmp_path):
    dying = tmp_path / "dying.py"
    dying.write_text("import os, sys\nprint('the token is', os.environ['HF_TOKEN'], flush=True)\nsys.exit(3)\n")
    messages = []
    with connect(str(tmp_path / "jobs-hub"), "clinic", jobs=True) as hub:
        plan = make_plan(workshop.recipe(), hub, ("corpus",))
        with refused("launch.job-without-progress", "ERROR") as fault:
            run(
                plan,
                BuildContext(hub, tmp_path / "runs", messages.append),
                HubJobs(script=dying).launch,
                lambda plan: None,
            )
    assert any("the token is ***" in line for line in messages)
    printed = capfd.readouterr()
    for text in (everything_shown(fault.value), printed.out, printed.err, *messages):
        assert hub.token not in text
