"""From a model back to its texts, and from one text forward to every dataset and model that learnt it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.errors import HubError
from medllm.pipeline.trace import trace_of
from tests.refusals import refused

ROWS = {
    "corpus": {
        "corpus/train.parquet": [
            {"id": "doc-1", "text": "one", "source": "clinic/texts@v1", "locator": "a.jsonl:1", "license": "cc-by-4.0"}
        ],
        "dropped/train.parquet": [
            {"id": "doc-2", "text": "two", "source": "clinic/texts@v1", "locator": "a.jsonl:2", "reason": "leak"}
        ],
    },
    "preferences": {
        "data/train.parquet": [
            {"question_id": "q-1", "pair": "gt>rejected", "prompt": "p", "chosen": "c", "rejected": "r"}
        ],
        "samples/train.parquet": [{"question_id": "q-1"}, {"question_id": "q-2"}],
    },
}


@pytest.fixture
def traced(workshop):
    """The toy pipeline over texts that lie on the Hub, whose corpus has one row kept and one dropped."""
    hub = workshop.hub
    hub.api.create_repo("clinic/texts", repo_type="dataset")
    hub.api.upload_file(path_or_fileobj=b"{}", path_in_repo="a.jsonl", repo_id="clinic/texts", repo_type="dataset")
    hub.api.create_tag("clinic/texts", tag="v1", repo_type="dataset")

    def tables(stage, part):
        for name, rows in ROWS.get(stage, {}).items():
            (part / name).parent.mkdir(exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), part / name)

    workshop.before_the_end = tables
    text = (workshop.folder / "toy.yaml").read_text().replace("data: ./texts, held", "data: clinic/texts@v1, held")
    (workshop.folder / "toy.yaml").write_text(text)
    return workshop.run()


def test_a_model_leads_back_to_every_source_at_its_commit(workshop, traced):
    lines = list(trace_of(workshop.hub, "clinic/toy", None).lines())
    commit = workshop.hub.resolve("clinic/texts", "dataset", "v1").revision
    assert any(line.strip() == f"clinic/texts@v1 = clinic/texts@{commit}" for line in lines)
    assert any(line.strip().startswith(f"cpt = {traced['cpt']}") for line in lines)


def test_a_row_of_a_source_leads_to_all_that_learnt_it(workshop, traced):
    answer = trace_of(workshop.hub, "clinic/texts", "a.jsonl:1").as_json()
    (row,) = answer["rows"]
    assert (row["id"], row["kept"], row["license"]) == ("doc-1", True, "cc-by-4.0")
    learnt = {traced[stage] for stage in ("corpus", "cpt", "preferences", "rpo", "merge", "evaluate")}
    assert set(answer["seen_by"]) == {str(artifact) for artifact in learnt}


def test_a_row_that_was_dropped_was_learnt_by_nobody(workshop, traced):
    answer = trace_of(workshop.hub, "clinic/toy-corpus", "doc-2").as_json()
    (row,) = answer["rows"]
    assert (row["reason"], row["kept"]) == ("leak", False)
    assert answer["seen_by"] == []


def test_an_answer_that_is_in_no_pair_was_learnt_by_nobody(workshop, traced):
    paired, unpaired = (trace_of(workshop.hub, "clinic/toy-preferences", name).as_json() for name in ("q-1", "q-2"))
    assert [row["kept"] for row in paired["rows"]] == [True, False]
    assert set(paired["seen_by"]) == {str(traced[stage]) for stage in ("rpo", "merge", "evaluate")}
    assert [row["kept"] for row in unpaired["rows"]] == [False]
    assert unpaired["seen_by"] == []


def test_models_of_an_earlier_corpus_are_not_forgotten(workshop, traced):
    workshop.run("corpus.min_chars=10")
    answer = trace_of(workshop.hub, "clinic/texts", "a.jsonl:1").as_json()
    assert len(answer["rows"]) == 2
    assert str(traced["merge"]) in answer["seen_by"]
    assert len(answer["seen_by"]) == 12


def test_a_row_that_is_nowhere_says_where_was_looked(workshop, traced):
    with refused("command.unknown-row", "`doc-9`", "clinic/toy-corpus@", kind=HubError):
        trace_of(workshop.hub, "clinic/toy-corpus", "doc-9")


def test_a_source_whose_tag_was_moved_remakes_the_corpus_and_says_from_where_to_where(workshop, traced):
    api = workshop.hub.api
    before = workshop.hub.resolve("clinic/texts", "dataset", "v1").revision
    api.upload_file(path_or_fileobj=b"[]", path_in_repo="b.jsonl", repo_id="clinic/texts", repo_type="dataset")
    api.delete_tag("clinic/texts", tag="v1", repo_type="dataset")
    api.create_tag("clinic/texts", tag="v1", repo_type="dataset")
    after = workshop.hub.resolve("clinic/texts", "dataset", "v1").revision
    why = workshop.plan().missing[0].why
    assert why == f"clinic/texts@v1 moved from {before[:7]} to {after[:7]}"
