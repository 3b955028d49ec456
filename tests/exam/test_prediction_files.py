"""Results files of every tool are recognised by their content; real ones give their publishers' numbers."""

import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import Workbook

from medllm.exam.benchmarks import load
from medllm.exam.predictions import Source, parse_source, read_predictions
from medllm.exam.question import index
from medllm.exam.record import read_records, write_records
from medllm.exam.scoring import graded_records
from tests.exam.making import question
from tests.refusals import refused

EXAM = index([question(question_id=name, text=name, benchmark="exam") for name in ("112A1", "112A2", "112B1")])


def found(*files, **given):
    systems = read_predictions(files, EXAM, "exam", **given)
    return {
        (one.model, one.prompt): {name: prediction.text for name, prediction in one.predictions.items()}
        for one in systems
    }


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# -- real files ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_results_of_jmle2026_bench_have_the_marks_of_their_publisher(shared_data):
    exam = load("jmle2026", shared_data / "jmle2026")
    differ = []
    for file in sorted((shared_data / "jmle2026" / "model_outputs").glob("*.json")):
        published = json.loads(file.read_text("utf-8"))
        (system,) = read_predictions([file], index(exam), "jmle2026")
        assert system.model == published["metadata"]["display_name"]
        marks = {row["question_id"]: row["correct"] for row in published["results"]}
        records = graded_records(exam, [system], rules="normalised")
        differ += [(system.model, one.question_id) for one in records if one.correct != marks[one.question_id]]
    assert differ == [("Qwen3.5-35B-A3B (no-think)", "120A-74")], "0.4 is 0.40 as a number, not as a text"


@pytest.mark.parametrize(("file", "right"), [("119B_qwen2_5-72b", 42), ("119B_pfn-medllm-qwen-72b", 32)])
def test_answers_of_igakuqa119_are_compared_with_its_own_key(shared_data, file, right):
    folder = shared_data / "igakuqa119"
    exam = load("igakuqa119", folder)
    (system,) = read_predictions([folder / f"{file}.json"], index(exam), "igakuqa119")
    assert "72" in system.model
    assert len(system.predictions) == 50
    assert sum(one.correct for one in graded_records(exam, [system], rules="normalised")) == right


# -- formats of tools ----------------------------------------------------------------------------------------------


def harness_row(number, reply, name, letters):
    doc = {"problem_id": list(EXAM)[number]}
    return {"doc_id": number, "doc": doc, "resps": [[reply, "c"]], "filtered_resps": [letters], "filter": name}


def test_an_output_folder_of_lm_evaluation_harness_is_read_whole_with_the_models_of_its_folders(tmp_path):
    stamp = "2026-11-28T21-00-00.123456"
    for folder, reply in (("org__one", "答え: b"), ("two", "答え: a")):
        rows = [harness_row(n, reply, name, letters) for n in range(3) for name, letters in (("s", "x"), ("f", "c"))]
        write(tmp_path / "out" / folder / f"samples_igakuqa_{stamp}.jsonl", *rows)
        (tmp_path / "out" / folder / f"results_igakuqa_{stamp}.json").write_text("{}")
    raw = found(tmp_path / "out")
    assert {name: set(texts.values()) for name, texts in raw.items()} == {
        ("org/one", None): {"答え: b"}, ("two", None): {"答え: a"},
    }  # fmt: skip
    filtered = found(tmp_path / "out", filter="f")
    assert {letter for texts in filtered.values() for letter in texts.values()} == {"c"}
    with refused("exam.unknown-filter", "--filter none", "f, s"):
        found(tmp_path / "out", filter="none")


def test_a_samples_file_takes_the_model_that_the_results_of_the_same_run_name(tmp_path):
    stamp = "2026-11-28T21-00-00.123456"
    file = write(tmp_path / "m" / f"samples_task_{stamp}.jsonl", harness_row(0, "b", "none", "b"))
    (tmp_path / "m" / f"results_{stamp}.json").write_text(json.dumps({"model_name": "org/model-7b"}))
    assert list(found(file)) == [("org/model-7b", None)]


