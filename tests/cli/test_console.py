"""What a run prints: dated lines in a log, a live last line on a terminal, and no question without a terminal."""

import io
import re
import sys

from medllm.cli import console
from medllm.cli.console import handle_interrupt, open_reporter
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
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert told.out == ""
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


def test_ctrl_c_ends_in_one_line_that_says_how_to_resume():
    with refused("command.interrupted"), handle_interrupt():
        raise KeyboardInterrupt
