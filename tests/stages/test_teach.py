"""The teach stage from folders to folder: a teacher behind an address or here, what is kept, and a stop."""

import json
from datetime import date

import pyarrow.parquet as pq
import pytest

from medllm.generation.endpoint import EndpointGenerator
from medllm.recipe.settings import Preferences, Teach
from medllm.stages import preferences, teach
from tests import tiny
from tests.generation.serving import ChatServer
from tests.refusals import refused

WHY = "検査値と経過を順に確かめると、この所見に当てはまる選択肢はほかにない。"


def settings(**changed):
    common = {
        "model": "big",
        "data": [{"source": "./exam", "exam": "own", "license": "CC-BY-4.0"}],
        "cutoff": date(2017, 12, 31),
        "teacher_cutoff": date(2024, 6, 30),
        "samples": 2,
        "kept_per_question": 1,
    }
    return Teach(**{**common, **changed})


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    return tiny.make_exam(tmp_path_factory.mktemp("teach") / "exam", 8)


def questions_of(folder):
    return [json.loads(line) for line in (folder / "exam.jsonl").read_text("utf-8").splitlines()]


def rows(folder, part="data"):
    return pq.read_table(folder / part).to_pylist()


def facts_of(folder):
    return json.loads((folder / "facts.json").read_text("utf-8"))


def teacher_of(folder, **replies):
    """A server that answers with the key, or, by a question's id, with what `replies` has for each call in turn."""
    known = {row["text"]: row for row in questions_of(folder)}
    calls = {}

    def answer(body):
        asked = body["messages"][-1]["content"]
        row = next(row for text, row in known.items() if text in asked)
        name = row["question_id"]
        given = replies.get(name)
        if isinstance(given, list):
            calls[name] = calls.get(name, -1) + 1
            given = given[min(calls[name], len(given) - 1)]
        if given is None:
            given = f"{WHY}番号{name}では{row['text'][:4]}に注目する。\n答え: {row['answer']}"
        return {"content": given} if isinstance(given, str) else dict(given)

    return ChatServer(answer)


@pytest.fixture
def wrong(exam):
    """A letter for each question that is not its key."""
    return {row["question_id"]: "a" if row["answer"] != "a" else "b" for row in questions_of(exam)}


def test_only_explanations_that_agree_with_the_key_are_kept_and_the_rest_is_counted_by_reason(exam, wrong, tmp_path):
    key = {row["question_id"]: row["answer"] for row in questions_of(exam)}
    server = teacher_of(
        exam,
        Q0=f"{WHY}\n答え: {wrong['Q0']}",
        Q1="わかりません。",
        Q2={"content": f"{WHY}\n答え: {key['Q2']}", "finish_reason": "length"},
        Q3=f"答え: {key['Q3']}",
        Q4=f"したがって正解は{wrong['Q4']}です。{WHY}いや、もう一度確かめる。\n\n答え: {key['Q4']}",
    )
    teach.make(settings(engine=server.url, samples=1), {"./exam": exam}, tmp_path / "out")
    server.close()
    facts = facts_of(tmp_path / "out")
    assert facts["verdicts"] == {
        "kept": 3, "wrong": 1, "unparsed": 1, "truncated": 1, "short": 1, "contradiction": 1,
    }  # fmt: skip
    assert (facts["questions"], facts["questions_explained"], facts["questions_never_right"]) == (8, 3, 3)
    assert facts["teacher"] == {"model": "big", "revision": None, "cutoff": "2024-06-30", "is_itself": False}
    assert [row["question_id"] for row in rows(tmp_path / "out")] == ["Q5", "Q6", "Q7"]
    assert {row["verdict"] for row in rows(tmp_path / "out", "samples")} == set(facts["verdicts"])


def test_a_row_is_a_dated_licensed_conversation_without_worked_examples(exam, tmp_path):
    server = teacher_of(exam)
    teach.make(settings(engine=server.url, shots=2), {"./exam": exam}, tmp_path / "out")
    asked = server.seen[0]["messages"]
    server.close()
    assert [message["role"] for message in asked] == ["system", *["user", "assistant"] * 2, "user"]
    row, question = rows(tmp_path / "out")[0], questions_of(exam)[2]
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert question["text"] in row["messages"][1]["content"]
    assert row["messages"][2]["content"] == f"{row['explanation']}\n答え:{question['answer']}"
    assert row["explanation"].startswith(WHY) and "答え" not in row["explanation"]
    assert (row["date"], row["license"], row["source"]) == (date(2015, 2, 7), "cc-by-4.0", "./exam")
    assert (row["origin"], row["teacher"], row["teacher_cutoff"]) == ("teacher", "big", "2024-06-30")