@pytest.mark.parametrize("mark", ["", "__"])
def test_details_of_lighteval_are_read_as_text_or_log_likelihoods(tmp_path, mark):
    rows = [
        {"doc": {"id": "0", "query": "?"}, "model_response": {"text": ["答え: b"], "logprobs": []}},
        {"doc": {"id": "2", "query": "?"}, "model_response": {"text": [], "logprobs": [-3.0, -1.0, -4.0, -5.0, -6.0]}},
    ]
    file = tmp_path / "details" / "org" / "m" / "2026-11-28T21-00-00.1" / "details_task|0_2026-11-28T21-00-00.1.parquet"
    file.parent.mkdir(parents=True)
    marked = [{f"{mark}{name}{mark}": value for name, value in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(marked), file)
    assert found(tmp_path) == {("org/m", None): {"112A1": "答え: b", "112B1": "b"}}


def test_a_reply_of_lighteval_with_all_its_tokens_was_cut_off_and_an_empty_one_is_a_reply(tmp_path):
    def row(name, text, tokens):
        doc = {"id": "0", "specific": {"problem_id": name}, "generation_size": 3}
        response = {"text": [text], "output_tokens": [tokens], "text_post_processed": None, "logprobs": []}
        return {"doc": doc, "metric": {"exact_match": 0.0}, "model_response": response}

    rows = [row("112A1", "答え: b", [1, 2]), row("112A2", "答え", [1, 2, 3]), row("112B1", "", [])]
    folder = tmp_path / "details" / "m" / "2026-11-30T16-38-43.811813"
    folder.mkdir(parents=True)
    for task in ("igakuqa:plain|0", "igakuqa:explain|3"):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"details_{task}_{folder.name}.parquet")
    plain, explained = sorted(read_predictions([tmp_path], EXAM, "igakuqa"), key=lambda system: str(system.prompt))[
        ::-1
    ]
    assert (plain.prompt, explained.prompt, plain.model) == ("plain", "explain", "m")
    read = {name: (prediction.text, prediction.finish_reason) for name, prediction in plain.predictions.items()}
    assert read == {"112A1": ("答え: b", None), "112A2": ("答え", "length"), "112B1": ("", None)}


def inspect_sample(name, epoch, reply):
    message = {
        "role": "assistant",
        "content": [{"type": "reasoning", "reasoning": "…"}, {"type": "text", "text": reply}],
    }
    return {"id": name, "epoch": epoch, "output": {"model": "x", "choices": [{"message": message}]}}


@pytest.mark.parametrize("ending", ["eval", "json"])
def test_logs_of_inspect_are_read_from_the_zip_and_from_json(tmp_path, ending):
    samples = [
        inspect_sample("112A1", 1, "ANSWER: B"),
        inspect_sample("112A1", 2, "ANSWER: C"),
        inspect_sample(2, 1, "a"),
    ]
    log = {"version": 2, "eval": {"model": "openai/gpt-4o"}}
    file = tmp_path / f"2026-11-28T21-00-00_task_abc.{ending}"
    if ending == "json":
        file.write_text(json.dumps(log | {"samples": samples}, indent=1), encoding="utf-8")
    else:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.json", json.dumps(log))
            for sample in samples:
                archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
    assert found(file) == {("openai/gpt-4o", None): {"112A1": "ANSWER: B", "112A2": "a"}}


