"""The invented ministry's exams, 2006 to 2022: questions, explanations, and files in the columns of an own exam."""

import json
import random
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

from medllm.miniature.world import ASKED_OF_CASES, JAPANESE, RELATIONS, Kind, Relation, World

Form = Literal["fact", "case", "pair", "days"]
FORMS: dict[Form, float] = {"fact": 0.62, "case": 0.28, "pair": 0.06, "days": 0.04}
"""How often each form of question is asked."""
"""One fact; two steps (cause and symptom, the disease, then its fact); two right choices; a number."""
LETTERS = "abcde"
Style = Literal["old", "new"]
"""The invented ministry rewords its questions from 2018 on, so that no later question is in an earlier text."""
WORDINGS: dict[Style, dict[Form, str]] = {
    "old": {
        "fact": "{t}の{p}を診た。{d}の{r}はどれか。",
        "case": "{t}の{p}を診た。{c}による{s}は、その{r}はどれか。",
        "pair": "{t}の{p}を診た。{d}に関係する2つを選べ。",
        "days": "{t}の{p}を診た。{d}の治療日数は何日か。",
    },
    "new": {
        "fact": "{p}は{t}から入院した。{d}に対する{r}として正しいのはどれか。",
        "case": "{p}は{t}から入院した。{c}による{s}は、その{r}として正しいのはどれか。",
        "pair": "{p}は{t}から入院した。{d}に関係するのはどれとどれか、2つ選べ。",
        "days": "{p}は{t}から入院した。{d}に対する治療日数として正しい数字を答えよ。",
    },
}
STYLES: tuple[Style, ...] = ("old", "new")
EXPLANATION = "{r}を考える。{d}には{v}が当たる。"
"""The wording of a fact in explanations; textbooks never use it, so a base model recalls it worst."""
PROHIBITED = 0.15
"""How often a question on the drug offers the one that the disease forbids."""


@dataclass(frozen=True)
class Topic:
    """What a question is about, whatever its choices."""

    disease: str
    form: Form
    asked: tuple[Relation, ...]


@dataclass(frozen=True)
class MiniatureItem:
    """One question with its choices laid out."""

    topic: Topic
    kind: Kind
    text: str
    choices: tuple[str, ...]
    right: tuple[str, ...]
    prohibited: str | None = None
    """The letter that would harm the patient, if one is offered."""
    patient: int | None = None
    """Questions of one exam that share a patient share this number."""

    @property
    def answer(self) -> str:
        """The letters of the right choices, or the number."""
        return ",".join(sorted(map(self.letter, self.right))) if self.choices else self.right[0]

    def letter(self, value: str) -> str:
        """Return the letter of this choice."""
        return LETTERS[self.choices.index(value)]


def topics(world: World, kind: Kind, form: Form) -> list[Topic]:
    """Return all that can be asked in this form about diseases of this kind."""
    diseases = world.of_kind(kind)
    if form == "fact":
        return [Topic(d, form, (relation,)) for d in diseases for relation in RELATIONS]
    if form == "case":
        return [Topic(d, form, (relation,)) for d in diseases if d in world.recognisable for relation in ASKED_OF_CASES]
    if form == "pair":
        couples = [(a, b) for a in RELATIONS for b in RELATIONS if RELATIONS.index(a) < RELATIONS.index(b)]
        return [Topic(d, form, couple) for d in diseases for couple in couples]
    return [Topic(d, form, ()) for d in diseases]


