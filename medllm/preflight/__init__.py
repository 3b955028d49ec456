"""Preflight: everything a recipe reads is opened before the first hour of work, and all faults are reported at once."""

from medllm.preflight.exams import refuse_all
from medllm.preflight.inspect import inspect

__all__ = ["inspect", "refuse_all"]
