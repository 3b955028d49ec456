"""The fault of one text or file: it is counted and the work goes on, where a fault of the recipe ends it."""

from medllm.errors import DataError


class UnreadableError(DataError):
    """A text that cannot be read; its message opens with the reason it is counted under, as `scanned_pdf: ...`."""
