"""Predictions are read row by row, and every way of giving the wrong ones is named with its place."""

import json

import pytest

from medllm.errors import DataError
from medllm.exam.predictions import read_predictions
from medllm.exam.question import index
from medllm.exam.record import write_records
from tests.exam.making import question, record
from tests.refusals import refused

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
    exam = index([question(question_id="112A1", choices=("胃", "肝臓", "腎臓"))])
    (system,) = read_predictions([write(tmp_path, "s.jsonl", rows)], exam, "igakuqa")
    prediction = system.predictions["112A1"]
    assert prediction.text == "b"
    assert prediction.probability == pytest.approx(1 / (1 + 2.718281828**-1 + 2.718281828**-2))


@pytest.mark.parametrize(
    ("rows", "code", "values"),
    [
        ([{"problem_id": "113A1", "prediction": "b"}], "exam.unknown-question", ("113A1", "igakuqa", "112A1")),
        ([{"prediction": "b"}], "exam.no-question-named", ("problem_id",)),
        ([{"problem_id": "", "prediction": "b"}], "exam.no-question-named", ("problem_id",)),
        ([{"problem_id": "112A1", "prediction": None}], "exam.not-text", ("prediction is None.",)),
        ([{"problem_id": "112A1", "prediction": float("nan")}], "exam.not-text", ("prediction is nan.",)),
        ([{"problem_id": "112A1", "letter": "b"}], "exam.not-a-prediction", ("problem_id, letter", "--columns")),
        ([{"doc_id": 9, "doc": {}, "resps": [["b"]]}], "exam.unknown-question", ("doc_id is 9", "3 questions")),
        ([{"doc_id": 0, "doc": {}, "resps": [[]]}], "exam.no-log-likelihoods", ("resps",)),
        ([["b"]], "exam.not-an-object", ("list",)),
    ],
)
def test_a_wrong_prediction_is_named_with_its_line(tmp_path, rows, code, values):
    with refused(code, "p.jsonl line 1:", *values, kind=DataError):
        read_predictions([write(tmp_path, "p.jsonl", rows)], EXAM, "igakuqa")


def test_a_question_that_one_file_predicts_twice_is_named_with_both_lines(tmp_path):
    rows = [{"problem_id": "112A1", "prediction": "b"}] * 2
    with refused("exam.predicted-twice", "p.jsonl line 2:", "112A1", " p,", "p.jsonl line 1"):
        read_predictions([write(tmp_path, "p.jsonl", rows)], EXAM, "igakuqa")


def sample(doc_id=0, **given):
    return {"doc_id": doc_id, "doc": {"problem_id": "112A1"}} | given


def chances(*values):
    return [[str(value), "False"] for value in values]


def test_the_rows_of_several_filters_are_one_reply_read_from_its_raw_text(tmp_path):
    rows = [
        sample(filter=name, resps=[["解説。\n答え: b"]], filtered_resps=[answer])
        for name, answer in (("strict", "[invalid]"), ("flexible", "c"))
    ]
    (system,) = read_predictions([write(tmp_path, "s.jsonl", rows)], EXAM, "igakuqa")
    assert texts(system) == {"112A1": "解説。\n答え: b"}
    with refused("exam.predicted-twice", "line 3:", "112A1"):
        read_predictions([write(tmp_path, "s.jsonl", [*rows, rows[0]])], EXAM, "igakuqa")


def test_the_filters_of_one_measured_question_are_one_reply_too(tmp_path):
    rows = [sample(filter=name, resps=[], filtered_resps=chances(-3, -1, -4, -5, -6)) for name in ("none", "norm")]
    (system,) = read_predictions([write(tmp_path, "s.jsonl", rows)], EXAM, "igakuqa")
    assert texts(system) == {"112A1": "b"}


def test_filters_that_disagree_without_a_raw_reply_are_a_fault_that_names_both(tmp_path):
    rows = [
        sample(filter=name, resps=[], filtered_resps=[answer]) for name, answer in (("strict", "b"), ("loose", "c"))
    ]
    with refused("exam.predicted-twice", "line 2:", "strict or loose"):
        read_predictions([write(tmp_path, "s.jsonl", rows)], EXAM, "igakuqa")


@pytest.mark.parametrize(
    "resps",
    [
        {"resps": [["b", "c", "c"]], "filtered_resps": ["b"]},
        {"resps": [["b", "c", "c"]], "filter": "none", "filtered_resps": [["b", "c", "c"]]},
        {"filtered_resps": [["b", "c"]]},
        {"resps": None, "filtered_resps": ["b"]},
    ],
)
def test_the_first_of_several_repeats_counts(tmp_path, resps):
    (system,) = read_predictions([write(tmp_path, "s.jsonl", [sample(**resps)])], EXAM, "igakuqa")
    assert texts(system) == {"112A1": "b"}


