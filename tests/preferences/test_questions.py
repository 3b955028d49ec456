"""A held-out question is caught wherever it hides: among past questions, worked examples, answers and votes."""

import hashlib
import json
from datetime import date

import pyarrow.parquet as pq
import pytest

from medllm.corpus.decontaminate.matcher import ExamIndex
from medllm.evaluation import build_exam_runs
from medllm.exam.benchmarks import load
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.types import Reply
from medllm.preferences.questions import AuditTrail, question_texts, select_questions
from medllm.recipe.settings import Evaluate, Preferences
from medllm.stages import preferences
from tests import tiny
from tests.refusals import refused

HELD = {
    "question_id": "116A9",
    "text": "52歳の男性。健康診断で肝機能障害を指摘されて来院した。飲酒は日本酒3合を毎日、30年間続けている。"
    "次に行う検査はどれか。",
    "choices": ["腹部超音波検査", "上部消化管内視鏡検査", "胸部エックス線撮影", "頭部単純CT検査", "骨髄穿刺"],
    "answer": "a",
    "exam_date": "2022-02-05",
    "year": 2022,
    "explanation": "慢性の飲酒による肝障害を疑い、侵襲の少ない検査から行う。",
}
# The same question as somebody else's past exam has it: other digits, other order, another id and an earlier day.
COPY = {
    **HELD,
    "question_id": "Q900",
    "text": HELD["text"].replace("52", "５２").replace("3合", "３合").replace("。", "。 "),
    "choices": HELD["choices"][::-1],
    "answer": "e",
    "exam_date": "2015-02-07",
    "year": 2015,
}


def put(folder, rows, name="exam.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture
def sources(tmp_path):
    past = tiny.make_exam(tmp_path / "past", 8)
    return {"./past": past, "secret": put(tmp_path / "secret", [HELD])}


def settings(**changed):
    data = [{"source": "./past", "exam": "own"}]
    common = {"model": "base", "data": data, "cutoff": date(2017, 12, 31), "held_out": ("secret",), "shots": 2}
    return Preferences(**{**common, **changed})


def test_a_past_question_that_is_a_held_out_one_in_other_clothes_is_not_asked(sources, tmp_path):
    sources["./more"] = put(tmp_path / "more", [COPY])
    both = [{"source": name, "exam": "own"} for name in ("./past", "./more")]
    asked = select_questions(settings(data=both), sources)
    assert asked.counts == {"kept": 8, "leak": 1}
    assert "Q900" not in {question.question_id for question in (*asked.questions, *asked.exemplars)}
    (row,) = asked.watch.rows()
    assert (row["document"], row["item"], row["verdict"]) == ("own/Q900", "secret/116A9", "drop")
    assert (row["stage"], row["reviewed"]) == ("preferences", False)
    kept = select_questions(settings(data=both, leaks_reviewed=("own/Q900",)), sources)
    assert kept.counts == {"kept": 9}, "a person looked and answered for it"
    assert kept.watch.facts()["unreviewed"] == 0


def test_a_worked_example_that_is_a_held_out_question_stops_the_pairs(sources, tmp_path):
    sources["./shots"] = put(tmp_path / "shots", [{**COPY, "question_id": "E1"}], "exemplars.jsonl")
    with refused("corpus.holds-held-out-question", "preferences.exemplars: own-exemplars/E1", "% of secret/116A9"):
        select_questions(settings(exemplars="./shots", shots=1), sources)


def test_a_worked_example_that_is_a_question_of_the_exam_stops_the_evaluation(tmp_path):
    exam = put(tiny.make_exam(tmp_path / "own", 6, first="2019-02-09"), [HELD], "more.jsonl")
    put(exam, [{**COPY, "question_id": "E1"}], "exemplars.jsonl")
    asked = Evaluate(models={"base": "base"}, benchmarks=("own",), shots=1)
    with refused("corpus.holds-held-out-question", "evaluate.benchmarks: own: own-exemplars/E1", "% of own/116A9"):
        build_exam_runs(asked, {"own": exam})
    put(
        exam,
        [{**COPY, "question_id": "E1", "text": "発熱のある小児にまず行うことを選ぶ問いである。"}],
        "exemplars.jsonl",
    )
    (sitting,) = build_exam_runs(asked, {"own": exam})
    assert sitting.watch.facts()["documents"] == 1 and sitting.watch.facts()["documents_to_drop"] == 0


def test_an_evaluation_without_worked_examples_builds_no_index_of_the_exam(tmp_path, monkeypatch):
    exam = tiny.make_exam(tmp_path / "own", 6, first="2019-02-09")
    monkeypatch.setattr(ExamIndex, "__init__", lambda *given, **more: pytest.fail("the exam was indexed"))
    (sitting,) = build_exam_runs(Evaluate(models={"base": "base"}, benchmarks=("own",), shots=0), {"own": exam})
    assert len(sitting.questions) == 6 and sitting.examples == []


def test_a_vote_whose_texts_hold_a_held_out_question_is_refused(sources, tmp_path):
    vote = {"prompt": "問い: 1+1はいくつか。", "rejected": "3", "question_id": "V1", "benchmark": "own"}
    sources["./votes"] = put(tmp_path / "votes", [{**vote, "chosen": COPY["text"] + "答えは超音波。"}])
    asked = select_questions(settings(), sources)
    with refused("corpus.holds-held-out-question", "preferences.votes: ./votes: vote 1 on own/V1", "% of secret/116A9"):
        preferences._votes(settings(votes=["./votes"]), sources, asked)
    put(tmp_path / "votes", [{**vote, "chosen": "2"}])
    assert len(preferences._votes(settings(votes=["./votes"]), sources, asked)[0]) == 1


def test_an_answer_that_recites_a_held_out_question_is_dropped_counted_and_shown(sources, tmp_path, monkeypatch):
    def reciting(self, requests):
        for number, one in enumerate(requests):
            text = (
                f"類題: {HELD['text']}\nAnswer: a"
                if number == 3
                else f"理由は{number}である。\nAnswer: {'ab'[number % 2]}"
            )
            yield Reply(key=one.key, text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=1)

    monkeypatch.setattr(LocalGenerator, "generate", reciting)
    sources["base"] = tiny.make_base(tmp_path / "base")
    asked = settings(samples=4, dtype="float32", template="paper")
    preferences.make(asked, sources, tmp_path / "out")
    samples = pq.read_table(tmp_path / "out" / "samples").to_pylist()
    assert len(samples) == 6 * 4 - 1
    pairs = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert pairs and not any(
        "飲酒" in text for row in (*pairs, *samples) for text in row.values() if isinstance(text, str)
    )
    (row,) = pq.read_table(tmp_path / "out" / "audit").to_pylist()
    assert (row["stage"], row["item"], row["verdict"]) == ("teacher", "secret/116A9", "drop")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))["audit"]
    assert facts["dropped"] == {"few-shot": 0, "preferences": 0, "teacher": 1} and facts["unreviewed"] == 0
    assert facts["documents"] == 8 + 2 + 24
    assert "飲酒" in (tmp_path / "out" / "audit.html").read_text("utf-8")