def test_copies_are_kept_once_and_no_more_of_a_question_than_wanted(exam, tmp_path):
    more = ("", "", "別の面から見ても同じ結論になると考えられる。", "最後に鑑別を挙げて一つずつ除いた。")
    draws = [f"{WHY}{text}\n答え: {{}}" for text in more]
    key = questions_of(exam)[0]["answer"]
    server = teacher_of(exam, Q0=[draw.format(key) for draw in draws])
    wanted = settings(engine=server.url, samples=4, kept_per_question=2, num_concurrent=1)
    teach.make(wanted, {"./exam": exam}, tmp_path / "out")
    server.close()
    verdicts = [row["verdict"] for row in rows(tmp_path / "out", "samples") if row["question_id"] == "Q0"]
    assert verdicts == ["kept", "duplicate", "kept", "surplus"]
    assert [row["sample"] for row in rows(tmp_path / "out") if row["question_id"] == "Q0"] == [0, 2]


def test_an_explanation_that_quotes_a_held_out_question_is_dropped_and_counted(exam, tmp_path):
    secret = tiny.make_exam(tmp_path / "secret", 3, first="2020-02-10", seed=77)
    row = {
        **questions_of(secret)[0],
        "text": "六十五歳の男性が夜間の呼吸困難を訴えて来院した。初めに行う検査はどれか。",
    }
    (secret / "exam.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    key = questions_of(exam)[0]["answer"]
    quoting = f"これは「{row['text']}{''.join(row['choices'])}」と同じ考え方で解ける。\n答え: {key}"
    server = teacher_of(exam, Q0=quoting)
    wanted = settings(engine=server.url, held_out=("secret",))
    teach.make(wanted, {"./exam": exam, "secret": secret}, tmp_path / "out")
    server.close()
    facts = facts_of(tmp_path / "out")
    assert facts["verdicts"]["leak"] == 2 and facts["audit"]["dropped"]["teacher"] == 2
    assert "Q0" not in {row["question_id"] for row in rows(tmp_path / "out")}
    assert {row["document"] for row in rows(tmp_path / "out", "audit")} == {"own/Q0#0", "own/Q0#1"}


def test_a_teacher_that_never_agrees_with_the_key_stops_the_run_and_writes_nothing(exam, wrong, tmp_path):
    server = teacher_of(exam, **{name: f"{WHY}\n答え: {letter}" for name, letter in wrong.items()})
    with refused("teach.nothing-kept", "16 replies of big", "8 questions", "16 wrong", "replies.jsonl"):
        teach.make(settings(engine=server.url), {"./exam": exam}, tmp_path / "out")
    server.close()
    assert not (tmp_path / "out").exists()


def test_a_teacher_without_a_right_answer_is_not_asked_to_the_end(tmp_path):
    many = tiny.make_exam(tmp_path / "many", 60)
    server = teacher_of(many, **{f"Q{number}": "わかりません。" for number in range(60)})
    with refused("teach.nothing-kept", "100 replies of big", "25 questions", "100 unparsed"):
        teach.make(settings(engine=server.url, samples=4, num_concurrent=1), {"./exam": many}, tmp_path / "out")
    asked = len(server.seen)
    server.close()
    assert 100 <= asked <= 120, "of 240"


def test_nothing_is_asked_twice_and_a_new_limit_asks_only_what_is_new(exam, tmp_path):
    server = teacher_of(exam)
    teach.make(settings(engine=server.url), {"./exam": exam}, tmp_path / "first")
    assert len(server.seen) == 16
    teach.make(settings(engine=server.url, teacher_cutoff="unknown"), {"./exam": exam}, tmp_path / "second")
    assert len(server.seen) == 16
    teach.make(settings(engine=server.url, samples=3), {"./exam": exam}, tmp_path / "third")
    assert len(server.seen) == 24
    server.close()
    assert {row["teacher_cutoff"] for row in rows(tmp_path / "second")} == {"unknown"}


def test_questions_after_the_cutoff_are_not_asked_and_those_without_an_explanation_are(exam, tmp_path):
    young = tiny.make_exam(tmp_path / "young", 3, first="2018-02-10", seed=5)
    bare = tiny.make_exam(tmp_path / "bare", 3, first="2014-02-10", seed=6)
    lines = [{**row, "explanation": None} for row in questions_of(bare)]
    (bare / "exam.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    server = teacher_of(bare)
    data = [{"source": source, "exam": "own"} for source in ("./exam", "./young", "./bare")]
    sources = {"./exam": exam, "./young": young, "./bare": bare}
    wanted = settings(engine=server.url, data=data, only_unexplained=True)
    teach.make(wanted, sources, tmp_path / "out")
    server.close()
    facts = facts_of(tmp_path / "out")
    assert facts["left_out"] == {"kept": 3, "after the cutoff": 3, "explained already": 8}
    assert facts["licenses"] == {"not stated": 3}


def test_a_view_of_the_explanation_is_in_the_prompt_and_not_in_the_row(exam, tmp_path):
    question = questions_of(exam)[0]
    long = {**question, "explanation": "この所見は炎症の初期に現れるため、まず血液検査で確かめるのが最も安全である。"}
    folder = tmp_path / "viewed"
    folder.mkdir()
    (folder / "exam.jsonl").write_text(
        "".join(
            json.dumps({**long, "question_id": name, "text": f"{question['text']}{name}"}, ensure_ascii=False) + "\n"
            for name in ("Q1", "Q2", "Q3")
        ),
        "utf-8",
    )
    key = question["answer"]
    server = teacher_of(
        folder,
        Q2=f"検証済みの解説によると、まず血液検査で確かめるのがよいとされている。\n答え: {key}",
        Q3=f"{long['explanation']}\n答え: {key}",
    )
    wanted = settings(engine=server.url, view_explanation=True, samples=1)
    teach.make(wanted, {"./exam": folder}, tmp_path / "out")
    asked = [body["messages"][-1]["content"] for body in server.seen]
    server.close()
    assert all(long["explanation"] in text and f"正解は{key}" in text for text in asked)
    (row,) = rows(tmp_path / "out")
    assert row["question_id"] == "Q1" and row["viewed"]
    assert long["explanation"] not in row["messages"][1]["content"]
    assert facts_of(tmp_path / "out")["verdicts"] == {"kept": 1, "cites_view": 1, "copies_view": 1}


def test_a_model_of_random_weights_here_is_asked_the_same_way_and_teaches_nothing(exam, tmp_path):
    base = tiny.make_base(tmp_path / "base")
    wanted = settings(model="base", engine="local", dtype="float32", max_new_tokens=24)
    with refused("teach.nothing-kept", "16 replies of base", "8 questions"):
        teach.make(wanted, {"base": base, "./exam": exam}, tmp_path / "out")
    replies = (tmp_path / "out.part" / "replies.jsonl").read_text("utf-8").splitlines()
    assert len(replies) == 16 and {json.loads(line)["by"].split()[0] for line in replies} == {"local"}


def test_a_server_with_an_address_and_a_key_of_its_own_is_asked_with_that_key(exam, tmp_path, monkeypatch):
    server = teacher_of(exam)
    model = {"api": server.url, "model": "gpt", "revision": "2026-11-29", "key": "TEACHER_KEY"}
    with refused("generation.no-key", "teach.model", "TEACHER_KEY"):
        teach.make(settings(model=model), {"./exam": exam}, tmp_path / "out")
    monkeypatch.setenv("TEACHER_KEY", "secret-word")
    teach.make(settings(model=model), {"./exam": exam}, tmp_path / "out")
    server.close()
    assert {body["model"] for body in server.seen} == {"gpt"}
    assert {(row["teacher"], row["teacher_revision"]) for row in rows(tmp_path / "out")} == {("gpt", "2026-11-29")}
    assert all(b"secret-word" not in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def without_explanations(folder, names):
    """Take the explanations of these questions away; the exam stays otherwise as it is."""
    lines = [{**row, "explanation": None} if row["question_id"] in names else row for row in questions_of(folder)]
    (folder / "exam.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines), "utf-8")
    return folder


def sampling(server, **changed):
    common = {
        "model": "student",
        "engine": server.url,
        "format": "chat",
        "shots": 0,
        "samples": 2,
        "template": "igakuqa",
    }
    common |= {"data": [{"source": "./exam", "exam": "own"}], "cutoff": date(2017, 12, 31), "explanations": "teach"}
    return Preferences(**{**common, **changed})


def student_of(folder):
    """A server that answers each question once right and once wrong."""
    rows = questions_of(folder)
    right = {row["question_id"]: f"別の言い方で説明する。\n答え: {row['answer']}" for row in rows}
    wrong = {row["question_id"]: f"取り違えて説明する。\n答え: {'a' if row['answer'] != 'a' else 'b'}" for row in rows}
    return teacher_of(folder, **{name: [right[name], wrong[name]] for name in right})


def test_what_a_teacher_explained_is_the_ground_truth_of_pairs_where_no_person_did(tmp_path):
    folder = without_explanations(tiny.make_exam(tmp_path / "exam", 6), {"Q0", "Q1", "Q2"})
    teacher = teacher_of(folder, Q2="わかりません。")
    sources = {"./exam": folder, "teach": tmp_path / "teach"}
    teach.make(settings(engine=teacher.url), sources, sources["teach"])
    teacher.close()
    student = student_of(folder)
    preferences.make(sampling(student, num_concurrent=1), sources, tmp_path / "pairs")
    student.close()
    pairs, facts = rows(tmp_path / "pairs"), facts_of(tmp_path / "pairs")
    assert facts["left_out"] == {"kept": 5, "no explanation": 1}, "the teacher could not explain Q2"
    assert facts["questions_explained_by_a_teacher"] == 2
    truth = {row["question_id"]: row["messages"][-1]["content"] for row in rows(sources["teach"])}
    origins = {
        (pair["question_id"], pair["pair"]): (pair["origin"], pair["teacher"], pair["teacher_cutoff"]) for pair in pairs
    }
    assert len(origins) == 15
    for (name, step), origin in origins.items():
        taught = name in ("Q0", "Q1") and step != "chosen>rejected"
        assert origin == (("teacher", "big", "2024-06-30") if taught else ("sampled", None, None))
    for pair in pairs:
        if pair["origin"] == "teacher":
            assert pair["chosen"] == [{"role": "assistant", "content": truth[pair["question_id"]]}]
        elif pair["pair"] != "chosen>rejected":
            assert WHY not in pair["chosen"][0]["content"]


def test_a_table_without_a_teachers_explanations_is_refused(tmp_path):
    folder = tiny.make_exam(tmp_path / "exam", 4)
    server = student_of(folder)
    sources = {"./exam": folder, "teach": tiny.make_pairs(tmp_path / "pairs")}
    with refused("preferences.no-explanations", "preferences.explanations", sources["teach"], "question_hash"):
        preferences.make(sampling(server), sources, tmp_path / "out")
    server.close()


def test_pairs_of_a_recipe_without_a_teacher_have_the_columns_of_before(tmp_path):
    folder = tiny.make_exam(tmp_path / "exam", 3)
    server = student_of(folder)
    preferences.make(sampling(server, explanations=None, num_concurrent=1), {"./exam": folder}, tmp_path / "out")
    server.close()
    assert not {"teacher", "teacher_cutoff"} & set(rows(tmp_path / "out")[0])
    assert "questions_explained_by_a_teacher" not in facts_of(tmp_path / "out")


def test_an_interrupted_asking_goes_on_without_asking_twice_and_ends_the_same(exam, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDLLM_ANSWERS", "none")
    server = teacher_of(exam)
    wanted = settings(engine=server.url, num_concurrent=1)
    teach.make(wanted, {"./exam": exam}, tmp_path / "whole")
    server.seen.clear()
    generate = EndpointGenerator.generate

    def stumbling(self, requests):
        for count, reply in enumerate(generate(self, requests)):
            if count == 5:
                raise KeyboardInterrupt
            yield reply

    monkeypatch.setattr(EndpointGenerator, "generate", stumbling)
    with pytest.raises(KeyboardInterrupt):
        teach.make(wanted, {"./exam": exam}, tmp_path / "resumed")
    assert len((tmp_path / "resumed.part" / "replies.jsonl").read_text("utf-8").splitlines()) == 5
    assert not (tmp_path / "resumed").exists()
    server.seen.clear()
    monkeypatch.setattr(EndpointGenerator, "generate", generate)
    teach.make(wanted, {"./exam": exam}, tmp_path / "resumed")
    server.close()
    assert len(server.seen) == 16 - 5
    for part in ("data", "samples"):
        assert rows(tmp_path / "whole", part) == rows(tmp_path / "resumed", part)
    assert not (tmp_path / "resumed" / "replies.jsonl").exists()
