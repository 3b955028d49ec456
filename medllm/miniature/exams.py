"""The invented ministry's exams, 2006 to 2022, and a mock exam, as JSON lines in the columns of an exam of your own."""

import json
import random
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from medllm.miniature.questions import FORMS, Form, MiniatureItem, Style, Topic, explain, make_item, topics
from medllm.miniature.world import Kind, World

FIRST_YEAR, LAST_TAUGHT, LAST_YEAR = 2006, 2017, 2022
"""Exams up to the second may be learnt from; those after it are only ever asked."""
Shares = dict[Kind, float]
TAUGHT: Shares = {"known": 2 / 3, "exam": 1 / 3}
ASKED: Shares = {"known": 0.5, "exam": 0.33, "text": 0.17}
SHEETS = FORMS | {"case": 0.15}
"""How often a sheet has which form; a sheet with a case has two questions on it."""
SECTIONS = "ABCDEF"
REQUIRED = "BE"
"""The sections that every candidate must pass; their case questions count three points, as in the real exam."""


@dataclass(frozen=True)
class MiniatureExam:
    """One exam: its name, its date, and its questions in order."""

    name: str
    sat: date
    items: tuple[MiniatureItem, ...]


def exam_of(world: World, year: int, questions: int) -> MiniatureExam:
    """Return the exam of a year; the test-only years were drawn after every setting of the recipe was fixed."""
    old = year <= LAST_TAUGHT
    source = random.Random(f"exam {world.seed} {year}" if old else f"unseen {world.seed} {year}")
    style: Style = "old" if old else "new"
    items = draw(world, source, TAUGHT if old else ASKED, style, questions)
    return MiniatureExam(str(year - 1906), date(year, 2, 10), items)


def mock_exam(world: World, questions: int) -> MiniatureExam:
    """Return the development exam: settings are chosen on it, so that the test years are never used for choices."""
    source = random.Random(f"mock {world.seed}")
    return MiniatureExam("mock", date(2018, 1, 10), draw(world, source, ASKED, "new", questions))


def exemplars(world: World) -> MiniatureExam:
    """Three worked examples from before the first exam: a fact, a case and two right choices."""
    source = random.Random(f"exemplars {world.seed}")
    forms: tuple[Form, ...] = ("fact", "pair", "case")
    items = tuple(make_item(world, source.choice(topics(world, "known", form)), source, style="old") for form in forms)
    return MiniatureExam("99", date(2005, 2, 10), items)


def draw(world: World, source: random.Random, shares: Shares, style: Style, count: int) -> tuple[MiniatureItem, ...]:
    """Questions by kind of knowledge and by form; two case questions share a patient."""
    sheets: list[list[MiniatureItem]] = []
    for kind, share in shares.items():
        wanted, pools = round(count * share), {form: topics(world, kind, form) for form in FORMS}
        while wanted:
            (form,) = source.choices(list(SHEETS), list(SHEETS.values()))
            sheet = _sheet(world, pools[form] or topics(world, kind, form), source, style)[:wanted]
            asked = {item.topic for item in sheet}
            pools[form] = [topic for topic in pools[form] if topic not in asked]
            sheets.append(sheet)
            wanted -= len(sheet)
    source.shuffle(sheets)
    return tuple(
        replace(item, patient=number if len(sheet) > 1 else None)
        for number, sheet in enumerate(sheets)
        for item in sheet
    )


def _sheet(world: World, pool: list[Topic], source: random.Random, style: Style) -> list[MiniatureItem]:
    """One question, or two on the same patient's case, on topics that this sitting has not asked yet."""
    topic = source.choice(pool)
    patient = (source.choice(world.towns), source.choice(world.people))
    others = [other for other in pool if other != topic and other.disease == topic.disease]
    chosen = [topic, source.choice(others)] if topic.form == "case" and others else [topic]
    return [make_item(world, one, source, style=style, patient=patient) for one in chosen]


def rows(world: World, exam: MiniatureExam) -> list[dict[str, object]]:
    """Return the exam in the columns of `medllm.exam`; explanations only where they were published, up to 2017."""
    found = []
    for number, item in enumerate(exam.items):
        section = SECTIONS[number * len(SECTIONS) // len(exam.items)]
        required, case = section in REQUIRED, item.topic.form == "case"
        row: dict[str, object] = {
            "question_id": f"{exam.name}{section}{number + 1}",
            "text": item.text,
            "choices": list(item.choices),
            "answer": item.answer,
            "exam_date": exam.sat.isoformat(),
            "year": exam.sat.year,
            "section": section,
            "points": 3 if required and case else 1,
            "required": required,
            "category": f"{item.kind}/{item.topic.form}",
            "group": f"{exam.name}-{item.patient}" if item.patient is not None else None,
            "prohibited": [item.prohibited] if item.prohibited else [],
        }
        if exam.sat.year <= LAST_TAUGHT:
            row["explanation"] = explain(world, item)
        found.append(row)
    return found


def write(rows_of: list[dict[str, object]], file: Path) -> None:
    """One JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of), encoding="utf-8")