def test_a_held_out_exam_that_is_not_at_hand_is_no_clean_bill(sources):
    with refused("preferences.no-held-out-exam", "preferences.held_out:", "`secret`"):
        select_questions(settings(), {"./past": sources["./past"]})


@pytest.mark.long
def test_every_igakuqa_question_is_seen_as_a_question_an_example_and_an_answer(shared_data):
    """With its options in another order, as a past question; and told in the middle of an answer."""
    exam = load("igakuqa", shared_data / "igakuqa")
    watch = AuditTrail.over(exam)
    texts = question_texts(exam)
    turned = [
        (name, "\n".join((one.context or "", one.text, *one.choices[::-1])))
        for (name, _), one in zip(texts, exam, strict=True)
    ]
    assert len(watch.match("preferences", turned)) == 2000
    assert len(watch.match("few-shot", texts)) == 2000
    answers = [(f"{name}#0", f"似た問題を思い出す。{text}\n以上より答えはaである。") for name, text in turned]
    assert len(watch.match("teacher", answers)) == 2000
    assert watch.facts()["dropped"] == {"few-shot": 2000, "preferences": 2000, "teacher": 2000}


def test_an_imported_exam_has_its_folders_name_and_seeds_and_every_other_folder_keeps_its_own(sources, tmp_path):
    data = [{"source": "./past"}, {"source": "./ward"}, {"source": "you/lung@0a1b"}, {"source": "./igakuqa"}]
    for number, name in enumerate(("ward", "you/lung@0a1b", "igakuqa")):
        folder = tiny.make_exam(tmp_path / f"place {number}", 3, first="2015-02-07")
        rows = [json.loads(line) for line in (folder / "exam.jsonl").read_text("utf-8").splitlines()]
        put(folder, [{**row, "question_id": f"{number}-{place}"} for place, row in enumerate(rows)])
        (folder / "import.json").write_text("{}", "utf-8")
        sources[name if "/" in name else f"./{name}"] = folder
    asked = settings(data=data, shots=0)
    selected = select_questions(asked, sources)
    names = {question.question_id[:2]: question.benchmark for question in selected.questions}
    assert (names["0-"], names["1-"], names["2-"]) == ("ward", "lung", "own")
    assert {question.benchmark for question in selected.questions} == {"own", "ward", "lung"}
    key = preferences.key_of(next(question for question in selected.questions if question.benchmark == "own"))
    assert key[0] == "own"
    seeds = [preferences.seed_of(asked, (name, "Q1"), 0) for name in ("own", "ward")]
    assert seeds == [int(hashlib.sha256(f"0 {name} Q1 0".encode()).hexdigest()[:12], 16) for name in ("own", "ward")]


def test_a_past_question_with_a_year_alone_counts_as_asked_on_the_years_last_day(tmp_path):
    rows = [{**HELD, "question_id": f"Q{year}", "year": year, "exam_date": None} for year in (2016, 2017, 2018)]
    rows.append({**HELD, "question_id": "undated", "year": None, "exam_date": None})
    past = {"./past": put(tmp_path / "past", rows)}
    selected = select_questions(settings(held_out=None, shots=0, cutoff=date(2017, 12, 31)), past)
    assert [(question.question_id, question.exam_date) for question in selected.questions] == [
        ("Q2016", date(2016, 12, 31)),
        ("Q2017", date(2017, 12, 31)),
    ]
    assert selected.counts == {"kept": 2, "after the cutoff": 1, "no exam date": 1}
