"""Make a language model good at a medical exam, keep it good when it explains itself, and measure both."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from medllm.library import audit, compare, evaluate, load_results, parse, score, stability

__all__ = ["__version__", "audit", "compare", "evaluate", "load_results", "parse", "score", "stability"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  a function of the library
    """Load the library when one of its functions is first used: `medllm --help` starts without it."""
    if name in __all__:
        return getattr(import_module("medllm.library"), name)
    raise AttributeError(f"module `medllm` has no attribute `{name}`")


def __dir__() -> list[str]:
    return __all__
