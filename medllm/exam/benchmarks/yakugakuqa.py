"""YakugakuQA, thirteen pharmacist exams with expert explanations: numbered choices become letters throughout."""

import re
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.benchmarks.fields import text_of
from medllm.exam.extract.completion import normal
from medllm.exam.question import LETTERS, Question
from medllm.exam.tables import table_rows

EXAM_DATES = {
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


def read(folder: Path, name: str) -> list[Question]:
    """Read every question that can be scored, exam by exam; left out: 20 without an official answer, 2 pictures."""
    rows = [found for file in sorted(folder.glob("[0-9][0-9][0-9].jsonl")) for found in table_rows(file)]
    return [_question(row, place, name) for place, row in rows if not _unscorable(row)]


def _unscorable(row: dict[str, Any]) -> bool:
    void = any(_NO_ANSWER in str(answer) for answer in row.get("answer", ()))
    return void or (row.get("problem_text") == "" and not row.get("text_only"))


def _question(row: dict[str, Any], place: str, name: str) -> Question:
    question_id = text_of(row, "problem_id", place)
    exam = int(question_id[:3])
    if exam not in EXAM_DATES:
        raise DataError(
            "exam.undated", f"{place}: exam {exam} is not one of 97 to 109. Add its date to yakugakuqa.EXAM_DATES."
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
        gold=_gold(letters, " ".join(marks)),
        key=tuple(str(answer) for answer in row["answer"]),
        exam_date=EXAM_DATES[exam],
        year=EXAM_DATES[exam].year,
        points=int(row.get("points", 1)),
        image=pictures or not row["text_only"],
        explanation=lettered(row["comment"]) if row.get("comment") else None,
    )


def _gold(letters: str, marks: str) -> tuple[frozenset[str], ...]:
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
    return _REFERENCE.sub(lambda found: found[0].translate(_DIGITS), explanation)
