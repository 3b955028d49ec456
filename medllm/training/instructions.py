"""Conversations to learn from: read from tables, admitted by date and licence, compared with the held-out exams."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.corpus.decontaminate.exam_items import held_out, known_leaks
from medllm.corpus.documents import AdmissionGate, Document, Draft, read_license
from medllm.corpus.pii import find
from medllm.corpus.read.files import read_exam
from medllm.corpus.read.rows import row_draft
from medllm.corpus.read.sources import SourcePart, TextSource
from medllm.errors import DataError, RecipeError
from medllm.exam.prompts import split_item, system_of
from medllm.exam.record import PROMPTS, PromptStyle
from medllm.preferences.questions import AuditTrail
from medllm.recipe.settings import DataSource, Instructions
from medllm.training.conversations import Conversation, conversation_of
from medllm.training.data import LINES, OTHER_TABLES, table_rows
from medllm.wording import describe_counts

TABLES = ("instructions", "dropped", "audit")
"""The folders of a training's output that list its conversations, without their texts."""
_PLACE = [(name, pa.string()) for name in ("id", "source", "locator", "license", "published", "exam_date", "kind")]
KEPT = pa.schema([*_PLACE, ("characters", pa.int64()), ("sha256", pa.string())])
DROPPED = pa.schema([*_PLACE, ("reason", pa.string()), ("detail", pa.string()), ("sha256", pa.string())])
AUDIT = pa.schema(
    [
        *((name, pa.string()) for name in ("document", "stage", "item", "part", "verdict")),
        ("containment", pa.float64()),
        ("reviewed", pa.bool_()),
    ]
)
FORGOTTEN = "forgotten: withdrawn with medllm forget"


@dataclass
class AdmittedConversations:
    """The conversations that may be learnt, and the account of all that were read."""

    settings: Instructions
    watch: AuditTrail
    conversations: list[Conversation] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    """Date, licence, place and text of each of them."""
    dropped: list[tuple[Draft, str]] = field(default_factory=list)
    """What is left out, each with its reason."""
    personal: list[dict[str, str]] = field(default_factory=list)
    """Findings of personal data in what is kept, or what stops the stage."""

    def facts(self) -> dict[str, Any]:
        """Return counts for the card: what was read, kept and dropped, by source, licence, year and reason."""
        reasons = Counter(reason.partition(":")[0] for _, reason in self.dropped)
        sources = Counter((document.source, document.license) for document in self.documents)
        years = Counter(str(document.published.year) for document in self.documents)
        stated = [source for source in self.settings.data if source.license or source.published]
        return {
            "conversations_read": len(self.documents) + len(self.dropped),
            "conversations": len(self.documents),
            "reasons": dict(sorted(reasons.items())),
            "sources": [
                {"source": name, "license": license, "conversations": number}
                for (name, license), number in sorted(sources.items())
            ],
            "licenses": sorted({license for _, license in sources}),
            "published": dict(sorted(years.items())),
            "statements": [
                {
                    "source": source.source,
                    "license": source.license,
                    "published": source.published and source.published.isoformat(),
                }
                for source in stated
            ],
            "audit": self.watch.facts(),
            "personal_data": {
                "action": self.settings.personal_data,
                "standing": len(self.personal),
                "findings": self.personal[:200],
            },
        }

    def write(self, out: Path) -> None:
        """Write place, date, licence and hash of each conversation, kept or dropped, and the audit; no text."""
        kept = [
            {**_place(document), "characters": len(document.text), "sha256": _sha256(document.text)}
            for document in self.documents
        ]
        dropped = []
        for draft, why in self.dropped:
            reason, _, detail = why.partition(": ")
            hashed = None if why == FORGOTTEN else _sha256(draft.text)
            dropped.append({**_place(draft), "reason": reason, "detail": detail, "sha256": hashed})
        tables = {"instructions": (kept, KEPT), "dropped": (dropped, DROPPED), "audit": (self.watch.rows(), AUDIT)}
        for name, (rows, schema) in tables.items():
            path = out / name / "train-00000.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd")
        self.watch.write("the conversations", out / "audit.html")


