"""Readers of Japan's licensing exams: IgakuQA, IgakuQA119, JMLE2026-Bench of physicians, YakugakuQA of pharmacists."""

import re
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.benchmarks.fields import (
    Vignettes,
    float_or_none,
    normal_letters,
    numeric_gold,
    text_of,
    without_announcement,
)
from medllm.exam.extract.completion import normal
from medllm.exam.question import LETTERS, Question, Translation
from medllm.exam.tables import array_rows, table_rows

IGAKUQA_DATES = {
    2006: date(2006, 2, 18),
    2018: date(2018, 2, 10),
    2019: date(2019, 2, 9),
    2020: date(2020, 2, 8),
    2021: date(2021, 2, 6),
    2022: date(2022, 2, 5),
}
"""The first day of each sitting; 2006 is the 100th exam, the source of the prompt file's examples."""

_ANYTHING_RIGHT = frozenset({"116A71"})
_EITHER_LETTER = re.compile(r"([a-h]) or ([a-h])")


def read_igakuqa(folder: Path, name: str) -> list[Question]:
    """Read the questions of every year that the folder has, in the order of year, section and number."""
    root = folder / "data" if (folder / "data").is_dir() else folder
    sections = sorted(root.glob("20[0-9][0-9]/[0-9][0-9][0-9]-[A-F].jsonl"))
    return [question for file in sections for question in _igakuqa_section(file, name)]


def igakuqa_translations(folder: Path) -> list[Translation]:
    """Read the English translations that IgakuQA publishes beside its sections, under the Japanese questions' ids."""
    root = folder / "data" if (folder / "data").is_dir() else folder
    files = sorted(root.glob("20[0-9][0-9]/[0-9][0-9][0-9]-[A-F]_translate.jsonl"))
    rows = [row for file in files for row in table_rows(file)]
    return [
        Translation(
            text_of(row, "problem_id", place), "en", text_of(row, "problem_text_en", place), tuple(row["choices_en"])
        )
        for place, row in rows
    ]


def igakuqa_exemplars(folder: Path) -> list[Question]:
    """Read the three worked examples of the original prompt file, from the exam of 2006, with their explanations."""
    file = folder / "prompts" / "prompt.jsonl"
    if not file.exists():
        return []
    return [_igakuqa_question(row, {}, place, 2006, "igakuqa-prompt") for place, row in table_rows(file)]


def _igakuqa_section(file: Path, name: str) -> list[Question]:
    year = int(file.parent.name)
    metadata_file = file.with_name(f"{file.stem}_metadata.jsonl")
    metadata = (
        {text_of(row, "problem_id", place): row for place, row in table_rows(metadata_file)}
        if metadata_file.exists()
        else {}
    )
    rows = table_rows(file)
    vignettes = Vignettes.of([(row["problem_id"], row["problem_text"]) for _, row in rows])
    return [
        _igakuqa_question(row, metadata.get(row["problem_id"], {}), place, year, name, vignettes) for place, row in rows
    ]


def _igakuqa_question(
    row: dict[str, Any], metadata: dict[str, Any], place: str, year: int, name: str, vignettes: Vignettes | None = None
) -> Question:
    """Build one question from its row, its metadata row and the vignettes of its section."""
    question_id = text_of(row, "problem_id", place)
    text = text_of(row, "problem_text", place)
    choices = tuple(row["choices"])
    section = question_id[3]
    accuracy = float_or_none(metadata.get("human_accuracy"))
    return Question(
        question_id=question_id,
        benchmark=name,
        text=text,
        choices=choices,
        gold=_igakuqa_gold(row["answer"], text, numeric=not choices),
        key=tuple(row["answer"]),
        exam_date=IGAKUQA_DATES[year],
        year=year,
        section=section,
        numeric=not choices,
        points=int(row.get("points", 1)),
        required=section in "BE",
        image=not row["text_only"],
        any_answer_correct=question_id in _ANYTHING_RIGHT,
        category=metadata.get("category") or None,
        human_accuracy=None if accuracy is None else accuracy / 100,
        breakdown=tuple(float(share) / 100 for share in metadata.get("breakdown", ())),
        prohibited=normal_letters(metadata.get("kinki", ())),
        explanation=row.get("explanation") or None,
        vignette_id=vignettes.group(question_id) if vignettes else None,
        vignette_text=vignettes.lost(question_id) if vignettes else None,
        language="ja",
    )


def _igakuqa_gold(key: list[str], text: str, *, numeric: bool) -> tuple[frozenset[str], ...]:
    """Return the accepted answers of a published key: 'a or d' gives two, a number is repaired by its template."""
    if numeric:
        return numeric_gold(key[0], text)
    if either := _EITHER_LETTER.fullmatch(key[0]):
        return tuple(frozenset({letter}) for letter in either.groups())
    return (frozenset(letter for letter in key if letter in LETTERS),)