def test_batch_outputs_of_openai_and_anthropic_are_read_and_a_failed_request_is_an_empty_reply(tmp_path):
    def chat(name, content, ended="stop"):
        body = {"model": "gpt-4o", "choices": [{"message": {"content": content}, "finish_reason": ended}]}
        return {"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}

    failed = {"custom_id": "112B1", "response": {"status_code": 500, "body": {"error": {}, "model": "gpt-4o"}}}
    file = write(tmp_path / "batch_1_output.jsonl", chat("112A1", "答え: b"), chat("112A2", "長い", "length"), failed)
    assert found(file) == {("gpt-4o", None): {"112A1": "答え: b", "112A2": "長い", "112B1": ""}}
    outputs = [{"type": "reasoning"}, {"type": "message", "content": [{"type": "output_text", "text": "c"}]}]
    responses = {"custom_id": "112A1", "response": {"body": {"model": "gpt-5", "output": outputs}}}
    message = {"model": "claude", "content": [{"type": "text", "text": "d"}], "stop_reason": "end_turn"}
    claude = {"custom_id": "112A1", "result": {"type": "succeeded", "message": message}}
    assert found(write(tmp_path / "two.jsonl", responses, claude)) == {
        ("gpt-5", None): {"112A1": "c"}, ("claude", None): {"112A1": "d"},
    }  # fmt: skip


def test_a_reply_that_vllm_ended_in_a_loop_is_no_whole_reply(tmp_path):
    def row(name, ended):
        choice = {"message": {"content": "答え: b"}, "finish_reason": ended}
        return {"custom_id": name, "response": {"body": {"model": "m", "choices": [choice]}}}

    ends = {"112A1": "repetition", "112A2": "length", "112B1": "stop"}
    batch = write(tmp_path / "batch.jsonl", *(row(*end) for end in ends.items()))
    table = tmp_path / "own.csv"
    table.write_text("question_id,reply,finish_reason\n" + "".join(f"{name},b,{end}\n" for name, end in ends.items()))
    for file in (batch, table):
        (system,) = read_predictions([file], EXAM, "exam")
        reasons = [system.predictions[name].finish_reason for name in ends]
        assert reasons == ["repetition", "length", None]


def test_requests_of_a_batch_that_failed_belong_to_the_model_of_their_file_and_a_retry_counts(tmp_path):
    def line(name, response, error=None):
        return {"id": "batch_req_1", "custom_id": name, "response": response, "error": error}

    body = {"model": "gpt-4o", "choices": [{"message": {"content": "答え: b"}, "finish_reason": "stop"}]}
    bad = {"status_code": 400, "request_id": "r", "body": {"error": {"message": "bad", "code": None}}}
    expired = {"code": "batch_expired", "message": "This request could not be executed before the window expired."}
    rows = [
        line("112B1", None, expired),
        line("112A1", {"status_code": 200, "body": body}),
        line("112A2", bad),
        line("112A1", bad),
    ]
    file = write(tmp_path / "batch_1_output.jsonl", *rows)
    assert found(file) == {("gpt-4o", None): {"112A1": "答え: b", "112A2": "", "112B1": ""}}
    other = {"status_code": 200, "body": {**body, "model": "gpt-5"}}
    two = write(tmp_path / "two.jsonl", rows[1], line("112A1", other), line("112B1", None, expired))
    assert found(two)["two", None] == {"112B1": ""}, "whose request failed is not known"
    with refused("exam.no-question-named", "line 1"):
        found(write(tmp_path / "nameless.jsonl", line(None, {"status_code": 200, "body": body})))


# -- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ('question_id,answer\n112A1,b\n112A2,"a,c"\n', "utf-8"),
        ("問題番号;回答\n112A1;b\n112A2;a,c\n", "cp932"),
        ("ID\tModel Answer\tgold\n112A1\tb\te\n112A2\ta,c\te\n", "utf-8-sig"),
        ('id,question,prediction\n112a-1,"甲、乙, 丙, 丁",b\n112A2,"x, y","a,c"\n', "utf-16"),
    ],
)
def test_delimited_text_is_read_with_any_delimiter_encoding_and_usual_heading(tmp_path, text, encoding):
    file = tmp_path / "model.csv"
    file.write_text(text, encoding=encoding)
    assert found(file) == {("model", None): {"112A1": "b", "112A2": "a,c"}}


def test_a_workbook_is_read_from_its_first_sheet(tmp_path):
    book = Workbook()
    for row in ((), ("番号", "モデルの回答"), ("112A1", "b"), ("112A2", 1)):
        book.active.append(row)
    book.save(tmp_path / "model.xlsx")
    assert found(tmp_path / "model.xlsx") == {("model", None): {"112A1": "b", "112A2": "1"}}


