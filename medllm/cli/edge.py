"""The rim of the program: where the commands are gathered and where a foreseen fault becomes one line."""

import sys
from typing import NoReturn

# The commands register themselves on `app`.
from medllm.cli import ask, check, corpus, exam, hub, quickstart, run, space, weights  # noqa: F401
from medllm.cli.program import app
from medllm.errors import MedllmError, MissingExtraError

__all__ = ["app", "main"]

EXTRAS = {
    "accelerate": "train",
    "bitsandbytes": "train",
    "datasets": "train",
    "datatrove": "curate",
    "gradio": "space",
    "peft": "train",
    "safetensors": "train",
    "torch": "train",
    "transformers": "train",
    "trl": "train",
}
"""The extra that brings a library, for those who installed the light core."""


def main() -> None:
    """Run the command line; a foreseen fault is printed as one message and ends with exit code 1."""
    try:
        app()
    except MedllmError as fault:
        _tell(fault)
    except Exception as fault:
        told = _missing_extra(fault) or _hub_refusal(fault)
        if told is None:
            raise
        _tell(told)


def _tell(fault: MedllmError) -> NoReturn:
    print(f"medllm: {fault}", file=sys.stderr)
    sys.exit(1)


def _missing_extra(fault: Exception) -> MedllmError | None:
    """Word a library that is not installed here by the extra that brings it."""
    library = (fault.name or "").split(".")[0] if isinstance(fault, ModuleNotFoundError) else ""
    return MissingExtraError(EXTRAS[library], f"this command uses {library}, which") if library in EXTRAS else None


def _hub_refusal(fault: Exception) -> MedllmError | None:
    """Word what huggingface_hub raised inside another library, which our own door could not catch."""
    if "huggingface_hub" not in sys.modules:
        return None
    from medllm.hub.faults import worded

    return worded("the Hub", fault)
