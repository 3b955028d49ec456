"""Stage `corpus`: texts and past exams in; dated, licensed text that is free of the held-out exams out."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medllm.corpus.decontaminate.exam_items import held_out, known_leaks
from medllm.corpus.documents import read_license
from medllm.corpus.read.sources import TextSource
from medllm.errors import DataError, MissingExtraError, RecipeError
from medllm.recipe.data import Corpus, DataSource, Replay
from medllm.stages.workdir import move_into_place, work_folder, write_facts
from medllm.wording import describe_counts

if TYPE_CHECKING:
    from medllm.corpus.curate import Curation
    from medllm.corpus.write import Counts


def make(settings: Corpus, sources: Mapping[str, Path], out: Path) -> None:
    """Write corpus/, dropped/ and audit/ as Parquet, the audit as a page and as JSON, and facts.json.

    Unfinished work is in a `.part` folder beside `out`; a restarted stage resumes from that folder.
    """
    try:
        from medllm.corpus.curate import curate, executor
        from medllm.corpus.summary import write_summary
    except ImportError as fault:
        raise MissingExtraError("curate", "The corpus stage") from fault
    work = work_folder(out)
    curation = _curation(settings, sources)
    run = executor(settings.executor.kind, settings.workers, settings.executor.options)
    counts = curate(curation, work, executor=run, mark=_mark(settings, sources))
    _refuse(settings, counts)
    made = work / "made"
    values = settings.model_dump(mode="json", exclude=set(settings.excluded_from_digest))
    write_facts(made, {**write_summary(curation, counts, made), "settings": values})
    move_into_place(made, out, ())
    shutil.rmtree(work)


def _curation(settings: Corpus, sources: Mapping[str, Path]) -> "Curation":
    from medllm.corpus.cleaning import FilterLimits
    from medllm.corpus.curate import Curation
    from medllm.corpus.documents import AdmissionGate
    from medllm.corpus.steps import AuditConfig, Personal

    if settings.cutoff is None:
        raise RecipeError(
            "recipe.no-cutoff",
            "corpus.cutoff: the day is missing. Give the last day on which a text may have been published.",
        )
    _refuse_known(settings)
    read = [text_source(source, settings, sources) for source in settings.data]
    if settings.replay:
        read.append(text_source(settings.replay, settings, sources))
    allowed = (
        None
        if settings.allowed_licenses is None
        else frozenset(filter(None, map(read_license, settings.allowed_licenses)))
    )
    items = held_out(((name, sources[name]) for name in settings.held_out), settings.exam_years)
    return Curation(
        tuple(read),
        AdmissionGate(settings.cutoff, allowed),
        FilterLimits(settings.min_chars, settings.min_japanese_share, settings.max_repetition),
        AuditConfig(
            tuple(items), settings.contamination_drop, settings.contamination_review, frozenset(settings.leaks_reviewed)
        ),
        Personal(settings.personal_data, frozenset(settings.pii_reviewed)),
        # Above 1 no two texts are: then only exact duplicates go.
        alike=2.0 if settings.near_duplicate is None else settings.near_duplicate,
        replay=settings.replay.share if settings.replay else 0.0,
        tokenizer=_tokenizer(settings, sources),
        forgotten=_forgotten(sources),
    )


def _forgotten(sources: Mapping[str, Path]) -> frozenset[str]:
    """Read the hashes of the texts that were withdrawn, from the list that the pipeline gives."""
    if "forgotten" not in sources:
        return frozenset()
    lines = (sources["forgotten"] / "forgotten.jsonl").read_text("utf-8").splitlines()
    return frozenset(text for line in lines for text in json.loads(line)["sha256"])


def text_source(source: DataSource, settings: Corpus, sources: Mapping[str, Path]) -> TextSource:
    """Return a source of the recipe as it is read, with what the recipe states of its texts."""
    return TextSource(
        source.source,
        sources[source.source],
        columns=dict(source.columns),
        license=source.license,
        published=source.published.isoformat() if source.published else None,
        exam_date=source.exam_date.isoformat() if source.exam_date else None,
        kind="replay" if isinstance(source, Replay) else "exam" if source.exam else "text",
        topic=source.kind or "",
        exam=source.exam,
        years=source.years,
        formats=settings.formats,
        template=settings.template,
    )


def _refuse_known(settings: Corpus) -> None:
    """A public set known to hold a held-out exam is refused by name: the audit does not see translations."""
    for source in (*settings.data, *([settings.replay] if settings.replay else [])):
        for leak in known_leaks(source.source, settings.held_out):
            if source.source not in settings.leaks_reviewed:
                raise RecipeError(
                    "recipe.known-leak",
                    f"corpus.data: {source.source} looks like {leak.name} ({leak.why}), which contains "
                    f"{', '.join(leak.holds)}. Remove it, or list it under `leaks_reviewed` if you know that it is "
                    "clean.",
                )


def _tokenizer(settings: Corpus, sources: Mapping[str, Path]) -> Path | None:
    """Return the folder of the tokenizer that counts tokens, or None when the recipe names no tokenizer."""
    if settings.tokenizer is None:
        return None
    folder = sources[settings.tokenizer]
    if not (folder / "tokenizer.json").is_file():
        raise DataError(
            "corpus.no-tokenizer-file",
            f"corpus.tokenizer: there is no tokenizer.json in {settings.tokenizer}. Save it with `AutoTokenizer"
            ".from_pretrained(...).save_pretrained(FOLDER)` and name that folder, or remove the line.",
        )
    return folder


def _mark(settings: Corpus, sources: Mapping[str, Path]) -> str:
    """Describe the settings that unfinished work belongs to: all except the number of processes."""
    files = {
        name: [
            [path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
            for path in sorted(folder.rglob("*") if folder.is_dir() else [folder])
            if path.is_file()
        ]
        for name, folder in sorted(sources.items())
    }
    values: dict[str, Any] = settings.model_dump(mode="json", exclude=set(settings.excluded_from_digest))
    return json.dumps({"settings": values, "files": files}, ensure_ascii=False, sort_keys=True)


def _refuse(settings: Corpus, counts: "Counts") -> None:
    if not any(what == "documents" for _, _, what in counts.kept):
        why = (
            describe_counts(dict(sorted(_reasons(counts).items()))) if counts.reasons else "none, for there is no text"
        )
        raise DataError(
            "corpus.nothing-left",
            f"corpus: no document is left. Dropped: {why}. Add sources, or relax the "
            "setting behind the largest number.",
        )
    if settings.personal_data == "stop" and counts.rules:
        reasons = describe_counts(dict(sorted(counts.rules.items())))
        first = "; ".join(
            f"{finding['finding']} ({finding['source']}: {finding['around']})" for finding in counts.findings[:5]
        )
        raise DataError(
            "corpus.personal-data",
            f"corpus: texts seem to name patients: {reasons}. The first: {first}. Mend the source, set `personal_data: "
            "drop`, or list in `pii_reviewed` what a person has found to be harmless.",
        )


def _reasons(counts: "Counts") -> dict[str, int]:
    reasons: dict[str, int] = {}
    for (_, reason), number in counts.reasons.items():
        reasons[reason] = reasons.get(reason, 0) + number
    return reasons
