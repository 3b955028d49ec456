"""Exam sets on both sides of the line: past ones written out to be learnt, held-out ones as items for the audit."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from medllm.corpus.documents import Draft
from medllm.corpus.items import Item
from medllm.corpus.sources import Source
from medllm.exam import benchmarks
from medllm.exam.prompts import ask, render, reply
from medllm.exam.question import Question
from medllm.exam.record import PromptStyle


def read_exam(source: Source) -> Iterator[Draft]:
    """Every question written out plainly and, where an expert explained it, with the explanation, as in the paper."""
    name = str(source.exam)
    for question in benchmarks.load(name, source.folder):
        for format_ in source.formats:
            if format_ == "plain" or question.explanation:
                yield _draft(source, question, format_)


def _draft(source: Source, question: Question, style: PromptStyle) -> Draft:
    joint = render(question, prompt=style, template=source.template).joint
    asked = ask(question, style, source.template, "linked")
    known = benchmarks.CATALOGUE.get(question.benchmark)
    exam_date = question.exam_date.isoformat() if question.exam_date else source.exam_date
    return Draft(
        asked + joint + reply(question, style, source.template),
        source.name,
        f"{question.question_id} {style}",
        licence=source.licence or (_licence(known.licence) if known else None),
        # What the recipe states comes first: a set of today may hold explanations that were printed long ago.
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
    """Whether a question marked as having a picture speaks of it; the others can be answered from their text."""
    if not question.image:
        return False
    options = [option for option in question.choices if not _PLACEHOLDER.match(option.strip())]
    whole = len(options) == len(question.choices) > 0
    return not whole or bool(_SHOWN.search("\n".join((question.context or "", question.text, *options))))


def _licence(written: str) -> str:
    """The licence a catalogue entry begins with; what follows it is commentary."""
    return written.split(";")[0].split(" (")[0].split(",")[-1].strip()


def held_out(exams: Iterable[tuple[str, Path]]) -> list[Item]:
    """All items of the held-out exams and of their published translations; image questions too: texts can be learnt."""
    return [item for name, folder in exams for item in (*_originals(name, folder), *translated_items(name, folder))]


def _originals(name: str, folder: Path) -> list[Item]:
    return [as_item(question) for question in benchmarks.load(name, folder)]


def translated_items(name: str, folder: Path) -> list[Item]:
    """The published translations of an exam as further items, named after their questions: `igakuqa/112A1 (en)`."""
    found: dict[str, Item] = {}
    for one in benchmarks.translations(name, folder):
        item = Item(f"{name}/{one.question_id} ({one.language})", one.text, tuple(filter(None, one.choices)))
        found.setdefault(item.name, item)
    return list(found.values())


def as_item(question: Question) -> Item:
    """A question as the audit looks for it."""
    stem = f"{question.context}\n{question.text}" if question.context else question.text
    return Item(f"{question.benchmark}/{question.question_id}", stem, tuple(one for one in question.choices if one))


def exam_folder(data: Path, name: str) -> Path:
    """Where an exam lies: in a folder of its name, or `data` is it."""
    return data / name if (data / name).exists() else data
