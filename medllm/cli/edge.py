"""The rim of the program: where the commands are gathered and where a foreseen fault becomes one line."""

import sys

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
    """Run the command line; a MedllmError is printed as one message and ends with exit code 1."""
    try:
        app()
    except MedllmError as fault:
        print(f"medllm: {fault}", file=sys.stderr)
        sys.exit(1)


from medllm.cli import check as _check  # noqa: E402, F401  the commands register themselves on `app`
from medllm.cli import exam as _exam  # noqa: E402, F401
from medllm.cli import run as _run  # noqa: E402, F401
from medllm.cli import space as _space  # noqa: E402, F401
