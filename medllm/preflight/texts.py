"""Texts and conversations of a recipe: the first of each source are opened, and their licences and dates read."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from medllm.corpus.documents import Draft, read_date, read_license
from medllm.corpus.read.files import read_drafts
from medllm.corpus.read.sources import TextSource, split_source
from medllm.errors import DataError
from medllm.preflight.exams import Findings
from medllm.recipe.data import Corpus, DataSource, Instructions
from medllm.recipe.settings import Rpo, Sft
from medllm.weights.loadable import has_tokenizer

SAMPLED = 20
"""Texts of a source that are opened: enough to see a licence or a date that no text states."""


def check_texts(settings: Corpus, sources: Mapping[str, Path], findings: Findings) -> None:
    """Open the first texts of each source within reach, and ask for licence and date in one line."""
    given = [(f"corpus.data[{number}]", source) for number, source in enumerate(settings.data)]
    if settings.replay:
        given.append(("corpus.replay", settings.replay))
    for place, source in given:
        if source.source in sources:
            with findings.collect(place):
                _check_source(source, sources[source.source])
    tokenizer = settings.tokenizer
    if tokenizer and tokenizer in sources and not (sources[tokenizer] / "tokenizer.json").is_file():
        text = f"there is no tokenizer.json in {sources[tokenizer]}. Save the tokenizer there, or leave the line out."
        findings.add("corpus.tokenizer", DataError("corpus.no-tokenizer", text))


def _check_source(source: DataSource, folder: Path) -> None:
    texts_of = TextSource(
        source.source,
        folder,
        columns=dict(source.columns),
        license=source.license,
        published=source.published.isoformat() if source.published else None,
        exam_date=source.exam_date.isoformat() if source.exam_date else None,
        exam=source.exam,
        years=source.years,
    )
    drafts = list(islice((draft for part in split_source(texts_of) for draft in read_drafts(part)), SAMPLED))
    texts = [draft for draft in drafts if not draft.fault]
    if not texts:
        why = sorted({draft.fault for draft in drafts if draft.fault})
        listed = "; ".join(why[:3]) or "it is empty"
        raise DataError("corpus.nothing-readable", f"{source.source}: none of the first texts can be read: {listed}")
    _refuse_missing_facts(source, texts)


def _refuse_missing_facts(source: DataSource, texts: Sequence[Draft]) -> None:
    """Raise DataError where no text states a licence or a day, or states a day that cannot be read."""
    missing = []
    if all(read_license(draft.license) is None for draft in texts):
        missing.append("license")
    if all(not draft.published for draft in texts):
        missing.append("published")
    if source.exam and all(not draft.exam_date for draft in texts):
        missing.append("exam_date")
    if missing:
        lacks = " and ".join(_NAMES[key] for key in missing)
        raise DataError(
            "corpus.facts-missing",
            f"{source.source}: its first texts state {lacks} ({len(texts)} were opened). Write what is true of the "
            f"whole source, in the form `{{{_line(source, missing)}}}`.",
        )
    for draft in texts:
        if draft.published:
            read_date(draft.published)


_NAMES = {"license": "no licence", "published": "no date of publication", "exam_date": "no exam date"}
_EXAMPLES = {"license": "cc-by-4.0", "published": "2015-04-01", "exam_date": "2015-02-07"}


def _line(source: DataSource, missing: list[str]) -> str:
    """Write the source as a recipe would, with an example for what is missing."""
    stated = {
        key: str(value)
        for key, value in (
            ("license", source.license),
            ("published", source.published),
            ("exam_date", source.exam_date),
        )
        if value
    }
    keys = {"source": source.source, **({"exam": source.exam} if source.exam else {}), **stated}
    return ", ".join(f"{key}: {value}" for key, value in [*keys.items(), *((key, _EXAMPLES[key]) for key in missing)])


def check_conversations(
    place: str, block: Instructions, training: Sft | Rpo, sources: Mapping[str, Path], findings: Findings
) -> None:
    """Open the first conversations of each source within reach, and write them by the template, where that is too."""
    for number, source in enumerate(block.data):
        if source.source in sources:
            with findings.collect(f"{place}.data[{number}]"):
                _check_conversations(source, block, training, sources)


def _check_conversations(
    source: DataSource, block: Instructions, training: Sft | Rpo, sources: Mapping[str, Path]
) -> None:
    from medllm.training.conversations import encode_conversations, writer_of
    from medllm.training.instructions import read_conversations
    from medllm.training.load import chat_template_for
    from medllm.weights.load import load_tokenizer

    read = read_conversations(source, sources[source.source], block, block.system_prompt)
    rows = list(islice(read, SAMPLED))
    if not rows:
        raise DataError("training.no-rows", f"{source.source}: the files hold no conversation. Remove the source.")
    _refuse_missing_facts(source, [draft for _, draft in rows])
    model, base = sources.get(training.model), sources.get("base")
    folder = next((folder for folder in (model, base) if folder is not None and has_tokenizer(folder)), None)
    if folder is None or (model is None and training.model != "base" and base is None):
        return
    within = {**sources, training.model: model or folder}
    tokenizer = load_tokenizer(folder)
    conversations = [conversation for conversation, _ in rows]
    talks = any(conversation.messages for conversation in conversations)
    chat = chat_template_for(training.model_copy(update={"format": block.format}), within, tokenizer, talks=talks)
    encode_conversations(conversations, writer_of(tokenizer, chat, block), training.max_length)
