"""The recorded replies of the miniature are read today as they were when they were recorded."""

from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medllm.exam.extract.answer import parse
from medllm.exam.question import Question

RESULTS = Path(str(files("medllm") / "miniature" / "results"))
EVERY = 4
"""Every fourth record is read, which is 2,500 of 10,000."""


@pytest.fixture(scope="module")
def asked():
    rows = pq.read_table(RESULTS / "questions" / "invented.parquet").to_pylist()
    return {
        row["question_id"]: Question(
            question_id=row["question_id"],
            benchmark="invented",
            text=row["text"],
            choices=tuple(row["choices"]),
            gold=(frozenset(row["gold"][0].split(",")),),
            key=tuple(row["key"]),
            numeric=row["numeric"],
            language=row["language"],
        )
        for row in rows
    }


@pytest.mark.parametrize("model", ["base", "cpt", "cpt-dpo", "cpt-rpo", "final", "rpo-only"])
def test_recorded_replies_are_read_as_before(asked, model):
    rows = pq.read_table(RESULTS / "records" / f"{model}.parquet").to_pylist()[::EVERY]
    assert len(rows) == 500
    for row in rows:
        parsed = parse(row["completion"], asked[row["question_id"]], finish_reason=row["finish_reason"])
        now = (parsed.answer, parsed.extraction_rule, parsed.status, parsed.run_on, parsed.truncated, parsed.loop)
        then = tuple(row[name] for name in ("answer", "how", "status", "run_on", "truncated", "loop"))
        assert now == then, row["completion"]
