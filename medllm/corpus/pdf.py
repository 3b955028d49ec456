"""The text layer of a PDF; a scan, which has none, is refused with a reason and not turned into noise."""

import io
import logging
import re

from medllm.corpus.faults import Unreadable
from medllm.errors import MissingExtraError

SPARSE = 30
"""Characters a page on average; a scan with a stamped page number has fewer."""
_SEAM = re.compile(r"(?<=[ぁ-んァ-ヶー一-龥、，])\n(?=[ぁ-んァ-ヶー一-龥])")


def read_pdf(data: bytes) -> str:
    """The text of all pages, with the line breaks inside Japanese sentences closed."""
    try:
        import pypdf
    except ImportError as fault:
        raise MissingExtraError("curate", "Reading PDFs") from fault
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("locked_pdf: it needs a password. Save it without one.")
        pages = [page.extract_text() for page in reader.pages]
    except Unreadable:
        raise
    except Exception as fault:  # pypdf raises what its parsers happen to meet; the file is named by the caller
        raise Unreadable(f"broken_pdf: {type(fault).__name__}: {fault}") from fault
    held = sum(len(page.split()) and len("".join(page.split())) for page in pages)
    if held < SPARSE * len(pages) or not pages:
        raise Unreadable(
            f"scanned_pdf: {len(pages)} pages hold {held} characters. Run OCR, check what it read, hand in the text."
        )
    return _SEAM.sub("", "\n\n".join(pages))