def _place(text: Document | Draft) -> dict[str, Any]:
    name = Draft(text.text, text.source, text.locator).id
    days = {key: day and str(day) for key, day in (("published", text.published), ("exam_date", text.exam_date))}
    return {"id": name, "source": text.source, "locator": text.locator, "license": text.license, **days} | {
        "kind": text.kind
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def admit_conversations(
    settings: Instructions, sources: Mapping[str, Path], place: str, *, system: str | None = None
) -> AdmittedConversations:
    """Read the conversations of a recipe's block and keep those that may be learnt.

    `place` names the block in messages; `system` is the system message of exam items that become conversations.

    Raises:
        DataError: A row is no conversation, nothing is left, or personal data is to stop the stage.
        RecipeError: The block has no cutoff, or names a set that is known to hold a held-out exam.
    """
    if settings.cutoff is None:
        raise RecipeError(
            "recipe.no-cutoff",
            f"{place}.cutoff: the day is missing. Give the last day on which a conversation may have been published.",
        )
    _refuse_known(settings, place)
    names = settings.held_out or ()
    items = held_out(((name, sources[name]) for name in names), settings.exam_years) if names else []
    admitted = AdmittedConversations(settings, AuditTrail(tuple(items), frozenset(settings.leaks_reviewed)))
    licenses = settings.allowed_licenses
    allowed = None if licenses is None else frozenset(filter(None, map(read_license, licenses)))
    gate, forgotten = AdmissionGate(settings.cutoff, allowed), _forgotten(sources)
    candidates: list[tuple[Conversation, Document]] = []
    seen: set[bytes] = set()
    for source in settings.data:
        for conversation, draft in read_conversations(source, sources[source.source], settings, system):
            outcome: Document | str = FORGOTTEN if _sha256(draft.text) in forgotten else gate.admit(draft)
            mark = hashlib.blake2b(draft.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if not isinstance(outcome, str) and mark in seen:
                outcome = "duplicate: an earlier conversation has the same words"
            if not isinstance(outcome, str):
                outcome = _without_patients(outcome, draft, admitted)
            if isinstance(outcome, str):
                admitted.dropped.append((draft, outcome))
                continue
            seen.add(mark)
            candidates.append((conversation, outcome))
    _leave_out_leaks(candidates, admitted)
    _refuse(admitted, place)
    return admitted


def _forgotten(sources: Mapping[str, Path]) -> frozenset[str]:
    if "forgotten" not in sources:
        return frozenset()
    lines = (sources["forgotten"] / "forgotten.jsonl").read_text("utf-8").splitlines()
    return frozenset(text for line in lines for text in json.loads(line)["sha256"])


def _refuse_known(settings: Instructions, place: str) -> None:
    """Refuse a public set by its name where it is known to hold a held-out exam: the audit sees no translations."""
    for source in settings.data:
        for leak in known_leaks(source.source, settings.held_out or ()):
            if source.source not in settings.leaks_reviewed:
                raise RecipeError(
                    "recipe.known-leak",
                    f"{place}.data: {source.source} looks like {leak.name} ({leak.why}), which contains "
                    f"{', '.join(leak.holds)}. Remove it, or list it under `leaks_reviewed` if you know that it is "
                    "clean.",
                )


def _without_patients(document: Document, draft: Draft, admitted: AdmittedConversations) -> Document | str:
    """Return the document, or the reason why it is dropped: it may name a patient."""
    settings = admitted.settings
    findings = [finding for finding in find(draft.text, draft.id) if finding.id not in settings.pii_reviewed]
    if findings and settings.personal_data == "drop":
        return f"personal_data: {findings[0].rule}"
    admitted.personal += [
        {"finding": finding.id, "document": draft.id, "source": draft.source, "rule": finding.rule}
        for finding in findings
    ]
    return document


def _leave_out_leaks(candidates: list[tuple[Conversation, Document]], admitted: AdmittedConversations) -> None:
    drafts = [Draft(document.text, document.source, document.locator) for _, document in candidates]
    leaks = admitted.watch.match("instructions", ((draft.id, draft.text) for draft in drafts))
    for (conversation, document), draft in zip(candidates, drafts, strict=True):
        if draft.id in leaks:
            finding = leaks[draft.id]
            admitted.dropped.append((draft, f"leak: {finding.containment:.2f} of {finding.item}"))
        else:
            admitted.conversations.append(conversation)
            admitted.documents.append(document)


def _refuse(admitted: AdmittedConversations, place: str) -> None:
    if admitted.settings.personal_data == "stop" and admitted.personal:
        first = admitted.personal[0]
        raise DataError(
            "training.personal-data",
            f"{place}: {len(admitted.personal)} places seem to name a patient, first {first['finding']} "
            f"({first['rule']}, {first['source']}). Mend the source, set `personal_data: drop`, or list in "
            "`pii_reviewed` what a person has found to be harmless.",
        )
    if not admitted.conversations:
        reasons = admitted.facts()["reasons"]
        why = describe_counts(reasons) if reasons else "none, for there is no row"
        raise DataError(
            "training.nothing-admitted",
            f"{place}: no conversation is left. Dropped: {why}. State `published` and `license` for a source whose "
            "rows have none, add sources, or change the setting behind the largest number.",
        )


def text_source(source: DataSource, folder: Path, settings: Instructions) -> TextSource:
    """Return a source with what the recipe states of all its conversations."""
    columns = {name: column for name, column in source.columns.items() if name not in _SPOKEN}
    return TextSource(
        source.source,
        folder,
        columns=columns,
        license=source.license,
        published=source.published.isoformat() if source.published else None,
        exam_date=source.exam_date.isoformat() if source.exam_date else None,
        kind="exam" if source.exam else "text",
        topic=source.kind or "",
        exam=source.exam,
        years=source.years,
        formats=settings.formats,
        template=settings.template,
    )


_SPOKEN = ("messages", "prompt", "completion")


def read_conversations(
    source: DataSource, folder: Path, settings: Instructions, system: str | None = None
) -> Iterator[tuple[Conversation, Draft]]:
    """Yield each conversation of a source, and its words with what is known of their date and licence.

    Raises DataError, with file and row, for a row that is no conversation, or a file that cannot be read.
    """
    texts = text_source(source, folder, settings)
    if source.exam:
        for draft in read_exam(texts):
            style: PromptStyle = next(style for style in PROMPTS if draft.locator.endswith(f" {style}"))
            template, asked, answered = split_item(draft.text, style)
            messages = [*system_of(template, system), {"role": "user", "content": asked}]
            spoken = (*messages, {"role": "assistant", "content": answered})
            yield Conversation(f"{source.source} {draft.locator}", spoken), draft
        return
    for path, name in _files(folder, source.source):
        piece = SourcePart(texts, path, name)
        for place, row in table_rows(path):
            conversation = conversation_of(row, place, source.columns)
            words = {**row, "text": conversation.text}
            yield conversation, row_draft(piece, f"{name}:{place.rpartition(' ')[2]}", words)


def _files(folder: Path, name: str) -> Sequence[tuple[Path, str]]:
    """List the tables of a source, in the order of their names: those in `data/`, where there is that folder."""
    if folder.is_file():
        return [(folder, folder.name)]
    root = folder / "data" if (folder / "data").is_dir() else folder
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith((".", "_")))
    tables = [path for path in files if path.suffix in (".parquet", *LINES)]
    if unread := [path for path in files if path.suffix in OTHER_TABLES]:
        raise DataError(
            "training.unread-format",
            f"{unread[0]}: training reads only *.parquet and *.jsonl. Convert the file, or remove it from the folder.",
        )
    if not tables:
        raise DataError(
            "training.no-table",
            f"{name}: there is no *.parquet or *.jsonl file of conversations in {root}. Name its folder.",
        )
    return [(path, path.relative_to(folder).as_posix()) for path in tables]
