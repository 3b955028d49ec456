"""The least that an output holds: what is empty or broken is never pushed, and what is good stays on main."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.pipeline import gate
from medllm.pipeline.gate import _check_results, refuse_empty
from tests import tiny
from tests.refusals import refused


def output(folder: Path, rows: int, place: str) -> Path:
    """Write an output with a table of so many rows."""
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": ["x"] * rows}), path)
    (folder / "facts.json").write_text("{}")
    return folder


PLACES = {"corpus": "corpus/a.parquet", "preferences": "data/a.parquet", "evaluate": "records/a.parquet"}


@pytest.mark.parametrize(("stage", "place"), PLACES.items())
def test_a_table_without_rows_is_refused(tmp_path: Path, stage, place):
    refuse_empty(stage, output(tmp_path / "full", 1, place))
    with refused("stage.empty-output", stage):
        refuse_empty(stage, output(tmp_path / "empty", 0, place))


def test_one_model_without_answers_is_refused_by_name(tmp_path: Path):
    output(tmp_path, 3, "records/good.parquet")
    output(tmp_path, 0, "records/silent.parquet")
    with refused("stage.empty-output", "silent"):
        refuse_empty("evaluate", tmp_path)


def test_a_table_that_is_cut_off_is_named(tmp_path: Path):
    output(tmp_path, 3, "corpus/a.parquet")
    path = tmp_path / "corpus" / "a.parquet"
    path.write_bytes(path.read_bytes()[:40])
    with refused("stage.broken-table", path):
        refuse_empty("corpus", tmp_path)


def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path):
    base = tiny.make_base(tmp_path / "base")
    for name, std in (("trained", 0.1), ("untrained", 0.0)):
        (tiny.make_adapter(tmp_path / name, base, std=std) / "facts.json").write_text("{}")
    refuse_empty("cpt", tmp_path / "trained")
    with refused("stage.untrained-adapter", "untrained"):
        refuse_empty("rpo", tmp_path / "untrained")


def test_a_merged_model_that_cannot_be_loaded_is_refused(tmp_path: Path):
    base = tiny.make_base(tmp_path / "base")
    (base / "facts.json").write_text("{}")
    refuse_empty("merge", base)
    whole = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(whole[:-10])
    with refused("weights.cut-off", "model.safetensors", len(whole) - 10):
        refuse_empty("merge", base)


def test_an_empty_evaluation_leaves_the_good_one_on_main(workshop):
    made = workshop.run()["evaluate"]
    gate.CHECKS["evaluate"] = _check_results

    workshop.maker = lambda stage: lambda settings, sources, out: (output(out, 0, "records/all.parquet"), None)[1]
    with refused("stage.empty-output", "evaluate"):
        workshop.run("evaluate.limit=3")
    assert workshop.hub.resolve(made.repo_id, made.kind) == made
