"""Benchmarks: what each is, where it comes from, and how its folder becomes questions."""

from medllm.exam.benchmarks.catalogue import CATALOGUE, Benchmark
from medllm.exam.benchmarks.loading import exemplars, load, translations

__all__ = ["CATALOGUE", "Benchmark", "exemplars", "load", "translations"]
