"""Summary of the corpus beside its tables: the audit as a page and as JSON, and the facts for the card."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from medllm.corpus.curate import Curation
from medllm.corpus.decontaminate.audit import SHOWN, AuditReport, Finding, ShownFinding, excerpt, write_page
from medllm.corpus.decontaminate.matcher import index_of
from medllm.corpus.write import Counts

Facts = dict[str, Any]

SIZES = tuple(
    (10**power, f"{low}<n<{high}" if low else f"n<{high}")
    for power, low, high in (
        (3, "", "1K"),
        (4, "1K", "10K"),
        (5, "10K", "100K"),
        (6, "100K", "1M"),
        (7, "1M", "10M"),
        (8, "10M", "100M"),
        (9, "100M", "1B"),
    )
)
ON_THE_HUB = frozenset(
    (
        "apache-2.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nd-4.0",
        "cc0-1.0",
        "mit",
    )
)
"""Licences of corpora for which the Hub's cards have a name."""


def write_summary(curation: Curation, counts: Counts, made: Path) -> Facts:
    """Write audit.json and audit.html beside the tables, and return the facts of the whole."""
    report = _report(curation, counts, made)
    written = report.as_dict()
    with (made / "audit.json").open("w", encoding="utf-8", errors="replace") as stream:
        json.dump(written, stream, ensure_ascii=False, indent=1)
        stream.write("\n")
    write_page(report, "the corpus", made / "audit.html")
    return {
        **_sizes(counts),
        "topics": dict(sorted(counts.topics.items())),
        "published": dict(sorted(counts.years.items())),
        "histogram": histogram(counts.years),
        "exam_years": dict(sorted(counts.exam_years.items())),
        "dropped": sum(counts.reasons.values()),
        "reasons": _reasons(counts),
        "dropped_by_source": [
            {"source": source, "reason": reason, "documents": number}
            for (source, reason), number in sorted(counts.reasons.items())
        ],
        "statements": _statements(curation),
        "cutoff": curation.gate.cutoff.isoformat(),
        "held_out": _held_out(curation),
        "audit": {
            **written["totals"],
            "drop": curation.audit.drop,
            "review": curation.audit.review,
            "reviewed": len(curation.audit.reviewed),
            "unreviewed": counts.reviews,
        },
        "personal_data": {
            "action": curation.personal.action,
            "standing": sum(counts.rules.values()),
            "rules": dict(sorted(counts.rules.items())),
            "reviewed": len(curation.personal.reviewed),
            "findings": counts.findings,
        },
        "near_duplicate": curation.alike if curation.alike <= 1 else None,
        "refuse_public": refusals(counts),
    }


def refusals(counts: Counts) -> list[str]:
    """List the reasons why this corpus may not be public; empty when no question is open."""
    reasons = []
    if counts.reviews:
        reasons.append(
            f"{counts.reviews} matches of exam items need a person's review: read audit.html, then list the documents "
            "under corpus.leaks_reviewed or remove them"
        )
    if counts.rules:
        reasons.append(
            f"{sum(counts.rules.values())} places seem to name a patient: see personal_data in facts.json, then set "
            "corpus.personal_data: drop or list the findings under corpus.pii_reviewed"
        )
    return reasons


def _sizes(counts: Counts) -> Facts:
    whole: Counter[str] = Counter()
    parts: dict[tuple[str, str], Facts] = {}
    for (source, license, what), number in sorted(counts.kept.items()):
        whole[what] += number
        parts.setdefault((source, license), {"source": source, "license": license})[what] = number
    tokens = whole["tokens"] or None
    for part in parts.values():
        part["tokens"] = part["tokens"] or None
    return {
        "documents": whole["documents"],
        "characters": whole["characters"],
        "tokens": tokens,
        "sources": list(parts.values()),
        "licenses": sorted({license for _, license in parts}),
        "license": _license({license for _, license in parts}),
        "languages": ["ja"],
        "size": next((name for most, name in SIZES if whole["documents"] < most), "n>1B"),
    }


def _license(licenses: set[str]) -> str:
    """Return the Hub's name for the licence of the whole: `other` for several, or for one unknown to the Hub."""
    (first, *more) = sorted(licenses)
    return first if not more and first in ON_THE_HUB else "other"


def histogram(years: Mapping[str, int]) -> list[Facts]:
    """Count documents by year of publication, with a bar of at most twenty blocks for the card."""
    most = max(years.values(), default=1)
    return [
        {"year": year, "documents": number, "bar": "█" * max(round(20 * number / most), 1)}
        for year, number in sorted(years.items())
    ]


def _reasons(counts: Counts) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for (_, reason), number in counts.reasons.items():
        reasons[reason] += number
    return dict(sorted(reasons.items()))


def _statements(curation: Curation) -> list[Facts]:
    """List the facts that the recipe states for whole sources, because their rows do not."""
    return [
        {"source": source.name, "license": source.license, "published": source.published, "exam_date": source.exam_date}
        for source in curation.sources
        if source.license or source.published or source.exam_date
    ]


def _held_out(curation: Curation) -> dict[str, int]:
    return dict(sorted(Counter(item.name.partition("/")[0] for item in curation.audit.items).items()))


def _report(curation: Curation, counts: Counts, made: Path) -> AuditReport:
    index = index_of(curation.audit.items, curation.audit.review)
    report = AuditReport(len(index.items), index.unsearchable, curation.audit.drop, curation.audit.review)
    report.documents, report.characters = counts.audited
    report.largest = counts.largest
    for path in sorted((made / "audit").glob("*.parquet")):
        rows = pq.read_table(path).to_pylist()
        findings = [
            Finding(row["document"], row["item"], row["containment"], row["part"], row["verdict"], "corpus")
            for row in rows
        ]
        report.findings += findings
        report.shown += _shown(findings[: SHOWN - len(report.shown)], curation, made, path.name)
    return report


def _shown(findings: list[Finding], curation: Curation, made: Path, name: str) -> Iterator[ShownFinding]:
    """Yield the first matches with their texts, read from the same task's tables."""
    if not findings:
        return
    items = {item.name: item for item in curation.audit.items}
    wanted = {finding.document for finding in findings}
    texts = {
        row["id"]: row["text"]
        for table in ("corpus", "dropped")
        for batch in pq.ParquetFile(made / table / name).iter_batches(columns=["id", "text"])
        for row in batch.to_pylist()
        if row["id"] in wanted
    }
    for finding in findings:
        item = items[finding.item]
        yield ShownFinding(finding, excerpt(texts[finding.document], item), item.text)
