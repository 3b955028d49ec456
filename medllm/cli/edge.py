"""The rim of the program: where the commands are gathered and where a foreseen fault becomes one line."""

import logging
import os
import sys
from typing import NoReturn

import typer
import typer.core

from medllm.errors import MedllmError, MissingExtraError

ORDER = (
    "quickstart",
    "check",
    "run",
    "ablate",
    "status",
    "trace",
    "ask",
    "score",
    "stability",
    "audit",
    "merge",
    "hub",
    "app",
)
"""The commands as a reader meets them: before a run, the run, its results, then single tools."""

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


class InOrder(typer.core.TyperGroup):
    """Lists the commands in that order, not in the order of the alphabet of their files."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Name the commands; one that the order does not know comes last, and a test says so."""
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=InOrder,
    name="medllm",
    help="Continued pretraining and reasoning preference optimization for medical LLMs, on the Hugging Face Hub.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def medllm() -> None:
    """Make a medical language model, keep it stable when it explains itself, and measure both."""
    # No library tells anybody what is done here; who wants that says so.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # bitsandbytes tells whoever imports PEFT that it lacks a kernel for 4-bit products on CPUs, which we switch off.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # Libraries read these once, when they are imported; their bars would fight with our line, and fill a log.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


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


from medllm.cli import ask as _ask  # noqa: E402, F401
from medllm.cli import check as _check  # noqa: E402, F401  the commands register themselves on `app`
from medllm.cli import corpus as _corpus  # noqa: E402, F401
from medllm.cli import exam as _exam  # noqa: E402, F401
from medllm.cli import hub as _hub  # noqa: E402, F401
from medllm.cli import quickstart as _quickstart  # noqa: E402, F401
from medllm.cli import run as _run  # noqa: E402, F401
from medllm.cli import space as _space  # noqa: E402, F401
from medllm.cli import weights as _weights  # noqa: E402, F401
