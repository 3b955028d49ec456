"""Another executor is another line of the recipe and the same bytes: Slurm's, with stand-ins for its commands."""

import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medllm import work_progress
from medllm.corpus import curate
from medllm.stages.corpus import make
from tests.corpus.spread import files, settings
from tests.refusals import refused

SLURM = {
    # Like Slurm's: it reads the array from the script, returns at once with a number, and the tasks run on their own.
    "sbatch": """#!/bin/bash
here="$(dirname "$0")"; echo "$@" >> "$here/submitted"; job=$(wc -l < "$here/submitted")
cp "${@: -1}" "$here/job$job"; grep '^#SBATCH' "$here/job$job" >> "$here/asked"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$here/job$job")
touch "$here/running$job"
(for task in $(seq 0 "$last"); do
  SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$job SLURM_NODELIST=here RUN_OFFSET=0 bash "$here/job$job" >>"$here/log" 2>&1
done; rm "$here/running$job") >/dev/null 2>&1 &
echo "Submitted batch job $job"
""",
    "srun": """#!/bin/bash
while [ "$1" != launch_pickled_pipeline ]; do shift; done
exec "$@"
""",
    "scontrol": "#!/bin/bash\necho localhost\n",
    "squeue": """#!/bin/bash
if [ -e "$(dirname "$0")/running${@: -1}" ]; then echo "${@: -1} corpus R"; exit 0; fi
echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1
""",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    for name, script in SLURM.items():
        path = tmp_path / "slurm" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script, "utf-8")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}:{os.environ['PATH']}")
    monkeypatch.setattr(curate, "POLL_SECONDS", 0.2)
    return tmp_path / "slurm"


def options(**more):
    return {"kind": "slurm", "options": {"partition": "cpu", "time": "4:00:00", "tasks_per_job": 20, **more}}


@pytest.mark.long
@pytest.mark.slow
def test_slurm_gives_the_bytes_that_this_machine_gives(small_texts, cluster, tmp_path):
    make(settings("local"), small_texts, tmp_path / "here")
    make(settings(options(qos="long")), small_texts, tmp_path / "there")
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(files(tmp_path / "here")) > 6, "several tasks, three tables each"
    assert len((cluster / "submitted").read_text("utf-8").splitlines()) == 4, "each pass once, and nothing else"
    asked = (cluster / "asked").read_text("utf-8")
    assert "--partition=cpu" in asked and "--time=4:00:00" in asked and "--qos=long" in asked


def test_each_pass_reports_bytes_or_texts(small_texts, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(work_progress, "report_progress", lambda one, now=False: seen.update({one.what: one}))
    with work_progress.progress_in(tmp_path / "progress.json"):
        make(settings("local"), small_texts, tmp_path / "out")
    kept = sum(pq.read_metadata(path).num_rows for path in (tmp_path / "out" / "corpus").glob("*.parquet"))
    size = (small_texts["./texts"] / "rows.jsonl").stat().st_size
    read, choosing, writing = (seen[name] for name in ("reading and checking", "choosing among duplicates", "writing"))
    assert (read.done, read.total, read.unit, read.also) == (size, size, "bytes", "90 texts")
    assert (choosing.done, choosing.total, choosing.unit) == (1, 1, "parts")
    assert writing.unit == "texts" and writing.done == writing.total >= kept > 0
    assert choosing.also == f"{writing.total} texts"


def test_a_slurm_job_that_fails_is_named_with_its_logs(small_texts, cluster, tmp_path):
    (cluster / "srun").write_text("#!/bin/bash\nexit 3\n", "utf-8")
    with refused("corpus.tasks-failed", "`read`", "first 0", "marks/read"):
        make(settings(options()), small_texts, tmp_path / "out")
    (cluster / "sbatch").write_text("#!/bin/bash\nexit 9\n", "utf-8")
    with refused("corpus.sbatch-refused", "code 9"):
        make(settings(options()), small_texts, tmp_path / "out")


def test_an_executor_that_is_not_at_hand_and_options_it_does_not_know_are_named(small_texts, tmp_path, monkeypatch):
    with refused("corpus.executor-option-missing", "slurm", "time", "`options`"):
        make(settings({"kind": "slurm", "options": {"partition": "cpu"}}), small_texts, tmp_path / "out")
    with refused("corpus.unknown-executor-option", "slurm", "'nodes'"):
        make(settings(options(nodes=4)), small_texts, tmp_path / "out")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with refused("corpus.executor-not-found", "slurm", "sbatch"):
        make(settings(options()), small_texts, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "ray", None)
    with refused("corpus.executor-not-found", "ray", "pip install ray"):
        make(settings("ray"), small_texts, tmp_path / "out")
