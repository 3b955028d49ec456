"""The expected errors of medllm, each with the place, the fault and the remedy.

    MedllmError
    ├── RecipeError       a recipe that cannot be run
    ├── DataError         exam, corpus or records that cannot be read as what they claim to be
    ├── ModelError        weights, adapters and tokenizers that do not fit together
    ├── TrainingError     a run that was stopped to keep its last good state
    ├── HubError          the Hub, a token or a repository
    ├── LaunchError       a job that could not be started or did not finish
    └── MissingExtraError a part of medllm that is not installed here

The command line turns each into one line and exit code 1; anything else is a bug and keeps its traceback.
"""


class MedllmError(Exception):
    """An expected error: its text names the place, the fault and the remedy."""


class RecipeError(MedllmError):
    """A recipe that cannot be run; the text lists every fault of the file."""


class DataError(MedllmError):
    """Exam, corpus or record files that cannot be read as what they claim to be."""


class ModelError(MedllmError):
    """Weights, adapters or tokenizers that are broken or do not fit together."""


class TrainingError(MedllmError):
    """A training run stopped on purpose, with the last good state kept."""


class HubError(MedllmError):
    """The Hub refused, is out of reach, or holds something unexpected."""


class LaunchError(MedllmError):
    """A job that could not be started or did not finish its work."""


class MissingExtraError(MedllmError):
    """A part of medllm whose libraries are not installed here."""

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs the `{extra}` extra: pip install 'medllm[{extra}]'")
