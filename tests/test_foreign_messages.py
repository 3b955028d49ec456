"""Known messages of libraries: what is in the list is silent, what is not is shown, and each entry has its reason."""

import subprocess
import sys

from medllm.foreign_messages import LINES, WARNINGS

PROGRAM = """
import logging, warnings
from medllm.foreign_messages import silence_known_messages
silence_known_messages(); silence_known_messages()
warnings.warn("It seems that you are about to commit a data file (x) to a space repository", UserWarning)
warnings.warn("another", UserWarning)
warnings.warn_explicit("old name", FutureWarning, "x.py", 1, module="peft.tuners")
warnings.warn_explicit("our own", FutureWarning, "x.py", 1, module="medllm.stages")
logging.getLogger("transformers.trainer_utils").warning("mtime may not be reliable on this filesystem")
logging.getLogger("transformers.trainer_utils").warning("something else")
"""


def test_what_is_in_the_list_is_silent_and_all_else_is_shown():
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stderr
    for silent in ("data file", "old name", "mtime"):
        assert silent not in shown
    for loud in ("another", "our own", "something else"):
        assert loud in shown


def test_every_entry_has_a_reason_of_its_own():
    reasons = [known.reason for known in (*WARNINGS, *LINES)]
    assert all(reasons) and len(set(reasons)) == len(reasons)
