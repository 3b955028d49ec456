"""Who looks beside the work looks again and again, and never once the work has ended."""

import threading

import pytest

from medllm.pipeline.beside import beside


def test_it_looks_again_and_again_and_the_look_that_has_begun_ends_before_the_block_is_left():
    looks, thrice, slow = [], threading.Event(), threading.Event()

    def look() -> None:
        looks.append("begun")
        if len(looks) >= 5:
            thrice.set()
            slow.wait(0.2)
        looks.append("ended")

    with beside(look, 0.01, "a test"):
        assert thrice.wait(60)
    assert looks[-1] == "ended"
    assert "a test" not in {thread.name for thread in threading.enumerate()}


def test_a_fault_of_the_work_passes_and_ends_the_looking():
    with pytest.raises(ZeroDivisionError), beside(lambda: None, 0.01, "a test"):
        raise ZeroDivisionError
    assert "a test" not in {thread.name for thread in threading.enumerate()}
