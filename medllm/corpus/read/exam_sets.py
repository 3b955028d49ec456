"""Past exams as drafts of documents: each question plainly and, where an expert explained it, explained."""

import re
from collections.abc import Iterator

from medllm.corpus.documents import Draft
from medllm.corpus.read.sources import TextSource
from medllm.exam import benchmarks
from medllm.exam.prompts import question_block, render, target_completion
from medllm.exam.question import Question
from medllm.exam.record import PromptStyle


def read_exam(source: TextSource) -> Iterator[Draft]:
    """Yield every question plainly and, where an expert explained it, with the explanation, as in the paper."""
    name = str(source.exam)
    for question in benchmarks.load(name, source.folder):
        for format_ in source.formats:
            if format_ == "plain" or question.explanation:
                yield _draft(source, question, format_)


def _draft(source: TextSource, question: Question, style: PromptStyle) -> Draft:
    joint = render(question, prompt=style, template=source.template).joint
    asked = question_block(question, style, source.template, "linked")
    known = benchmarks.CATALOGUE.get(question.benchmark)
    exam_date = question.exam_date.isoformat() if question.exam_date else source.exam_date
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
