"""Predictions are read in three forms, and every way of giving the wrong ones is named with its place."""

import json

import pytest

from medllm.errors import DataError
from medllm.exam.predictions import read_predictions
from medllm.exam.question import index
from medllm.exam.records import write_records
from tests.exam.making import question, record

EXAM = index([question(question_id=name, text=name) for name in ("112A1", "112A2", "112B1")])


def write(folder, name, rows):
    file = folder / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def texts(system):
    return {name: prediction.text for name, prediction in system.predictions.items()}


def test_igakuqa_s_section_files_of_two_models_become_two_systems(tmp_path):
    files = [
        write(tmp_path, "112-A_gpt4.jsonl", [{"problem_id": "112A1", "prediction": "b", "explanation": "b"}]),
        write(tmp_path, "112-B_gpt4.jsonl", [{"problem_id": "112B1", "prediction": "c"}]),
        write(tmp_path, "112-A_chatgpt.jsonl", [{"problem_id": "112A1", "prediction": "a"}]),
    ]
    found = {system.model: texts(system) for system in read_predictions(files, EXAM, "igakuqa")}
    assert found == {"gpt4": {"112A1": "b", "112B1": "c"}, "chatgpt": {"112A1": "a"}}


def test_our_records_become_one_system_per_model_and_prompt(tmp_path):
    records = [
        record("112A1", benchmark="igakuqa", completion="答え:b"),
        record("112A1", benchmark="igakuqa", prompt="explain", completion="解説\n答え:b"),
        record("112A1", benchmark="igakuqa", completion="別の標本", sample=1),
        record("x", benchmark="medqa", completion="別の試験"),
    ]
    write_records(records, tmp_path / "records" / "r.parquet")
    systems = read_predictions([tmp_path], EXAM, "igakuqa")
    assert [(system.model, system.prompt, texts(system)) for system in systems] == [
        ("m", "plain", {"112A1": "答え:b"}),
        ("m", "explain", {"112A1": "解説\n答え:b"}),
    ]


def test_generated_samples_of_lm_evaluation_harness_are_read(tmp_path):
    rows = [
        {"doc_id": 0, "doc": {"problem_id": "112A2"}, "resps": [["raw"]], "filtered_resps": ["b"]},
        {"doc_id": 2, "doc": {"question": "no id here"}, "resps": [["答え: c"]]},
    ]
    (system,) = read_predictions([write(tmp_path, "samples_task.jsonl", rows)], EXAM, "igakuqa")
    assert texts(system) == {"112A2": "b", "112B1": "答え: c"}, "by the document's id, else by its place"


def test_log_likelihoods_of_lm_evaluation_harness_give_the_likeliest_choice_and_its_share(tmp_path):
    rows = [{"doc_id": 0, "doc": {}, "resps": [[["-2.0", "False"]], [["-1.0", "True"]], [["-3.0", "False"]]]}]
    (system,) = read_predictions([write(tmp_path, "s.jsonl", rows)], EXAM, "igakuqa")
    prediction = system.predictions["112A1"]
    assert prediction.text == "b"
    assert prediction.probability == pytest.approx(1 / (1 + 2.718281828**-1 + 2.718281828**-2))


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (
            [{"problem_id": "113A1", "prediction": "b"}],
            "line 1: question 113A1 is not in igakuqa, whose ids look like 112A1",
        ),
        ([{"prediction": "b"}], "line 1: has no problem_id"),
        ([{"problem_id": "", "prediction": "b"}], "line 1: has no problem_id"),
        ([{"problem_id": "112A1", "prediction": None}], "line 1: prediction is None"),
        ([{"problem_id": "112A1", "prediction": float("nan")}], "line 1: prediction is nan"),
        ([{"problem_id": "112A1", "prediction": "b"}] * 2, "line 2: question 112A1 is predicted twice for p, first at"),
        ([{"problem_id": "112A1", "answer": "b"}], "line 1: is no prediction. Known are IgakuQA's"),
        ([{"doc_id": 9, "doc": {}, "resps": [["b"]]}], "line 1: doc_id is 9, outside the exam's 3 questions"),
        ([{"doc_id": 0, "doc": {}, "resps": [[]]}], "line 1: resps is neither text nor log-likelihoods"),
        ([["b"]], "line 1: is list, not an object"),
    ],
)
def test_wrong_predictions_are_named_with_place_and_mend(tmp_path, rows, fault):
    with pytest.raises(DataError) as caught:
        read_predictions([write(tmp_path, "p.jsonl", rows)], EXAM, "igakuqa")
    assert fault in str(caught.value)


def test_two_files_that_predict_the_same_question_are_named_both(tmp_path):
    rows = [{"problem_id": "112A1", "prediction": "b"}]
    files = [write(tmp_path, name, rows) for name in ("112-A_m.jsonl", "113-A_m.jsonl")]
    with pytest.raises(DataError, match=r"113-A_m.*predicted twice for m, first at .*112-A_m"):
        read_predictions(files, EXAM, "igakuqa")


def test_files_that_are_not_there_or_of_another_exam_are_faults(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        read_predictions([tmp_path / "none.jsonl"], EXAM, "igakuqa")
    write_records([record("x", benchmark="medqa")], tmp_path / "r.parquet")
    with pytest.raises(DataError, match="no predictions for igakuqa"):
        read_predictions([tmp_path / "r.parquet"], EXAM, "igakuqa")


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "is empty"),
        (b'{"problem_id": "112A1", "prediction": "b"}\n{"problem_id": ', "line 2: broken JSON at column"),
        ('{"problem_id": "112A1", "prediction": "か"}'.encode("shift_jis"), "line 1: is not UTF-8"),
    ],
)
def test_files_that_are_empty_broken_or_in_another_encoding_name_their_line(tmp_path, raw, fault):
    (tmp_path / "p.jsonl").write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read_predictions([tmp_path / "p.jsonl"], EXAM, "igakuqa")
    assert fault in str(caught.value)
