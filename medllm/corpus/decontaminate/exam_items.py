"""The held-out exam for the audit: items, least evidence of a match, and public sets known to contain them."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from medllm.corpus.decontaminate.ngrams import ALPHABET, fold_audit
from medllm.errors import DataError
from medllm.exam import benchmarks
from medllm.exam.question import Question


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the audit, chosen so that no YakugakuQA item is flagged and every planted one is."""

    length: int
    """Characters of a gram."""
    anchor: int
    """Characters of a run that finds a short item; a power of two."""
    near: int
    """Characters of the runs by which a short question is weighed."""
    loose: int = 4
    """Characters of the grams by which a changed item is weighed; only Japanese ones are."""
    pointers: int = 3
    """Rare runs of an item that must be close together before it is weighed for changes."""
    loose_review: float = 0.45
    """Weighed share from which a person reviews the match."""
    loose_question: float = 0.1
    """Least share of the question with it: its options alone are often a list of drugs."""
    loose_drop: float = 0.75
    """Weighed share from which a changed item is dropped."""
    options_review: float = 0.55
    """Weighed share from which a person must look at an item whose question has lost its own words, if of the"""
    options_frame: float = 0.25
    """question's grams, unweighed, this share is left: its stock phrases."""
    framed_review: float = 0.36
    """Least weighed share of an item that is seen by its options and the stock phrases of its question, if of the"""
    framed_question: float = 0.4
    """question's grams, unweighed, this share is left. It must show one of two things more. The first is"""
    framed_share: float = 0.38
    """this weighed share of the item,"""
    framed_options: float = 0.3
    """this weighed share of its options,"""
    framed_whole: int = 2
    """and this number of options word for word. The second is one option more and"""
    framed_words: float = 0.4
    """this weighed share of the question."""
    question_apart: int = 30
    """Grams a question must have to be judged without its options; shorter ones are stock phrases."""
    options_apart: int = 60
    """Grams that the options must have to be judged without their question; fewer are a list of names."""
    options_held: int = 3
    """Number of options that must be there, each at least by half."""
    least: int = 20
    """Grams that an item must have to be judged by them at all."""
    both: float = 0.2
    """Least containment of each when question and options are judged together."""
    short_question: float = 0.75
    """Least share of its question for a match of a short item."""
    short_options: float = 0.4
    """And so many of its options, word for word."""
    apart_question: float = 0.9
    """Least share of its question, nearly all, for a match of a short item whose options are far from it."""
    apart_options: float = 0.6
    """And so many of its options, word for word."""


JAPANESE = Thresholds(length=13, anchor=8, near=5)
ALPHABETIC = Thresholds(length=40, anchor=16, near=12)


Part = Literal["question", "options", "together"]
PARTS: tuple[Part, ...] = ("question", "options", "together")


@dataclass(frozen=True)
class ExamItem:
    """One held-out exam item."""

    name: str
    """Benchmark and question, as in igakuqa/116-A-1."""
    question: str
    """The question with the case it belongs to."""
    options: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return the item as a page would print it."""
        return "\n".join((self.question, *self.options))

    @property
    def alphabetic(self) -> bool:
        """Return whether the item uses an alphabet alone: 13 letters are two words, 13 kanji and kana are a clause."""
        codes = fold_audit(self.text)
        return bool((codes < ALPHABET).sum() > 0.95 * len(codes))


class Match(NamedTuple):
    """A match: a text that contains a part of an item."""

    document: int
    """Position of the text among the searched texts."""
    item: int
    containment: float
    part: Part


def distinct(items: Iterable[ExamItem]) -> list[ExamItem]:
    """List the items; raise DataError for two of one name (an ambiguous report) or none (every text would be clean)."""
    remaining = list(items)
    if not remaining:
        raise DataError(
            "corpus.no-exam-items",
            "The held-out exams have no questions, so every text would count as clean. Name an exam with questions.",
        )
    names: set[str] = set()
    for item in remaining:
        if item.name in names:
            raise DataError(
                "corpus.duplicate-exam-item",
                f"{item.name}: two held-out questions have this name. Give each question its own id.",
            )
        names.add(item.name)
    return remaining


def held_out(exams: Iterable[tuple[str, Path]], years: Mapping[str, Collection[int]] | None = None) -> list[ExamItem]:
    """Collect all items of the held-out exams and their published translations; image questions too, for their text.

    `years` has those that are held out, for exams in whose files others are too.
    """
    exam_items: list[ExamItem] = []
    for name, folder in exams:
        questions = held_out_questions(name, folder, years)
        exam_items += [*map(as_item, questions), *translated_items(name, folder, questions)]
    return exam_items


def held_out_questions(name: str, folder: Path, years: Mapping[str, Collection[int]] | None = None) -> list[Question]:
    """Load an exam's questions that are held out; one that states no year may be of any, and is."""
    chosen = (years or {}).get(name)
    return [
        question
        for question in benchmarks.load(name, folder)
        if not chosen or question.year is None or question.year in chosen
    ]


