"""The audit of files for leaked exam questions: its run over all texts, and its report as lines, JSON and HTML."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.exam_items import ALPHABETIC, JAPANESE, ExamItem
from medllm.corpus.decontaminate.matcher import (
    DROP,
    REVIEW,
    ExamIndex,
    Verdict,
    index_of,
    match_in_slices,
    reveal,
    reveal_places,
    verdict,
)
from medllm.corpus.decontaminate.ngrams import among, fold_audit, fold_places, hash_grams
from medllm.corpus.read.files import read_drafts
from medllm.corpus.read.sources import SourcePart, TextSource, split_into_tasks
from medllm.errors import DataError, MissingExtraError
from medllm.files import write_text
from medllm.processes import begin_worker

EXCERPT_CHARACTERS = 1500
"""Characters of a text that are shown around a match."""


class Excerpt(NamedTuple):
    """A stretch of text, marked or not."""

    text: str
    marked: bool


def spans(text: str, item: ExamItem) -> list[tuple[int, int]]:
    """Find the stretches that the text shares with the item, by its grams, and for short items by shorter ones.

    Markup, escapes and readings that hide the item are removed as in the audit; a stretch includes them.
    """
    measure = ALPHABETIC if item.alphabetic else JAPANESE
    shown, begins, ends = reveal_places(text)
    codes, places = fold_places(shown)
    parts = [fold_audit(reveal(part)) for part in (item.question, *item.options)]
    brief = len(parts[0]) < measure.length + measure.question_apart
    for length in (measure.near,) if brief else (measure.length, measure.near):
        grams = np.concatenate([hash_grams(part, length) for part in parts])
        starts = np.flatnonzero(among(hash_grams(codes, length), grams))
        if len(starts):
            first, last = begins[places[starts]], ends[places[starts + length - 1]]
            return _joined(list(zip(first.tolist(), last.tolist(), strict=True)))
    return []


def _joined(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for begin, end in stretches:
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def excerpt(text: str, item: ExamItem) -> list[Excerpt]:
    """Return the part of the text with most of the item in it, cut where marked stretches begin and end."""
    marked = spans(text, item)
    if not marked:
        return [Excerpt(text[:EXCERPT_CHARACTERS], False)]
    begins = [max(begin - 100, 0) for begin, _ in marked]
    begin = max(
        begins,
        key=lambda at: sum(
            min(e, at + EXCERPT_CHARACTERS) - b for b, e in marked if b >= at and b < at + EXCERPT_CHARACTERS
        ),
    )
    end = min(begin + EXCERPT_CHARACTERS, len(text))
    pieces, at = [], begin
    for b, e in marked:
        b, e = max(b, begin), min(e, end)
        if b >= e:
            continue
        pieces += [Excerpt(text[at:b], False), Excerpt(text[b:e], True)]
        at = e
    return [piece for piece in (*pieces, Excerpt(text[at:end], False)) if piece.text]


Stage = Literal["corpus", "preferences", "few-shot", "teacher", "instructions", "grpo"]
SHOWN = 200
"""Number of matches that are shown with their text; all are listed."""


@dataclass(frozen=True)
class Finding:
    """A document that contains a large part of an item."""

    document: str
    item: str
    containment: float
    """Share of the item in the document; for part `meaning` the cosine of the two texts."""
    part: str
    verdict: Verdict
    stage: Stage


@dataclass(frozen=True)
class ShownFinding:
    """A match with its text and its item."""

    finding: Finding
    text: list[Excerpt]
    item: str


@dataclass
class AuditReport:
    """The findings of one audit, or of a part of one."""

    items: int
    unsearchable: list[str]
    drop: float = DROP
    review: float = REVIEW
    documents: int = 0
    characters: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    """Number of unreadable texts, by reason: they were not audited and do not count as clean."""
    findings: list[Finding] = field(default_factory=list)
    shown: list[ShownFinding] = field(default_factory=list)
    largest: dict[str, tuple[float, str]] = field(default_factory=dict)

    def judge(self, containment: float) -> Verdict | None:
        """Return the verdict under the thresholds of this audit."""
        return verdict(containment, drop=self.drop, review=self.review)

    def trace(self, item: str, containment: float, document: str) -> None:
        """Record a trace of an item; keep the largest, and of two as large the first."""
        if containment > self.largest.get(item, (0.0, ""))[0]:
            self.largest[item] = (containment, document)

    def record_match(self, finding: Finding, text: list[Excerpt], item: str) -> None:
        """Record a match; keep the first ones with their text."""
        self.findings.append(finding)
        if len(self.shown) < SHOWN:
            self.shown.append(ShownFinding(finding, text, item))

    def add(self, other: "AuditReport") -> None:
        """Add the findings of a later part."""
        self.documents += other.documents
        self.characters += other.characters
        for reason, number in other.unread.items():
            self.unread[reason] = self.unread.get(reason, 0) + number
        self.findings += other.findings
        self.shown = [*self.shown, *other.shown][:SHOWN]
        for item, (containment, document) in other.largest.items():
            self.trace(item, containment, document)

    @property
    def leaked(self) -> bool:
        """Whether some text must be dropped; what a person has to review has not leaked yet."""
        return any(finding.verdict == "drop" for finding in self.findings)

    def against(self, exam: str, items: int) -> "AuditReport":
        """Return the part of this report that is about one exam, which has so many items."""

        def of_exam(item: str) -> bool:
            return item.startswith(f"{exam}/")

        return replace(
            self,
            items=items,
            unsearchable=[item for item in self.unsearchable if of_exam(item)],
            findings=[finding for finding in self.findings if of_exam(finding.item)],
            shown=[excerpt for excerpt in self.shown if of_exam(excerpt.finding.item)],
            largest={item: seen for item, seen in self.largest.items() if of_exam(item)},
        )

    def totals(self) -> dict[str, Any]:
        """Return the counts of the report."""
        worst = {"drop": set[str](), "review": set[str]()}
        for finding in self.findings:
            worst[finding.verdict].add(finding.document)
        return {
            "documents": self.documents,
            "characters": self.characters,
            "items": self.items,
            "documents_to_drop": len(worst["drop"]),
            "documents_to_review": len(worst["review"] - worst["drop"]),
            "items_leaked": sum(seen[0] >= self.drop for seen in self.largest.values()),
            "items_to_review": sum(self.review <= seen[0] < self.drop for seen in self.largest.values()),
            "items_unsearchable": len(self.unsearchable),
            "unread": dict(sorted(self.unread.items())),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        documents = [
            {
                "document": finding.document,
                "item": finding.item,
                "containment": finding.containment,
                "verdict": finding.verdict,
                "part": finding.part,
                "stage": finding.stage,
            }
            for finding in self.findings
        ]
        items = [
            {"item": item, "containment": containment, "document": document}
            for item, (containment, document) in sorted(self.largest.items(), key=lambda seen: (-seen[1][0], seen[0]))
        ]
        return {"documents": documents, "items": items, "totals": self.totals(), "unsearchable": self.unsearchable}


def write_page(report: AuditReport, title: str, path: Path) -> None:
    """Write the page to a temporary file and move it into place, so that no reader sees half a page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    items = report.as_dict()["items"][:SHOWN]
    page = environment.from_string(Path(__file__).with_suffix(".html").read_text("utf-8")).render(
        title=title, report=report, totals=report.totals(), items=items, shown=SHOWN
    )
    write_text(path, page, "replace")


