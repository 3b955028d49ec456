"""Benchmarks: a catalogue with each set's source, and the readers that turn its folder into questions."""

from medllm.exam.benchmarks.catalogue import (
    CATALOGUE,
    Benchmark,
    exemplars,
    load,
    name_of_past_exam,
    translations,
    worked_examples,
)

__all__ = ["CATALOGUE", "Benchmark", "exemplars", "load", "name_of_past_exam", "translations", "worked_examples"]
