"""The audit of any texts against held-out exams, by their characters and, with an encoder, by their meaning."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medllm.corpus.decontaminate.exam_items import ExamItem
from medllm.corpus.decontaminate.matcher import DROP, REVIEW, ExamIndex, index_of, match_in_slices
from medllm.corpus.decontaminate.report import SHOWN, AuditReport, Finding, Stage, excerpt
from medllm.corpus.read.files import read_drafts
from medllm.corpus.read.sources import SourcePart, TextSource, split_into_tasks
from medllm.errors import DataError, MissingExtraError
from medllm.processes import begin_worker

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
