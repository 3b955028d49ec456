"""Any source, past exams too, as a stream of drafts: an unreadable file becomes a draft with a fault and is counted."""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace

from medllm.corpus.documents import Draft, UnreadableError
from medllm.corpus.read.office import read_docx, read_epub, read_pdf, read_pptx
from medllm.corpus.read.raw_files import LARGEST, decode, members, open_bytes
from medllm.corpus.read.rows import json_fault, read_csv, read_lines, read_parquet, refuse_without_text, row_draft
from medllm.corpus.read.sources import LINES, READABLE, SourcePart, TextSource, describes_source
from medllm.corpus.read.text_files import PageText, read_html, read_markdown
from medllm.exam import benchmarks
from medllm.exam.prompts import question_block, render, target_completion
from medllm.exam.question import Question, of_years
from medllm.exam.record import PromptStyle


def read_exam(source: TextSource) -> Iterator[Draft]:
    """Yield every question plainly and, where an expert explained it, with the explanation, as in the paper."""
    name = str(source.exam)
    for question in of_years(benchmarks.load(name, source.folder), source.years):
        for format_ in source.formats:
            if format_ == "plain" or question.explanation:
                yield _draft(source, question, format_)


def _draft(source: TextSource, question: Question, style: PromptStyle) -> Draft:
    joint = render(question, prompt=style, template=source.template).joint
    asked = question_block(question, style, source.template, "linked")
    known = benchmarks.CATALOGUE.get(question.benchmark)
    held_by = question.held_by.isoformat() if question.held_by else None
    exam_date = held_by if question.exam_date else source.exam_date or held_by
    return Draft(
        asked + joint + target_completion(question, style, source.template),
        source.name,
        f"{question.question_id} {style}",
        license=source.license or (_license(known.license) if known else None),
        # The recipe takes precedence: a set of today may hold explanations that were printed long ago.
        published=source.published or (known.published.isoformat() if known else exam_date),
        exam_date=exam_date,
        kind="replay" if source.kind == "replay" else "exam",
        topic=source.topic or "exam",
        group=f"{question.benchmark}/{question.question_id}",
        fault="needs_image: its text or its options speak of what only a picture shows" if _blind(question) else None,
    )


# A benchmark marks questions that were printed with a picture; in some only the explanation has one.
_SHOWN = re.compile(
    r"図|下表|次の表|表に|表中|写真|画像|構造|下記|以下に|以下の(?!記述|うち)|以下が|以下は|次の(?!記述|うち)|処方|示す|示した|示され|"
    r"(?:化合物|化学物質|物質|酵素|曲線|薬物|反応)[A-ZＡ-Ｚア-オⅠ-Ⅴ①-⑩]|[①-⑩]|[「\[][\s:：A-Z]*[」\]]|この(?:患者|薬|反応|商品|印刷)|今回|"
    r"(?:^|[、。\n])[A-EＡ-Ｅア-オ]{1,2}(?:は|の|と|が|、)|（[1-9]）|四角|下線|原子[a-z]|【|〜[A-Eウ-オ]"
)
_PLACEHOLDER = re.compile(r"^[(（]?図\s?\d*[)）]?$")


def _blind(question: Question) -> bool:
    """Return whether a question marked as having a picture mentions it; the others can be answered from their text."""
    if not question.image:
        return False
    options = [option for option in question.choices if not _PLACEHOLDER.match(option.strip())]
    whole = len(options) == len(question.choices) > 0
    return not whole or bool(_SHOWN.search("\n".join((question.context or "", question.text, *options))))


def _license(written: str) -> str:
    """Return the licence at the start of a catalogue entry, without the comment after it."""
    return written.split(";")[0].split(" (")[0].split(",")[-1].strip()


def read_drafts(piece: SourcePart) -> Iterator[Draft]:
    """Yield every draft of a piece in order; after a file that breaks half-way one more draft reports the fault."""
    try:
        yield from read_exam(piece.source) if piece.source.exam else refuse_without_text(piece, _read(piece))
    except UnreadableError as fault:
        # The first piece of a file reports a fault of the whole file, so it is reported once.
        if not piece.begin:
            yield piece.source.draft("", piece.name, {}, fault=fault.fault)
    except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
        yield piece.source.draft("", piece.name, {}, fault=f"broken_archive: {fault}. Pack it again.")
    except OSError as fault:
        why = f"unreadable_file: {fault.strerror or fault}. Check that it exists and that you can read it."
        yield piece.source.draft("", piece.name, {}, fault=why)


def _read(piece: SourcePart) -> Iterator[Draft]:
    name = piece.name.lower()
    if describes_source(piece.name):
        raise UnreadableError(
            "corpus.about-the-source", "it describes the source, so it is not learnt as a text of it."
        )
    if not name.endswith(READABLE):
        raise UnreadableError(
            "corpus.unknown-format",
            f"`{name.rpartition('.')[2]}` is not a readable format. Readable are {', '.join(READABLE)}.",
        )
    if name.endswith(LINES):
        yield from read_lines(piece)
    elif name.endswith(".parquet"):
        yield from read_parquet(piece)
    elif name.endswith(".zip"):
        for inner, data in members(piece.path):
            yield from _read_inner(piece, inner, data)
    else:
        if piece.size > LARGEST:
            raise UnreadableError(
                "corpus.too-large", f"the file has {piece.size:,} bytes, more than {LARGEST:,}. Cut it into parts."
            )
        with open_bytes(piece.path) as stream:
            yield from _read_data(piece, stream.read())


def _read_inner(piece: SourcePart, inner: str, data: bytes) -> Iterator[Draft]:
    named = replace(piece, name=f"{piece.name}/{inner}")
    try:
        yield from _read_data(named, data)
    except UnreadableError as fault:
        yield piece.source.draft("", named.name, {}, fault=fault.fault)


def _read_data(piece: SourcePart, data: bytes) -> Iterator[Draft]:
    name = piece.name.lower()
    if not data.strip():
        raise UnreadableError("corpus.empty-file", "the file is empty. Remove it.")
    if name.endswith((".csv", ".tsv")):
        yield from read_csv(piece, data)
    elif name.endswith(".json"):
        yield from _read_json(piece, data)
    else:
        page = _page(name, data)
        stated = {"published": page.published, "license": page.license}
        yield piece.source.draft(page.text, piece.name, stated)


def _page(name: str, data: bytes) -> PageText:
    if name.endswith(".pdf"):
        return PageText(read_pdf(data))
    if name.endswith(".docx"):
        return PageText(read_docx(data))
    if name.endswith(".pptx"):
        return PageText(read_pptx(data))
    if name.endswith(".epub"):
        return read_epub(data)
    if name.endswith((".html", ".htm")):
        return read_html(decode(data))
    if name.endswith(".md"):
        return read_markdown(decode(data))
    if name.endswith(".txt"):
        return PageText(decode(data))
    raise UnreadableError(
        "corpus.unknown-format", f"`{name.rpartition('.')[2]}` is not readable inside an archive. Unpack it."
    )


def _read_json(piece: SourcePart, data: bytes) -> Iterator[Draft]:
    import json

    try:
        rows = json.loads(decode(data))
    except (ValueError, RecursionError) as fault:
        raise UnreadableError("corpus.broken-json", f"not JSON: {json_fault(fault)}.") from None
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        if isinstance(row, dict):
            yield row_draft(piece, f"{piece.name}:{number}", row)
        else:
            yield piece.source.draft(
                str(row)[:1000], f"{piece.name}:{number}", {}, fault="broken_json: the row is not an object"
            )
