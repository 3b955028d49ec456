"""Parquet to drafts, a few rows at a time, and never a row group that would not fit in memory."""

from collections.abc import Iterator

from medllm.corpus.documents import Draft
from medllm.corpus.errors import UnreadableError
from medllm.corpus.read.rows import DEFAULTS, row_draft
from medllm.corpus.read.sources import SourcePart

ROOM = 1024 * 1024 * 1024
"""Maximum bytes of an unpacked row group."""


def read_parquet(piece: SourcePart) -> Iterator[Draft]:
    """Yield the drafts in a Parquet file; unpack only the requested columns."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(piece.path) as table:
            names = [*piece.source.columns.values(), *(name for names in DEFAULTS.values() for name in names)]
            there = table.schema_arrow.names
            wanted = [name for name in there if name in names]
            _fits(table.metadata)
            number = 0
            # If the file has no requested column, the fault of the first row lists the existing ones.
            for batch in table.iter_batches(batch_size=256, columns=wanted or there):
                for row in batch.to_pylist():
                    number += 1
                    yield row_draft(piece, f"{piece.name}:{number}", row)
    except pyarrow.ArrowException as fault:
        raise UnreadableError(
            "corpus.broken-parquet", f"the parquet file is broken ({fault}). Write it again."
        ) from None


def _fits(metadata: object) -> None:
    groups = getattr(metadata, "num_row_groups", 0)
    for number in range(groups):
        size = metadata.row_group(number).total_byte_size  # type: ignore[attr-defined]
        if size > ROOM:
            raise UnreadableError(
                "corpus.archive-bomb", f"row group {number} unpacks to {size:,} bytes. Write it in smaller groups."
            )
