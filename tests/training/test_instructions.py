"""Conversations are admitted like the texts of a corpus: by date, licence, held-out exams and patients' names."""

import json
from datetime import date

import pyarrow.parquet as pq
import pytest

from medllm.recipe.settings import Sft
from medllm.training.instructions import admit_conversations
from tests import tiny
from tests.refusals import refused

CUTOFF = date(2017, 12, 31)
STATED = {"license": "cc-by-4.0", "published": "2015-04-01"}


def talk(asked: str, replied: str = "安静にして水分をとってください。", **stated) -> dict:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": replied}]
    return {"messages": messages, **stated}


def written(folder, rows, name="talks.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False, default=str) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def admitted(folder, rows, *, sources=None, stated=STATED, **changed):
    written(folder / "talks", rows)
    block = Sft(**{"data": [{"source": "./talks", **stated}], "held_out": [], "cutoff": CUTOFF, **changed})
    return admit_conversations(block, {"./talks": folder / "talks", **(sources or {})}, "sft")


def test_a_conversation_needs_a_day_before_the_cutoff_and_a_licence_of_its_own_or_its_source(tmp_path):
    rows = [
        talk("発熱があります", **STATED),
        talk("咳があります", license="cc-by-4.0"),
        talk("頭痛があります", published="2018-01-01", license="cc-by-4.0"),
        talk("腹痛があります", published="2016"),
        talk("胸痛があります", published="2017", license="unknown"),
        talk("発熱があります", **STATED),
    ]
    result = admitted(tmp_path, rows, stated={})
    assert [conversation.messages[0]["content"] for conversation in result.conversations] == ["発熱があります"]
    facts = result.facts()
    assert facts["reasons"] == {"duplicate": 1, "no_license": 2, "no_published_date": 1, "published_after_cutoff": 1}
    assert facts["conversations_read"] == 6 and facts["published"] == {"2015": 1}
    assert facts["sources"] == [{"source": "./talks", "license": "cc-by-4.0", "conversations": 1}]


def test_what_the_recipe_states_of_a_source_holds_for_rows_that_state_nothing(tmp_path):
    result = admitted(tmp_path, [talk("発熱"), talk("咳", license="cc-by-nc-4.0")], allowed_licenses=["cc-by-4.0"])
    assert result.facts()["reasons"] == {"license_not_allowed": 1}
    assert result.facts()["statements"] == [{"source": "./talks", **STATED}]


def test_a_conversation_with_a_question_of_a_held_out_exam_is_dropped_and_named(tmp_path):
    exam = tiny.make_exam(tmp_path / "exam")
    question = json.loads((exam / "exam.jsonl").read_text("utf-8").splitlines()[0])
    words = "\n".join([question["text"], *map(str, question["choices"])]) if "text" in question else str(question)
    rows = [talk(f"次の問題を解いてください。\n{words}", "a"), talk("発熱があります")]
    changed = {"held_out": ["mine"], "sources": {"mine": exam}}
    result = admitted(tmp_path, rows, **changed)
    assert result.facts()["reasons"] == {"leak": 1} and len(result.conversations) == 1
    [(draft, reason)] = result.dropped
    result.write(tmp_path / "out")
    [row] = pq.read_table(tmp_path / "out" / "dropped" / "train-00000.parquet").to_pylist()
    assert (row["reason"], row["id"], row["locator"]) == ("leak", draft.id, "talks.jsonl:1") and "mine/" in reason
    kept = pq.read_table(tmp_path / "out" / "instructions" / "train-00000.parquet")
    assert kept.num_rows == 1 and "text" not in kept.column_names
    assert admitted(tmp_path, rows, **changed, leaks_reviewed=[draft.id]).facts()["reasons"] == {}


def test_a_set_that_is_known_to_hold_the_exam_is_refused_by_name(tmp_path):
    written(tmp_path / "medrect-ja", [talk("発熱")])
    block = Sft(data=[{"source": "./medrect-ja", **STATED}], held_out=["igakuqa"], cutoff=CUTOFF)
    with refused("recipe.known-leak", "sft.data", "MedRECT-ja"):
        admit_conversations(block, {"./medrect-ja": tmp_path / "medrect-ja"}, "sft")


def test_a_conversation_that_may_name_a_patient_is_dropped_kept_or_stops_the_stage(tmp_path):
    rows = [talk("患者氏名: 山田太郎 の経過を教えてください"), talk("発熱があります")]
    assert admitted(tmp_path, rows).facts()["reasons"] == {"personal_data": 1}
    kept = admitted(tmp_path, rows, personal_data="keep")
    assert kept.facts()["personal_data"]["standing"] == 1 and len(kept.conversations) == 2
    with refused("training.personal-data", kept.personal[0]["finding"]):
        admitted(tmp_path, rows, personal_data="stop")
    assert admitted(tmp_path, rows, pii_reviewed=[kept.personal[0]["finding"]]).facts()["reasons"] == {}


def test_a_conversation_that_was_withdrawn_is_left_out_and_its_words_are_not_hashed_again(tmp_path):
    rows = [talk("発熱があります"), talk("咳があります")]
    first = admitted(tmp_path, rows)
    first.write(tmp_path / "out")
    [gone, _] = pq.read_table(tmp_path / "out" / "instructions" / "train-00000.parquet").to_pylist()
    lines = json.dumps({"sha256": [gone["sha256"]], "questions": []})
    (tmp_path / "forgotten").mkdir()
    (tmp_path / "forgotten" / "forgotten.jsonl").write_text(lines + "\n", "utf-8")
    later = admitted(tmp_path, rows, sources={"forgotten": tmp_path / "forgotten"})
    assert later.facts()["reasons"] == {"forgotten": 1}
    later.write(tmp_path / "later")
    [row] = pq.read_table(tmp_path / "later" / "dropped" / "train-00000.parquet").to_pylist()
    assert row["sha256"] is None and row["id"] == gone["id"]


def test_past_exam_items_become_conversations_in_both_prompts(tmp_path):
    exam = tiny.make_exam(tmp_path / "past")
    data = [{"source": "./past", "exam": "own", "license": "cc-by-4.0", "exam_date": "2015-02-07"}]
    block = Sft(data=data, held_out=[], cutoff=CUTOFF)
    result = admit_conversations(block, {"./past": exam}, "sft")
    roles = {tuple(message["role"] for message in conversation.messages) for conversation in result.conversations}
    assert roles and all(role[-2:] == ("user", "assistant") for role in roles)
    assert {document.kind for document in result.documents} == {"exam"}


@pytest.mark.parametrize(
    ("rows", "stated", "code"),
    [([talk("発熱")], {}, "training.nothing-admitted"), ([], STATED, "training.nothing-admitted")],
)
def test_a_source_of_which_nothing_may_be_learnt_is_refused_with_the_counts(tmp_path, rows, stated, code):
    with refused(code, "sft"):
        admitted(tmp_path, rows, stated=stated)


def test_files_that_training_does_not_read_and_folders_without_rows_are_refused(tmp_path):
    written(tmp_path / "talks", [talk("発熱")], "talks.csv")
    block = Sft(data=[{"source": "./talks", **STATED}], held_out=[], cutoff=CUTOFF)
    with refused("training.unread-format", "talks.csv"):
        admit_conversations(block, {"./talks": tmp_path / "talks"}, "sft")
    (tmp_path / "talks" / "talks.csv").unlink()
    with refused("training.no-table", "./talks"):
        admit_conversations(block, {"./talks": tmp_path / "talks"}, "sft")
    with refused("recipe.no-cutoff", "sft.cutoff"):
        admit_conversations(block.model_copy(update={"cutoff": None}), {}, "sft")