@pytest.mark.parametrize(
    "document",
    [
        {"112A1": "b", "112A2": ["a", "c"]},
        {"model": "m", "predictions": [{"id": "112A1", "response": "b"}, {"id": "112A2", "response": "a,c"}]},
        [{"qid": "112A1", "generated_text": "b"}, {"qid": "112A2", "pred": ["a", "c"]}],
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_json_documents_of_the_usual_shapes_are_read(tmp_path, document, indent):
    (tmp_path / "m.json").write_text(json.dumps(document, indent=indent))
    assert found(tmp_path / "m.json") == {("m", None): {"112A1": "b", "112A2": "a,c"}}


def test_files_of_several_formats_are_read_in_one_call(tmp_path):
    lines = write(tmp_path / "one.jsonl", {"id": "112A1", "output": "b"})
    (tmp_path / "two.csv").write_text("id,answer\n112A1,c\n")
    assert found(lines, tmp_path / "two.csv") == {("one", None): {"112A1": "b"}, ("two", None): {"112A1": "c"}}


# -- names ---------------------------------------------------------------------------------------------------------


def test_prompts_come_from_a_column_the_file_s_name_or_the_command(tmp_path):
    by_column = write(
        tmp_path / "a.jsonl",
        {"id": "112A1", "output": "b", "prompt": "plain", "model": "m"},
        {"id": "112A1", "output": "c", "prompt": "explain", "model": "m"},
    )
    assert list(found(by_column)) == [("m", "plain"), ("m", "explain")]
    files = [write(tmp_path / f"gpt4_{word}.jsonl", {"id": "112A1", "output": "b"}) for word in ("plain", "explained")]
    assert list(found(*files)) == [("gpt4", "plain"), ("gpt4", "explain")]
    assert parse_source("m:explain=x.csv") == Source(parse_source("x.csv").path, "m", "explain")
    assert list(found(Source(files[0], "other", "explain"))) == [("other", "explain")]


def test_files_of_one_name_in_two_folders_are_two_models(tmp_path):
    files = [write(tmp_path / name / "preds.jsonl", {"id": "112A1", "output": "b"}) for name in ("one", "two")]
    assert list(found(*files)) == [("one", None), ("two", None)]


def test_records_keep_how_a_record_was_asked(tmp_path):
    file = write(tmp_path / "m.jsonl", {"id": "112A1", "output": "解説。答え: b"})
    write_records(graded_records(list(EXAM.values()), read_predictions([file], EXAM, "exam"), rules="normalised"),
                  tmp_path / "r.parquet")  # fmt: skip
    (record,) = read_records(tmp_path / "r.parquet")
    assert (record.model, record.prompt, record.answer, record.correct, record.benchmark) == (
        "m",
        "plain",
        "b",
        True,
        "exam",
    )


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "code", "values"),
    [
        (
            "m.csv",
            b"id,stem,answer\n112A1,a, b and c,b\n",
            "exam.wrong-number-of-columns",
            ("line 2", "id, stem, answer"),
        ),
        ("m.csv", b"112A1,b\n112A2,c\n", "exam.not-a-prediction", ("112A1, b", "--columns")),
        ("m.csv", b"id,choices,answer\n112A1,x,b\n", "exam.exam-as-predictions", ("choices",)),
        ("m.csv", b"id,answer\n113A1,b\n", "exam.unknown-question", ("113A1", "exam", "112A1")),
        ("m.csv", b"id,answer\n112A1,b\n112A1,c\n", "exam.predicted-twice", ("line 3", "line 2")),
        ("m.json", b'{"a": {"b": 1}}', "exam.unknown-document", ("keys a",)),
        ("m.json", b'{"a": [', "exam.broken-json", ("line 1",)),
        ("m.json", b'{"results": [{"id": "1", "answer": "a", "answer": "b"}]}', "exam.duplicate-column", ("answer",)),
        ("m.eval", b"PK\x03\x04 broken", "exam.broken-archive", ("m.eval",)),
        ("m.xls", b"\xd0\xcf\x11\xe0\0\0", "exam.unknown-file", (".xlsx",)),
        ("m.csv", b"", "exam.empty-file", ("m.csv",)),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_place_and_columns(tmp_path, name, content, code, values):
    (tmp_path / name).write_bytes(content)
    with refused(code, name, *values):
        found(tmp_path / name)


def test_unusual_columns_are_named_by_the_user(tmp_path):
    (tmp_path / "m.csv").write_text("nr,choices,letter\n112A1,x,b\n")
    assert found(tmp_path / "m.csv", columns={"id": "nr", "answer": "letter"}) == {("m", None): {"112A1": "b"}}


def test_one_name_cannot_be_given_to_a_file_of_two_models(tmp_path):
    rows = [{"id": "112A1", "output": "b", "model": model} for model in ("one", "two")]
    with refused("exam.one-name-for-several", "x=", "one, two"):
        found(Source(write(tmp_path / "m.jsonl", *rows), "x"))


@pytest.mark.parametrize(
    ("name", "model", "prompt"),
    [
        ("m.plain.csv", "m", "plain"),
        ("m_explained.csv", "m", "explain"),
        ("m-think.csv", "m", "think"),
        ("m_nothink.csv", "m_nothink", None),
        ("m-Thinking-2507.csv", "m-Thinking-2507", None),
    ],
)
def test_a_word_of_a_files_name_is_its_prompt_where_it_is_one(tmp_path, name, model, prompt):
    exam = [question("b", question_id="1")]
    (tmp_path / name).write_text("id,reply\n1,b\n", "utf-8")
    (system,) = read_predictions([tmp_path / name], index(exam), "invented")
    assert (system.model, system.prompt) == (model, prompt)
