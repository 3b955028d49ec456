"""The page's server: where it listens, and a port that is taken."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from medllm.page.serve import check_port, close, free_port
from tests.refusals import refused


@pytest.fixture
def taken():
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_and_any_port_are_fine():
    check_port("127.0.0.1", free_port())
    check_port("127.0.0.1", None)


def test_a_taken_port_is_refused(taken):
    with refused("page.port-taken", f"127.0.0.1:{taken}", "--port 0"):
        check_port("127.0.0.1", taken)


@pytest.mark.parametrize("port", [70_000, -1])
def test_a_number_that_is_no_port_is_refused(port):
    with refused("page.port-taken", port):
        check_port("127.0.0.1", port)


def test_the_command_refuses_a_taken_port_in_one_line(taken, tmp_path):
    command = [str(Path(sys.executable).with_name("medllm")), "app", "--port", str(taken)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"medllm: 127.0.0.1:{taken}: ")
    assert done.stderr.endswith("[page.port-taken]\n")
    assert done.stderr.count("\n") == 1


class Page:
    """A page whose end fails as gradio's does when a stream goes at the same moment; its server is a socket."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))

    def close(self):
        raise RuntimeError("deque mutated during iteration")


def test_a_page_whose_streams_go_while_it_closes_is_closed_all_the_same():
    page = Page()
    address = page.server.getsockname()
    close(page)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address, timeout=5)
