"""The preferences stage from folders to folder: asked by the cutoff, interrupted, and run again on the RPO model."""

import json
from datetime import date

import pyarrow.parquet as pq
import pytest

from medllm.generation.engine.local import LocalGenerator
from medllm.recipe.settings import Preferences
from medllm.stages import preferences
from tests import tiny
from tests.refusals import refused

COLUMNS = {"prompt", "chosen", "rejected", "pair", "origin", "question_id", "model", "prompt_hash", "chosen_seed"}


def settings(**changed):
    common = {
        "model": "cpt",
        "data": [{"source": "./exam", "exam": "own"}],
        "cutoff": date(2017, 12, 31),
        "shots": 2,
        "samples": 4,
        "max_new_tokens": 30,
        "dtype": "float32",
    }
    return Preferences(**{**common, **changed})


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences")
    base = tiny.make_base(folder / "base")
    return {
        "base": base,
        "cpt": tiny.make_adapter(folder / "cpt", base),
        "./exam": tiny.make_exam(folder / "exam", 20),
        "./young": tiny.make_exam(folder / "young", 5, first="2018-02-10", seed=5),
    }


def rows(folder, part):
    return pq.read_table(folder / part).to_pylist()


def test_an_interrupted_sampling_goes_on_without_asking_twice_and_ends_the_same(sources, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDLLM_ANSWERS", "none")
    preferences.make(settings(), sources, tmp_path / "whole")
    asked = []
    generate = LocalGenerator.generate

    def stumbling(self, requests):
        for count, reply in enumerate(generate(self, requests)):
            if not asked and count == 30:
                raise KeyboardInterrupt
            yield reply

    monkeypatch.setattr(LocalGenerator, "generate", stumbling)
    with pytest.raises(KeyboardInterrupt):
        preferences.make(settings(), sources, tmp_path / "resumed")
    journal = tmp_path / "resumed.part" / "replies.jsonl"
    assert len(journal.read_text("utf-8").splitlines()) == 30
    with journal.open("ab") as file:
        file.write(b'{"key": "torn')

    def counting(self, requests):
        asked.extend(requests)
        return generate(self, requests)

    monkeypatch.setattr(LocalGenerator, "generate", counting)
    preferences.make(settings(), sources, tmp_path / "resumed")
    assert len(asked) == 18 * 4 - 30
    for part in ("data", "samples"):
        assert rows(tmp_path / "whole", part) == rows(tmp_path / "resumed", part)
    assert not (tmp_path / "resumed" / "replies.jsonl").exists()
    facts = json.loads((tmp_path / "whole" / "facts.json").read_text("utf-8"))
    assert facts["questions"] == 18 and facts["samples"] == 72, "two of the twenty are worked examples"
    assert facts["round"] == 1 and facts["pairs"] == len(rows(tmp_path / "whole", "data"))
    assert set(rows(tmp_path / "whole", "data")[0]) >= COLUMNS


def test_no_question_after_the_cutoff_is_asked(sources, tmp_path):
    both = [{"source": "./exam", "exam": "own"}, {"source": "./young", "exam": "own"}]
    preferences.make(settings(data=both, samples=8), sources, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert facts["left_out"] == {"kept": 20, "after the cutoff": 5}
    with refused("preferences.no-question-left", "preferences.data:", "after the cutoff"):
        preferences.make(settings(data=both[1:], shots=0), sources, tmp_path / "none")


def test_a_prompt_that_does_not_fit_the_model_is_counted_and_never_cut(sources, tmp_path, capsys):
    exam = tiny.make_exam(tmp_path / "long", 1)
    line = json.loads((exam / "exam.jsonl").read_text("utf-8"))
    line |= {"question_id": "LONG", "text": "".join(tiny.sentences(150, seed=30))}
    (exam / "exam.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    given = {**sources, "./long": exam}
    both = [{"source": "./exam", "exam": "own"}, {"source": "./long", "exam": "own"}]
    preferences.make(settings(data=both), given, tmp_path / "out")
    assert "4 of 76 prompts do not fit the model: not asked" in capsys.readouterr().err
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert facts["too_long"] == 4 and facts["samples"] == 76
    unfit = [row for row in rows(tmp_path / "out", "samples") if row["finish_reason"] == "too_long"]
    assert [(row["question_id"], row["label"], row["completion"]) for row in unfit] == [("LONG", "unparsed", "")] * 4
    assert "LONG" not in {row["question_id"] for row in rows(tmp_path / "out", "data")}
    with refused("preferences.no-pair", "4 prompts", "`shots`", "`max_new_tokens`"):
        preferences.make(settings(data=both[1:], shots=0), given, tmp_path / "none")


def test_a_held_out_question_is_not_asked_under_another_name(sources, tmp_path):
    held = {**sources, "secret": sources["./exam"]}
    with refused("preferences.no-question-left", "preferences.data:", "held out"):
        preferences.make(settings(held_out=("secret",), shots=0), held, tmp_path / "out")


def test_test_only_exams_are_refused_as_a_source_of_pairs(sources, tmp_path):
    igakuqa = [{"source": "./exam", "exam": "igakuqa"}]
    with refused("preferences.test-only-exam", "preferences.data:", "igakuqa"):
        preferences.make(settings(data=igakuqa), sources, tmp_path / "out")


def test_the_stage_runs_again_on_the_rpo_model_and_counts_its_rounds(sources, tmp_path):
    from medllm.recipe.settings import Rpo
    from medllm.stages import rpo

    preferences.make(settings(samples=8), sources, tmp_path / "first")
    trained = Rpo(
        model="cpt", rpo_alpha=10, max_steps=1, total_batch_size=2, dtype="float32", max_length=512, report_to=()
    )
    rpo.make(trained, {**sources, "preferences": tmp_path / "first"}, tmp_path / "rpo")
    preferences.make(settings(model="rpo", samples=8), {**sources, "rpo": tmp_path / "rpo"}, tmp_path / "second")
    facts = json.loads((tmp_path / "second" / "facts.json").read_text("utf-8"))
    assert facts["round"] == 2
    assert {row["round"] for row in rows(tmp_path / "second", "data")} == {2}
    assert {row["model"] for row in rows(tmp_path / "second", "data")} == {"rpo"}
