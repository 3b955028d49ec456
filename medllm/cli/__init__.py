"""The command line: the docstring of a command is its help, results go to stdout, all else to stderr."""

from medllm.cli.main import main

__all__ = ["main"]