STRETCH = 400
"""Characters that are encoded together; a case with its question is about as long."""
ALIKE = 0.9
"""Cosine from which a stretch is shown to a person. It depends on the encoder: try it on items reworded on purpose."""
_BATCH = 32

Vectors = npt.NDArray[np.float32]


class Encoder:
    """A model of the transformers library; the last layer, averaged over the tokens, is the vector of a text."""

    def __init__(self, folder: Path) -> None:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as fault:
            raise MissingExtraError("train", "The audit by meaning") from fault
        if not (folder / "config.json").is_file():
            raise DataError(
                "corpus.no-encoder",
                f"{folder}: holds no encoder. Give the folder of a sentence encoder with its config.json.",
            )
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector of length 1 for each text."""
        parts = [self._batch(texts[begin : begin + _BATCH]) for begin in range(0, len(texts), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)

    def _batch(self, texts: Sequence[str]) -> Vectors:
        torch = self._torch
        tokens: Any = self._tokenizer(list(texts), padding=True, truncation=True, max_length=512, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        vectors: Vectors = torch.nn.functional.normalize(mean, dim=-1).float().numpy()
        return vectors


class SemanticIndex:
    """Index of the held-out items as vectors."""

    def __init__(self, items: Sequence[ExamItem], encoder: Encoder) -> None:
        self._encoder = encoder
        self._items = encoder.encode([item.text for item in items])

    def match(self, text: str, alike: float = ALIKE) -> Iterator[tuple[int, float]]:
        """Yield the items that are similar to a stretch of the text, with the largest cosine."""
        step = STRETCH // 2
        stretches = [text[at : at + STRETCH] for at in range(0, max(len(text) - step, 1), step)]
        cosines = (self._encoder.encode(stretches) @ self._items.T).max(axis=0)
        for number in np.flatnonzero(cosines >= alike).tolist():
            yield number, round(float(cosines[number]), 4)


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
            for match in largest:
                report.trace(index.items[match.item].name, match.containment, name)
            for match in flagged:
                item = index.items[match.item]
                decided = report.judge(match.containment)
                if decided is None:
                    continue
                finding = Finding(name, item.name, match.containment, match.part, decided, asked.stage)
                report.record_match(finding, excerpt(text, item) if len(report.shown) < SHOWN else [], item.text)
            for number, cosine in meanings.match(text, asked.alike) if meanings else ():
                if all(match.item != number for match in flagged):
                    item = index.items[number]
                    finding = Finding(name, item.name, cosine, "meaning", "review", asked.stage)
                    report.record_match(finding, excerpt(text, item) if len(report.shown) < SHOWN else [], item.text)
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