@pytest.mark.parametrize(
    ("resps", "code", "value"),
    [
        (chances("nan", -1, -4, -5, -6), "exam.infinite-log-likelihood", "log-likelihood 1 is nan"),
        (chances(-1, -1, -4, float("nan"), -6), "exam.infinite-log-likelihood", "log-likelihood 4 is nan"),
        (chances(-1, "inf", -4, -5, -6), "exam.infinite-log-likelihood", "log-likelihood 2 is inf"),
        (chances(-1, -2, "-inf", -5, -6), "exam.infinite-log-likelihood", "log-likelihood 3 is -inf"),
        (chances(*[-3] * 9, -1), "exam.wrong-number-of-log-likelihoods", "10 log-likelihoods"),
        (chances(-1, -2, -3, -4), "exam.wrong-number-of-log-likelihoods", "4 log-likelihoods"),
        (chances(-1), "exam.wrong-number-of-log-likelihoods", "question 112A1 has 5 choices"),
        ([], "exam.no-log-likelihoods", "resps"),
        (None, "exam.no-log-likelihoods", "resps"),
        (3, "exam.no-log-likelihoods", "resps"),
        ([None], "exam.no-log-likelihoods", "resps"),
        ([[None]], "exam.no-log-likelihoods", "resps"),
        ([[True]] * 5, "exam.no-log-likelihoods", "resps"),
        ([["b"], ["c"]], "exam.no-log-likelihoods", "resps"),
    ],
)
def test_a_reply_that_names_no_choice_is_refused_by_its_line(tmp_path, resps, code, value):
    for row in (sample(filtered_resps=resps, resps=[]), sample(filter="none", filtered_resps=resps, resps=[])):
        with refused(code, "s.jsonl line 1:", value, kind=DataError):
            read_predictions([write(tmp_path, "s.jsonl", [row])], EXAM, "igakuqa")


def test_likelihoods_for_a_question_whose_answer_is_a_number_are_refused(tmp_path):
    exam = index([question("2.5", question_id="112A1", choices=())])
    with refused("exam.log-likelihoods-without-choices", "line 1:", "112A1"):
        read_predictions([write(tmp_path, "s.jsonl", [sample(resps=[chances(-1)[:1]])])], exam, "igakuqa")


@pytest.mark.parametrize("row", [{"doc_id": True, "doc": {}}, {"doc": {}}, {"doc": {"id": None}}, {"doc_id": "0"}])
def test_a_sample_that_does_not_say_its_question_is_refused_by_its_line(tmp_path, row):
    with refused("exam.unknown-question", "line 1:", f"doc_id is {row.get('doc_id')!r}"):
        read_predictions([write(tmp_path, "s.jsonl", [row | {"resps": [["b"]]}])], EXAM, "igakuqa")


def test_two_files_that_predict_the_same_question_are_named_both(tmp_path):
    rows = [{"problem_id": "112A1", "prediction": "b"}]
    files = [write(tmp_path, name, rows) for name in ("112-A_m.jsonl", "113-A_m.jsonl")]
    with refused("exam.predicted-twice", "113-A_m", " m,", "112-A_m"):
        read_predictions(files, EXAM, "igakuqa")


def test_files_that_are_not_there_or_of_another_exam_are_faults(tmp_path):
    with refused("exam.no-such-file", "none.jsonl"):
        read_predictions([tmp_path / "none.jsonl"], EXAM, "igakuqa")
    write_records([record("x", benchmark="medqa")], tmp_path / "r.parquet")
    with refused("exam.no-predictions", "r.parquet", "igakuqa", "medqa"):
        read_predictions([tmp_path / "r.parquet"], EXAM, "igakuqa")


@pytest.mark.parametrize(
    ("raw", "code", "place"),
    [
        (b"", "exam.empty-file", "p.jsonl:"),
        (b'{"problem_id": "112A1", "prediction": "b"}\n{"problem_id": ', "exam.broken-json", "p.jsonl line 2:"),
        ('{"problem_id": "112A1", "prediction": "か"}'.encode("shift_jis"), "exam.not-utf-8", "p.jsonl line 1:"),
    ],
)
def test_files_that_are_empty_broken_or_in_another_encoding_name_their_line(tmp_path, raw, code, place):
    (tmp_path / "p.jsonl").write_bytes(raw)
    with refused(code, place, kind=DataError):
        read_predictions([tmp_path / "p.jsonl"], EXAM, "igakuqa")
