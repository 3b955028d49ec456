"""The library: what `import medllm` gives to programs and notebooks, as docs/api.md lists it."""

from medllm.exam.extract.answer import parse
from medllm.library.functions import audit, compare, evaluate, load_results, score, stability
from medllm.library.results import Audit, Comparisons, Figure, Results, Scores, Stability

__all__ = [
    "Audit",
    "Comparisons",
    "Figure",
    "Results",
    "Scores",
    "Stability",
    "audit",
    "compare",
    "evaluate",
    "load_results",
    "parse",
    "score",
    "stability",
]