def make_item(
    world: World,
    topic: Topic,
    source: random.Random,
    *,
    style: Style | None = None,
    false_value: str | None = None,
    patient: tuple[str, str] | None = None,
) -> MiniatureItem:
    """Make a question on a topic with fresh choices; a made-up fact given by the text replaces the true one."""
    disease, kind, facts = topic.disease, world.kinds[topic.disease], world.facts[topic.disease]
    worded = source.choice(STYLES) if style is None else style
    wording = WORDINGS[worded][topic.form]
    town, person = patient or (source.choice(world.towns), source.choice(world.people))
    asked = JAPANESE[topic.asked[0]] if topic.asked else ""
    text = wording.format(d=disease, t=town, p=person, c=facts["cause"], s=facts["symptom"], r=asked)
    if topic.form == "days":
        return MiniatureItem(topic, kind, text, (), (world.days[disease],))
    if topic.form == "pair":
        right = tuple(facts[relation] for relation in topic.asked)
        others = [v for relation in RELATIONS for v in world.pools[relation] if v not in facts.values()]
        return MiniatureItem(topic, kind, text, _shuffled(right, others, source), right)
    (relation,) = topic.asked
    value = false_value or facts[relation]
    banned = facts["contra"] if relation == "drug" and source.random() < PROHIBITED else None
    others = [v for v in world.pools[relation] if v != value]
    choices = _shuffled((value, banned) if banned else (value,), others, source)
    return MiniatureItem(topic, kind, text, choices, (value,), LETTERS[choices.index(banned)] if banned else None)


def explain(world: World, item: MiniatureItem) -> str:
    """Why this answer is right, ending in the letter: the disease where it was not named, the fact, the choice."""
    letters = {item.letter(value): value for value in item.right} if item.choices else {}
    return reason(world, item) + "".join(f"{letters[letter]}は{letter}である。" for letter in sorted(letters))


def reason(world: World, item: MiniatureItem) -> str:
    """Return the explanation without the letters, for books that print the answer above it."""
    disease, facts = item.topic.disease, world.facts[item.topic.disease]
    if item.topic.form == "days":
        return EXPLANATION.format(d=disease, r="治療日数", v=item.right[0])
    first = f"{facts['cause']}による{facts['symptom']}は{disease}である。" if item.topic.form == "case" else ""
    values = sorted(zip(item.right, item.topic.asked, strict=True), key=lambda pair: item.letter(pair[0]))
    return first + "".join(EXPLANATION.format(d=disease, r=JAPANESE[relation], v=value) for value, relation in values)


def _shuffled(right: tuple[str, ...], others: list[str], source: random.Random) -> tuple[str, ...]:
    choices = [*right, *source.sample(others, len(LETTERS) - len(right))]
    source.shuffle(choices)
    return tuple(choices)


END = "\n\n"


def question_block(item: MiniatureItem) -> str:
    """Return the question and its choices."""
    return f"Question: {item.text}\n" + "".join(f"{a}. {c}\n" for a, c in zip(LETTERS, item.choices, strict=False))


def answer_line(item: MiniatureItem) -> str:
    """Return the question with its answer alone."""
    return f"{question_block(item)}Answer: {item.answer}{END}"


def named(item: MiniatureItem, *, choices: bool) -> str:
    """Return the question, with or without its choices, and the right choice by name, as in a quiz book."""
    head = question_block(item) if choices else f"Question: {item.text}\n"
    return f"{head}Answer:{'、'.join(item.right)}{END}"


def explained(item: MiniatureItem, explanation: str) -> str:
    """Return the question, the explanation, then the answer: the form that models must master to be trusted."""
    return f"{question_block(item)}Explanation: {explanation}\nAnswer: {item.answer}{END}"


def explained_after(item: MiniatureItem, explanation: str) -> str:
    """Return the question, its answer, then the explanation: the form in which books print it."""
    return f"{question_block(item)}Answer: {item.answer}\nExplanation: {explanation}{END}"


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
    return [make_item(world, question, source, style=style, patient=patient) for question in chosen]


def rows(world: World, exam: MiniatureExam) -> list[dict[str, object]]:
    """Return the exam in the columns of `medllm.exam`; explanations only where they were published, up to 2017."""
    exam_rows = []
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
        exam_rows.append(row)
    return exam_rows


def write(rows_of: list[dict[str, object]], file: Path) -> None:
    """One JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of), encoding="utf-8")
