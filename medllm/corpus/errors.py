"""The error of one text or file: it is counted and the run continues; an error of the recipe ends the run."""

from medllm.errors import DataError


class UnreadableError(DataError):
    """A text that cannot be read; its message opens with the reason it is counted under, as `scanned_pdf: ...`."""
