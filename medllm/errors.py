"""The expected errors of medllm, each with a stable code and a text that names the place, the cause and the remedy.

    MedllmError
    ├── RecipeError       a recipe that cannot be run
    ├── DataError         exam, corpus or records that cannot be read as what they claim to be
    ├── ModelError        weights, adapters and tokenizers that do not fit together
    ├── TrainingError     a run that was stopped to keep its last good state
    ├── HubError          the Hub, a token or a repository
    ├── LaunchError       a job that could not be started or did not finish
    └── MissingExtraError a part of medllm that is not installed here

The command line turns each into one line and exit code 1; anything else is a bug and keeps its traceback.
docs/errors.md lists every code with its text; docs/error_codes.py reads both from the calls.
"""


class MedllmError(Exception):
    """An expected error: `code` names its kind ("exam.no-key"); its text names the place, the cause and the remedy.

    Codes are stable: programs and tests compare them. Texts may change.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[-1])


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
        super().__init__(
            "install.missing-extra", f"{needed_for} needs the `{extra}` extra: pip install 'medllm[{extra}]'"
        )
        self.extra, self.needed_for = extra, needed_for

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        return type(self), (self.extra, self.needed_for)
