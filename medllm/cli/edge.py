"""The rim of the program: where the commands are gathered and where a foreseen fault becomes one line."""

import sys
from typing import NoReturn

import typer

from medllm.errors import MedllmError

app = typer.Typer(
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


def main() -> None:
    """Run the command line; a foreseen fault is printed as one message and ends with exit code 1."""
    try:
        app()
    except MedllmError as fault:
        _tell(fault)
    except Exception as fault:
        told = _hub_refusal(fault)
        if told is None:
            raise
        _tell(told)


def _tell(fault: MedllmError) -> NoReturn:
    print(f"medllm: {fault}", file=sys.stderr)
    sys.exit(1)


def _hub_refusal(fault: Exception) -> MedllmError | None:
    """Word what huggingface_hub raised inside another library, which our own door could not catch."""
    if "huggingface_hub" not in sys.modules:
        return None
    from medllm.hub.faults import worded

    return worded("the Hub", fault)


from medllm.cli import check as _check  # noqa: E402, F401  the commands register themselves on `app`
from medllm.cli import corpus as _corpus  # noqa: E402, F401
from medllm.cli import exam as _exam  # noqa: E402, F401
from medllm.cli import hub as _hub  # noqa: E402, F401
from medllm.cli import run as _run  # noqa: E402, F401
from medllm.cli import space as _space  # noqa: E402, F401
