"""Withdrawal: all that holds a row or learnt it goes, what did not stays whole, and the next corpus leaves it out."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.errors import HubError
from medllm.generation.answer_store import Answerer, AnswerKey, AnswerStore
from medllm.generation.types import Reply, Request
from medllm.localhub import Store
from medllm.localhub.store import removal
from medllm.pipeline.forget import carry_out, left_to_people, local_places, withdrawal
from medllm.pipeline.trace import text_hash, trace_of
from tests.refusals import refused

pytestmark = pytest.mark.slow
SECRET = "the patient's own words"
ROW = ("clinic/toy-corpus", "the p:1")


def table(stage, part):
    """The corpus has a row for each line of its text file, called by file and line."""
    if stage != "corpus":
        return
    rows = pq.read_table(part / "corpus" / "toy.parquet").to_pylist()
    named = [{**row, "id": text_hash(row["text"])[:16], "locator": f"{row['text'][:5]}:1"} for row in rows]
    pq.write_table(pa.Table.from_pylist(named), part / "corpus" / "toy.parquet")


@pytest.fixture
def learnt(workshop):
    """A pipeline that learnt a row, twice, and later a version that did not."""
    workshop.before_the_end = table
    text = workshop.folder / "texts" / "a.txt"
    text.write_text(SECRET, "utf-8")
    first = workshop.run("preferences.data=./world")
    second = workshop.run("preferences.data=./world", "rpo.rpo_alpha=0")
    text.write_text("harmless", "utf-8")
    clean = workshop.run("preferences.data=./world")
    return first, second, clean


def asked(workshop):
    return withdrawal(workshop.hub, *ROW, workshop.bench().work)


def test_everything_that_learnt_the_row_is_listed_and_nothing_that_did_not(workshop, learnt):
    first, second, clean = learnt
    plan = asked(workshop)
    listed = {str(one.artifact) for part in plan.repositories for one, _ in part.gone}
    assert listed == {str(one) for made in (first, second) for one in made.values()}
    assert not listed & {str(one) for one in clean.values()}
    assert [part.repo_id for part in plan.repositories][-1] == "clinic/toy-corpus"
    seen = trace_of(workshop.hub, "clinic/toy-corpus", "the p:1").as_json()["seen_by"]
    assert set(seen) == listed
    work = workshop.bench().work
    assert local_places(workshop.hub, "clinic/toy-corpus", "the p:1", work) == list(plan.folders) != []
    assert local_places(workshop.hub, "clinic/toy-corpus", "no such row", work) == []


def test_the_row_goes_for_good_and_what_stays_is_whole(workshop, learnt, tmp_path):
    clean = learnt[2]
    plan = asked(workshop)
    assert "medllm-forgotten" in "".join(carry_out(workshop.hub, plan))
    with refused("command.unknown-row", "the p:1", kind=HubError):
        asked(workshop)
    store = Store(tmp_path / "hub")
    assert removal.verify(store) == []
    store.close()
    held = [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert held == []
    assert [item.stage for item in workshop.plan("preferences.data=./world").missing] != []
    for one in clean.values():
        assert len(workshop.hub.versions(one.repo_id, one.kind)) == 1
    assert any("downloaded" in line for line in left_to_people(workshop.hub, plan))


def test_an_interrupted_withdrawal_goes_on_when_it_is_started_again(workshop, learnt):
    for _ in range(8):
        plan = asked(workshop)
        steps = carry_out(workshop.hub, plan)
        for _ in range(1 + len(plan.folders) + 1):
            next(steps, None)
        steps.close()
        try:
            asked(workshop)
        except HubError:
            break
    with refused("command.unknown-row", "the p:1", kind=HubError):
        asked(workshop)


def test_the_next_plan_gives_the_list_to_the_corpus_and_says_why(workshop, learnt):
    list(carry_out(workshop.hub, asked(workshop)))
    plan = workshop.plan("preferences.data=./world")
    assert plan.item("corpus").why == "rows were withdrawn"
    (source,) = [one for one in plan.item("corpus").inputs if one.reference == "forgotten"]
    folder = plan.pull_standing_sources("corpus")["forgotten"]
    (line,) = (folder / "forgotten.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["sha256"] == [text_hash(SECRET)] and source.commit
    assert SECRET not in line


def keep(store, model, prompt="Q?"):
    """Keep a reply of a model, and return the row of a table that names it."""
    key = AnswerKey.of(Request(key="x", text=prompt), Answerer({"engine": "local", "files": [model]}))
    store.add([(key, Reply(key="x", text="a", finish_reason="stop", prompt_tokens=1, completion_tokens=1))])
    return key, {"answer_key": str(key), "benchmark": "past", "question_id": prompt}


def test_kept_replies_of_models_that_learnt_the_row_go_and_those_of_the_base_stay(workshop, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDLLM_ANSWERS", str(tmp_path / "answers"))
    store, keys = AnswerStore.here(), {}

    def write(stage, part):
        table(stage, part)
        if stage == "evaluate":
            (part / "records").mkdir()
            for model in ("base", "cpt", "final"):
                keys[model], row = keep(store, model)
                pq.write_table(pa.Table.from_pylist([row]), part / "records" / f"{model}.parquet")

    workshop.before_the_end = write
    (workshop.folder / "texts" / "a.txt").write_text(SECRET, "utf-8")
    workshop.run("preferences.data=./world")
    plan = asked(workshop)
    listed = {path for path, _ in plan.folders if path.parent == store.folder}
    assert listed == {store.folder / f"{keys[name].model}.jsonl" for name in ("cpt", "final")}
    assert set(listed) <= {path for path, _ in local_places(workshop.hub, *ROW, workshop.bench().work)}
    list(carry_out(workshop.hub, plan))
    assert [path.name for path in store.folder.glob("*.jsonl")] == [f"{keys['base'].model}.jsonl"]


def test_kept_replies_to_a_withdrawn_question_go_and_those_to_others_stay(workshop, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDLLM_ANSWERS", str(tmp_path / "answers"))
    store, keys = AnswerStore.here(), {}

    def write(stage, part):
        if stage == "preferences":
            (part / "samples").mkdir()
            kept = [keep(store, "base", prompt) for prompt in ("Q1", "Q2")]
            keys.update({row["question_id"]: key for key, row in kept})
            path = part / "samples" / "train-00000.parquet"
            pq.write_table(pa.Table.from_pylist([row for _, row in kept]), path)

    workshop.before_the_end = write
    workshop.run("preferences.data=./world", "preferences.model=base", wanted=("preferences",))
    plan = withdrawal(workshop.hub, "clinic/toy-preferences", "Q1", workshop.bench().work)
    assert plan.replies == {keys["Q1"]} and any("1 reply to it" in line for line in plan.lines())
    assert "deleted 1 kept reply" in list(carry_out(workshop.hub, plan))
    assert set(store.find(keys.values(), {key.model: {"local"} for key in keys.values()})) == {keys["Q2"]}


def test_a_row_that_nobody_has_is_refused_with_near_names(workshop, learnt):
    with refused("command.unknown-row", "the q:1", "the p:1", kind=HubError):
        withdrawal(workshop.hub, "clinic/toy-corpus", "the q:1", workshop.bench().work)
