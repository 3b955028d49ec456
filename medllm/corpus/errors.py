"""The error of one text or file: it is counted and the run continues; an error of the recipe ends the run."""

from medllm.errors import DataError


class UnreadableError(DataError):
    """A text that cannot be read; its code names the reason under which it is counted."""

    @property
    def reason(self) -> str:
        """Name the reason in the words of the corpus' table: `scanned_pdf` for `corpus.scanned-pdf`."""
        return self.code.partition(".")[2].replace("-", "_")

    @property
    def fault(self) -> str:
        """Write reason and text as a draft holds them: `scanned_pdf: 3 pages hold 1 characters. ...`."""
        return f"{self.reason}: {self}"