JMLE2026_DATE = date(2026, 2, 7)

_CHOICE_LINE = re.compile(r"^[\s　]*([a-hａ-ｈ])[\s　.:]+(\S.*)$", re.M)
_CHOICE_ROW = re.compile(r"^\|[\s　]*([a-h])[\s　]*\|(.*)\|?$", re.M)
_NUMBER = re.compile(r"^\s*\d+[\s　]+")
_DIGIT_TABLE = re.compile(r"\n[\s　]*①[\s　]*②.*\Z", re.S)


def read_jmle2026(folder: Path, name: str) -> list[Question]:
    """Read the 400 questions in their published order."""
    file = folder / "jmle2026_dataset.json"
    return [_jmle2026_question(row, place, name) for place, row in array_rows(file)] if file.exists() else []


def _jmle2026_question(row: dict[str, Any], place: str, name: str) -> Question:
    question_id = text_of(row, "question_id", place)
    numeric = row["question_type"] == "calculation"
    text = _NUMBER.sub("", text_of(row, "question_text", place))
    text, choices = (_DIGIT_TABLE.sub("", text), ()) if numeric else _cut_choices(text, place)
    clinical = row["block"] in "BE" and int(row["number"]) > 25
    serial = row.get("serial_group") or {}
    return Question(
        question_id=question_id,
        benchmark=name,
        text=text.strip(),
        choices=choices,
        gold=numeric_gold(row["answer"][0], text) if numeric else (frozenset(row["answer"]),),
        key=tuple(row["answer"]),
        exam_date=JMLE2026_DATE,
        year=JMLE2026_DATE.year,
        section=row["block"],
        numeric=numeric,
        points=3 if clinical else 1,
        required=row["block"] in "BE",
        image=row["requires_image"],
        vignette_id=serial.get("group_id"),
        context=without_announcement(serial["context_text"]) if serial else None,
        language="ja",
    )


def _cut_choices(text: str, place: str) -> tuple[str, tuple[str, ...]]:
    """Split a text into the question and its choices, given on separate lines or as the rows of a table at the end."""
    for pattern in (_CHOICE_LINE, _CHOICE_ROW):
        rows = list(pattern.finditer(text))
        letters = "".join(normal(row[1]) for row in rows)
        if len(rows) >= 4 and "abcdefgh".startswith(letters):
            body = text if pattern is _CHOICE_ROW else text[: rows[0].start()]
            return body, tuple(row[2].strip(" 　|") for row in rows)
    raise DataError(
        "exam.no-choices",
        f"{place}: has no list of choices a, b, c ... in its text. Compare it with the published file.",
    )


IGAKUQA119_DATE = date(2025, 2, 8)

_EITHER_OF_119 = {"119E28": "ac"}
"""Questions of which the set's own scorer takes either letter."""
_LABELLED_CHOICE = re.compile(r"\s*([a-hａ-ｈ])[.．、)]\s*(.*)", re.S)
_FOLLOWS = re.compile(r"次の文を読み、?\s*(\d+)")
_MISSING = "(記載なし)"
"""The text in place of a question or a choice that is absent from the published file."""


def read_igakuqa119(folder: Path, name: str) -> list[Question]:
    """Read the questions of every section that the folder has: `119S_json.json`, and keys in `correct_answers*.csv`."""
    keys = {
        text_of(row, "問題番号", place): text_of(row, "解答", place)
        for file in sorted(folder.glob("**/correct_answers*.csv"))
        for place, row in table_rows(file)
    }
    rows = [row for file in sorted(folder.glob("**/119[A-F]_json.json")) for row in array_rows(file)]
    return [_igakuqa119_question(row, keys, place, name) for place, row in rows]


def _igakuqa119_question(row: dict[str, Any], keys: dict[str, str], place: str, name: str) -> Question:
    question_id = text_of(row, "number", place)
    if question_id not in keys:
        raise DataError(
            "exam.no-key",
            f"{place}: {question_id} has no key. Put the set's correct_answers.csv (問題番号, 解答) into the folder.",
        )
    section, number = question_id[3], int(question_id[4:])
    text = normal(str(row.get("question") or "")).strip() or _MISSING
    choices = _labelled_choices(row.get("choices") or [])
    key = normal(keys[question_id]).lower().replace(" ", "")
    letters = _EITHER_OF_119.get(question_id)
    gold = (frozenset(key) & frozenset(LETTERS),) if letters is None else tuple(map(frozenset, letters))
    head = _FOLLOWS.match(text)
    return Question(
        question_id=question_id,
        benchmark=name,
        text=text,
        choices=choices,
        gold=gold if choices else numeric_gold(key, text),
        key=tuple(sorted(gold[0])) if choices else (key,),
        exam_date=IGAKUQA119_DATE,
        year=IGAKUQA119_DATE.year,
        section=section,
        numeric=not choices,
        points=3 if section in "BE" and number > 25 else 1,
        required=section in "BE",
        image=bool(row.get("has_image")),
        vignette_id=f"119{section}{head[1]}" if head else None,
        language="ja",
    )


