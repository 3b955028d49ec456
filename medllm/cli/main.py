"""Where the program starts: it registers the commands and prints an expected error as one line."""

import errno
import sys
from typing import NoReturn

# The commands register themselves on `app`.
from medllm.cli import check, evaluate, exam, hub, merge, page, quickstart, run, score  # noqa: F401
from medllm.cli.app import app
from medllm.errors import MedllmError, MissingExtraError

__all__ = ["app", "main"]

EXTRAS = {
    "accelerate": "train",
    "bitsandbytes": "train",
    "datasets": "train",
    "datatrove": "curate",
    "docx": "curate",
    "gradio": "space",
    "peft": "train",
    "pptx": "curate",
    "safetensors": "train",
    "torch": "train",
    "transformers": "train",
    "trl": "train",
}
"""The extra that installs a library, by its import name."""


def main() -> None:
    """Run the command line; print an expected error as one message and exit with code 1."""
    try:
        app()
    except MedllmError as error:
        _exit_with(error)
    except Exception as error:
        expected = _missing_extra(error) or _unreadable(error) or _hub_error(error)
        if expected is None:
            raise
        _exit_with(expected)


def _exit_with(error: MedllmError) -> NoReturn:
    print(f"medllm: {error} [{error.code}]", file=sys.stderr)
    sys.exit(1)


def _missing_extra(error: Exception) -> MedllmError | None:
    """Name the extra that installs a missing library."""
    library = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return MissingExtraError(EXTRAS[library], f"this command uses {library}, which") if library in EXTRAS else None


def _unreadable(error: Exception) -> MedllmError | None:
    """Name a file that this user may not open, or that is a folder where a file is meant."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR):
        return None
    return MedllmError(
        "command.unusable-file", f"{error.filename}: {error.strerror}. See what it is and who may use it."
    )


def _hub_error(error: Exception) -> MedllmError | None:
    """Convert an error that huggingface_hub raised inside another library."""
    if "huggingface_hub" not in sys.modules:
        return None
    from medllm.hub.errors import to_hub_error

    return to_hub_error("the Hub", error)
