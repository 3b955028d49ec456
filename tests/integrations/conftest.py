"""Keeps pytest from importing the scripts that run in environments of their own."""

collect_ignore = ["harness.py", "inspected.py"]
