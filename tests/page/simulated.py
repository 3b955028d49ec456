"""A made-up evaluation, marked `simulated`: invented questions, replies drawn by chance, no model's result."""

import json
import random
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.exam.question import Question
from medllm.exam.record import PromptStyle, Record, write_records

MODELS = ("base", "cpt", "final")
RIGHT = {
    ("base", "plain"): 0.80, ("base", "explain"): 0.60,
    ("cpt", "plain"): 0.87, ("cpt", "explain"): 0.78,
    ("final", "plain"): 0.87, ("final", "explain"): 0.88,
    ("base", "think"): 0.90, ("cpt", "think"): 0.70, ("final", "think"): 0.95,
}  # fmt: skip
TWELVE = (
    "base", "cpt", "final", "Qwen2.5-72B-Instruct", "Llama3-Preferred-MedSwallow-70B", "DeepSeek-R1-Distill-Qwen-32B",
    "gpt-4o", "o1", "Llama-3.3-Swallow-70B-v0.4", "llm-jp-3-172b-instruct3", "medgemma-27b-text-it", "ELYZA-japanese",
)  # fmt: skip
"""Names as long as those of published models; their replies are made up like all others here."""
CATEGORIES = ("呼吸器", "循環器", "消化器", "神経")
HOSTILE = "${alert(1)} {{x}} <img src=x onerror=alert(2)> </script><script>alert(3)</script> `${alert(4)}`"
"""What no page may run: in a question, a choice, a category and replies of this evaluation."""


def questions(per_section: int = 10) -> list[Question]:
    """Invented questions of two years and two sections, with every special kind among them."""
    made = []
    for year in (2021, 2022):
        for section in "AB":
            made += [_question(year, section, number) for number in range(1, per_section + 1)]
    return made


def _question(year: int, section: str, number: int) -> Question:
    numeric, two = number == 5, number == 4
    hostile = number == 3
    gold = frozenset({"12.5"}) if numeric else frozenset("bd") if two else frozenset("abcde"[number % 5])
    return Question(
        question_id=f"{year - 1906}{section}{number}",
        benchmark="kakuu",
        text=HOSTILE
        if hostile
        else f"架空病{number}号の患者。発熱と咳を訴える。まず行うべき検査はどれか。（作りもの、{year} 年）",
        choices=()
        if numeric
        else (*(f"架空検査{letter}" for letter in "甲乙丙丁"), HOSTILE if hostile else "架空検査戊"),
        gold=(gold,),
        key=(",".join(sorted(gold)),),
        exam_date=date(year, 2, 1),
        year=year,
        section=section,
        numeric=numeric,
        points=3 if section == "B" and number % 3 == 0 else 1,
        required=section == "B",
        image=number == 7,
        category=CATEGORIES[number % 4],
        human_accuracy=0.5 + number % 10 / 20,
        breakdown=() if numeric else (0.1, 0.2, 0.4, 0.2, 0.1),
        prohibited=frozenset("a") if number == 2 else frozenset(),
    )


def reply(question: Question, model: str, prompt: str, chance: random.Random) -> Record:
    """One made-up judged reply; some cannot be read, are cut off or run on."""
    right = chance.random() < RIGHT.get((model, prompt), 0.7)
    status = (
        "answered"
        if right
        else chance.choice(["answered", "answered", "unparsed", "truncated", "run_on", "loop", "wrong_count"])
    )
    readable = status not in ("unparsed", "truncated")
    wrong = "9" if question.numeric else next(letter for letter in "abcde" if frozenset(letter) not in question.gold)
    answer = (question.gold_answer if right else wrong) if readable else None
    harm = answer if answer and answer in question.prohibited else None
    hostile = HOSTILE if question.text == HOSTILE else ""
    text = hostile + "発熱と咳からまず呼吸器の病気を考える。画像の所見と合わせると架空病に合う。" * chance.randint(2, 9)
    tail = f"\n答え：{answer}" if answer else ""
    return Record(
        question_id=question.question_id, benchmark=question.benchmark, model=model, prompt=prompt, status=status,
        correct=right, points=float(question.points * right), points_total=float(question.points), answer=answer,
        gold=question.gold_answer, completion=(text if prompt == "explain" else "") + tail, prohibited=harm,
        finish_reason="length" if status == "truncated" else "stop", truncated=status == "truncated",
        year=question.year, section=question.section, category=question.category, required=question.required,
        image=question.image, template="paper", shots=3, model_revision="0" * 40,
        reasoning=f"{hostile}{model} は {wrong} かと疑う。" if prompt == "think" else None,
        reasoning_tokens=17 if prompt == "think" else None,
    )  # fmt: skip


def write(
    folder: Path,
    per_section: int = 10,
    seed: int = 0,
    prompts: tuple[PromptStyle, ...] = ("plain", "explain"),
    models: tuple[str, ...] = MODELS,
) -> Path:
    """Write the evaluation's folder: records, questions, runs, facts."""
    chance = random.Random(seed)
    asked = questions(per_section)
    write_records(
        [reply(q, m, p, chance) for q in asked for m in models for p in prompts],
        folder / "records" / "simulated.parquet",
    )
    write_questions(asked, folder)
    runs = [
        {"model": model, "source": f"simulated/{model}", "model_revision": "0" * 40, "simulated": True}
        for model in models
    ]
    write_table(runs, folder / "runs" / "runs.parquet")
    (folder / "facts.json").write_text(json.dumps({"simulated": True}), encoding="utf-8")
    return folder


def write_questions(asked: list[Question], folder: Path) -> None:
    """Write the questions as evaluate does."""
    write_table([question.to_row() for question in asked], folder / "questions" / "q.parquet")


def write_table(rows: list[dict[str, object]], path: Path) -> None:
    """Write rows as parquet, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
