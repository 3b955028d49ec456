"""What a run prints: dated lines in a log, a live last line on a terminal, and no question without a terminal."""

import io
import re
import sys
from queue import Queue
from types import SimpleNamespace

from rich.console import Console

from medllm.cli import console
from medllm.cli.console import EXPECTED_SECONDS, QuickstartDisplay, Reporter, handle_interrupt, open_reporter
from medllm.files import write_text
from medllm.wording import format_duration
from tests.refusals import refused


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_in_a_log_each_line_is_dated_and_progress_comes_now_and_then(capsys, monkeypatch):
    with open_reporter() as reporter:
        reporter.say("cpt: at work")
        reporter.progress("cpt: 1 % done, loss 3.2")
        reporter.progress("cpt: 2 % done, loss 3.1")
        monkeypatch.setattr(console, "PROGRESS_EVERY", 0.0)
        reporter.progress("cpt: 3 % done, loss 3.0")
        assert not reporter.confirm("Rebuild clinic/toy?")
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert all(re.match(r"\d\d:\d\d:\d\d cpt: ", line) for line in lines)
    assert [line.split(": ", 1)[1] for line in lines] == ["at work", "1 % done, loss 3.2", "3 % done, loss 3.0"]


def test_on_a_terminal_what_happened_stays_and_the_latest_progress_is_the_last_line(monkeypatch):
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    with open_reporter() as reporter:
        reporter.say("corpus: exists as clinic/toy-corpus@[1234567]")
        reporter.progress("cpt: 10 % done, loss 3.2, 40 s left")
    shown = screen.getvalue()
    assert re.search(r"\d:\d\d  corpus: exists as clinic/toy-corpus@\[1234567\]\n", shown)  # brackets are no markup
    assert "\x1b[" in shown  # the live line is redrawn and gone at the end


def test_on_a_console_of_its_own_only_what_is_reported_is_shown_with_the_minutes_elapsed(monkeypatch):
    screen, elsewhere = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", elsewhere)
    with open_reporter(Console(file=screen, force_terminal=True, highlight=False)) as reporter:
        print("a library's warning", file=sys.stderr)
        reporter.say("corpus: done in 5 s")
    assert "  0:00  corpus: done in 5 s" in screen.getvalue()
    assert "warning" not in screen.getvalue()
    assert elsewhere.getvalue() == "a library's warning\n"


def test_the_quickstart_shows_the_pipelines_progress_with_the_time_that_is_left(monkeypatch, tmp_path):
    kinds = {"repo_id": "mini/cpt", "kind": "model"}
    item = SimpleNamespace(stage="cpt", digest="sha256:0123456789", standing=None, **kinds)
    facts = tmp_path / "facts.json"
    hub = SimpleNamespace(find=lambda *known: SimpleNamespace(artifact="mini/cpt@1"), file=lambda *known: facts)
    plan = SimpleNamespace(recipe=SimpleNamespace(name="mini"), items=[item], missing=[item])
    messages, shown = [], Queue()
    display = QuickstartDisplay(Reporter(messages.append, shown.put, lambda question: False))

    def launch(plan, item, made, bench):
        display.progress("cpt: 40 % done, loss 6.609")
        while not (line := shown.get(timeout=60)).startswith("cpt: 40 %"):
            pass
        assert re.fullmatch(r"cpt: 40 % done, loss 6\.609, \d+ s elapsed, about \d+ (s|min) left in total", line)
        write_text(facts, '{"tokens_trained": 1234}')

    monkeypatch.setattr("medllm.launch.local.launch", launch)
    monkeypatch.setattr("medllm.pipeline.progress.POLL_SECONDS", 0.01)
    display.plan(plan)
    display.launch(plan, item, {}, SimpleNamespace(work=tmp_path, hub=hub))
    expected = format_duration(EXPECTED_SECONDS["cpt"])
    assert messages[:2] == [
        "  cpt         to build  mini/cpt",
        f"about {expected} on two idle cores, or less (an estimate)",
    ]
    assert re.fullmatch(r"cpt: done in \d+ s; 1,234 tokens", messages[-1])


def test_ctrl_c_ends_in_one_line_that_says_how_to_resume():
    with refused("command.interrupted"), handle_interrupt():
        raise KeyboardInterrupt