def translated_items(name: str, folder: Path, questions: Collection[Question] | None = None) -> list[ExamItem]:
    """Read the published translations of an exam as more items, named after their questions: `igakuqa/112A1 (en)`.

    With `questions` only theirs.
    """
    by_name: dict[str, ExamItem] = {}
    wanted = None if questions is None else {question.question_id for question in questions}
    for translation in benchmarks.translations(name, folder):
        if wanted is not None and translation.question_id not in wanted:
            continue
        item = ExamItem(
            f"{name}/{translation.question_id} ({translation.language})",
            translation.text,
            tuple(filter(None, translation.choices)),
        )
        by_name.setdefault(item.name, item)
    return list(by_name.values())


def as_item(question: Question) -> ExamItem:
    """Convert a question into an item of the audit."""
    stem = f"{question.context}\n{question.text}" if question.context else question.text
    return ExamItem(
        f"{question.benchmark}/{question.question_id}", stem, tuple(choice for choice in question.choices if choice)
    )


def exam_folder(data: Path, name: str) -> Path:
    """Return the folder of an exam: a folder of its name in `data`, else `data` itself."""
    return data / name if (data / name).exists() else data


@dataclass(frozen=True)
class KnownLeak:
    """A public set, or family of sets, that contains items of the exams."""

    name: str
    pattern: str
    """Matched against the last part of a repository's or folder's name, in lower case."""
    holds: tuple[str, ...]
    """The benchmarks whose items it holds."""
    why: str


KNOWN = (
    KnownLeak("IgakuQA", r"igaku-?qa(?!119)", ("igakuqa",), "it is the test: the exams of 2018 to 2022"),
    KnownLeak("MedRECT-ja", r"medrect", ("igakuqa",), "built from the medical licensing exams of 2018 to 2025"),
    KnownLeak("NMLE", r"^nmle|naistmle", ("igakuqa",), "the medical licensing exams 110 to 117, so 112 to 116 too"),
    KnownLeak("JMed48k", r"jmed48k", ("igakuqa",), "eleven national exams of 2005 to 2025"),
    KnownLeak("KokushiMD-10", r"kokushi-?md", ("igakuqa",), "ten national exams of 2020 to 2024"),
    KnownLeak("JMLE-CoT", r"jmle-?cot", ("igakuqa", "jmle2026"), "answers of teachers to medical licensing exams"),
    KnownLeak("JMLE2026-Bench", r"jmle-?2026", ("jmle2026",), "it is the test: the exam of 2026"),
    KnownLeak(
        "JMedBench",
        r"jmedbench",
        ("igakuqa", "medqa-ja", "medmcqa-ja", "pubmedqa-ja", "jmmlu-med", "mmmlu-ja-med"),
        "the Japanese test sets themselves",
    ),
    KnownLeak("MMMLU and JMMLU", r"^m?m?mlu$|jmmlu", ("mmmlu-ja-med", "jmmlu-med"), "the test sets themselves"),
    KnownLeak(
        "MedQA in any language",
        r"medqa|usmle",
        ("medqa", "medqa-ja"),
        "translations of the whole set went about, its test part included",
    ),
    KnownLeak("MedMCQA in any language", r"medmcqa", ("medmcqa", "medmcqa-ja"), "the set, its asked part included"),
    KnownLeak("PubMedQA in any language", r"pubmedqa", ("pubmedqa", "pubmedqa-ja"), "the set, its test part included"),
    KnownLeak("YakugakuQA", r"yakugakuqa", ("yakugakuqa",), "it is the test: the pharmacist exams of 2012 to 2024"),
)


def known_leaks(source: str, held_out: Iterable[str]) -> list[KnownLeak]:
    """Return the catalogue's entries that forbid training on a source while these exams are held out.

    >>> [one.name for one in known_leaks("someone/MedRECT-ja-train@v1", ["igakuqa"])]
    ['MedRECT-ja']
    >>> known_leaks("./texts", ["igakuqa"])
    []
    """
    name = source.split("@")[0].rstrip("/").rpartition("/")[2].lower()
    wanted = set(held_out)
    return [entry for entry in KNOWN if wanted.intersection(entry.holds) and re.search(entry.pattern, name)]