def _labelled_choices(written: list[str]) -> tuple[str, ...]:
    """Return choices in the places of their letters, without these; a letter that the file skips keeps its place.

    >>> _labelled_choices(["a. 胃", "c. 肺"])
    ('胃', '(記載なし)', '肺')
    """
    labelled = {
        normal(label[1]): label[2].strip() for choice in written if (label := _LABELLED_CHOICE.match(str(choice)))
    }
    if len(labelled) != len(written):
        return tuple(map(str, written))
    last = LETTERS.index(max(labelled)) + 1 if labelled else 0
    return tuple(labelled.get(letter) or _MISSING for letter in LETTERS[:last])


YAKUGAKUQA_DATES = {
    97: date(2012, 3, 3),
    98: date(2013, 3, 2),
    99: date(2014, 3, 1),
    100: date(2015, 2, 28),
    101: date(2016, 2, 27),
    102: date(2017, 2, 25),
    103: date(2018, 2, 24),
    104: date(2019, 2, 23),
    105: date(2020, 2, 22),
    106: date(2021, 2, 20),
    107: date(2022, 2, 19),
    108: date(2023, 2, 18),
    109: date(2024, 2, 17),
}
"""The first day of each sitting, by the exam's number."""

_NO_ANSWER = "解なし"
_EITHER = re.compile(r"いずれか(?P<count>[1-8一二])つ")
_COUNTS = {"一": 1, "二": 2}
_LIST = r"[1-8１-８](?:(?:\s*[・、,〜～~とや]\s*|及び|および)[1-8１-８](?![0-9０-９%]))*"
_REFERENCE = re.compile(rf"選択肢\s*{_LIST}(?![0-9０-９.．%つ個])|(?:^|(?<=[\n。]))\s*{_LIST}(?=\s*[:：])")
_DIGITS = str.maketrans("12345678１２３４５６７８", LETTERS * 2)


def read_yakugakuqa(folder: Path, name: str) -> list[Question]:
    """Read every question that can be scored, exam by exam; left out: 20 without an official answer, 2 pictures."""
    rows = [raw for file in sorted(folder.glob("[0-9][0-9][0-9].jsonl")) for raw in table_rows(file)]
    return [_yakugakuqa_question(row, place, name) for place, row in rows if not _unscorable(row)]


def _unscorable(row: dict[str, Any]) -> bool:
    void = any(_NO_ANSWER in str(answer) for answer in row.get("answer", ()))
    return void or (row.get("problem_text") == "" and not row.get("text_only"))


def _yakugakuqa_question(row: dict[str, Any], place: str, name: str) -> Question:
    question_id = text_of(row, "problem_id", place)
    exam = int(question_id[:3])
    if exam not in YAKUGAKUQA_DATES:
        raise DataError(
            "exam.undated", f"{place}: exam {exam} is not one of 97 to 109. Add its date to licensing.YAKUGAKUQA_DATES."
        )
    marks = [normal(str(answer)) for answer in row["answer"]]
    letters = "".join(LETTERS[int(mark[0]) - 1] for mark in marks)
    pictures = not isinstance(row["choices"], list)
    count = max(5, LETTERS.index(max(letters)) + 1)
    choices = tuple(f"(図{number})" for number in range(1, count + 1)) if pictures else tuple(row["choices"])
    return Question(
        question_id=question_id,
        benchmark=name,
        text=text_of(row, "problem_text", place),
        choices=choices,
        gold=_yakugakuqa_gold(letters, " ".join(marks)),
        key=tuple(str(answer) for answer in row["answer"]),
        exam_date=YAKUGAKUQA_DATES[exam],
        year=YAKUGAKUQA_DATES[exam].year,
        points=int(row.get("points", 1)),
        image=pictures or not row["text_only"],
        explanation=lettered(row["comment"]) if row.get("comment") else None,
    )


def _yakugakuqa_gold(letters: str, marks: str) -> tuple[frozenset[str], ...]:
    """Return one set of letters, or every set of the officially accepted size ("any two of them")."""
    either = _EITHER.search(marks)
    if either is None:
        return (frozenset(letters),)
    count = _COUNTS.get(either["count"]) or int(either["count"])
    return tuple(frozenset(picked) for picked in combinations(letters, count))


def lettered(explanation: str) -> str:
    """Rewrite an explanation that refers to choice 3 so that it refers to choice c, as the question is asked here.

    >>> lettered("1：誤　胃酸である。選択肢3は正しい。")
    'a：誤　胃酸である。選択肢cは正しい。'
    """
    return _REFERENCE.sub(lambda match: match[0].translate(_DIGITS), explanation)
