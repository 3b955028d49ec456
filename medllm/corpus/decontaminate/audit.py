"""The audit of any texts against held-out exams: of a folder, of a stage's rows, of a teacher's answers."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from medllm.corpus.decontaminate.exam_items import ExamItem
from medllm.corpus.decontaminate.highlights import excerpt
from medllm.corpus.decontaminate.matcher import DROP, REVIEW, ExamIndex, index_of, match_in_slices
from medllm.corpus.decontaminate.report import SHOWN, AuditReport, Finding, Stage
from medllm.corpus.decontaminate.semantic import ALIKE, Encoder, SemanticIndex
from medllm.corpus.read.files import read_drafts
from medllm.corpus.read.sources import SourcePart, TextSource, split_into_tasks
from medllm.processes import begin_worker

BATCH = 200_000


@dataclass(frozen=True)
class AuditRequest:
    """Settings of an audit; they are sent to every process."""

    items: tuple[ExamItem, ...]
    stage: Stage = "corpus"
    drop: float = DROP
    review: float = REVIEW
    encoder: Path | None = None
    """The folder of a sentence encoder for a second search by meaning; a person judges its matches."""
    alike: float = ALIKE


def audit(texts: Iterable[tuple[str, str]], asked: AuditRequest) -> AuditReport:
    """Compare texts, each with its name, with the exams; keep nothing of a clean text in memory."""
    index = index_of(asked.items, asked.review)
    report = _report(index, asked)
    meanings = SemanticIndex(index.items, Encoder(asked.encoder)) if asked.encoder else None
    for batch in _batches(texts):
        for (name, text), (flagged, largest) in zip(
            batch, match_in_slices(index, [text for _, text in batch]), strict=True
        ):
            report.documents += 1
            report.characters += len(text)
            for one in largest:
                report.trace(index.items[one.item].name, one.containment, name)
            for one in flagged:
                item = index.items[one.item]
                decided = report.judge(one.containment)
                if decided is None:
                    continue
                found = Finding(name, item.name, one.containment, one.part, decided, asked.stage)
                report.record_match(found, excerpt(text, item) if len(report.shown) < SHOWN else [], item.text)
            for number, cosine in meanings.match(text, asked.alike) if meanings else ():
                if all(one.item != number for one in flagged):
                    item = index.items[number]
                    found = Finding(name, item.name, cosine, "meaning", "review", asked.stage)
                    report.record_match(found, excerpt(text, item) if len(report.shown) < SHOWN else [], item.text)
    return report


def audit_source(source: TextSource, asked: AuditRequest, *, workers: int = 1) -> AuditReport:
    """Audit all texts of a folder or file; count unreadable ones as unread, not as clean."""
    tasks = split_into_tasks([source])
    if workers == 1 or len(tasks) == 1:
        parts: Iterable[AuditReport] = (_audit_pieces(task, asked) for task in tasks)
        return _sum(parts, asked)
    with ProcessPoolExecutor(min(workers, len(tasks)), get_context("forkserver"), begin_worker) as pool:
        return _sum(pool.map(_audit_pieces, tasks, [asked] * len(tasks)), asked)


def _sum(parts: Iterable[AuditReport], asked: AuditRequest) -> AuditReport:
    whole = _report(index_of(asked.items, asked.review), asked)
    for part in parts:
        whole.add(part)
    return whole


def _report(index: ExamIndex, asked: AuditRequest) -> AuditReport:
    return AuditReport(len(index.items), index.unsearchable, asked.drop, asked.review)


def _audit_pieces(pieces: Sequence[SourcePart], asked: AuditRequest) -> AuditReport:
    unread: dict[str, int] = {}

    def texts() -> Iterator[tuple[str, str]]:
        for draft in (draft for piece in pieces for draft in read_drafts(piece)):
            if draft.fault:
                reason = draft.fault.partition(":")[0]
                unread[reason] = unread.get(reason, 0) + 1
            else:
                yield draft.locator, draft.text

    report = audit(texts(), asked)
    report.unread = unread
    return report


def _batches(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    held = 0
    for name, text in texts:
        batch.append((name, text))
        held += len(text)
        if held >= BATCH:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
