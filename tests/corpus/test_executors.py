"""Another executor is another line of the recipe and the same bytes: Slurm with stand-ins for its commands, and Ray."""

import json
import os
import sys
from datetime import date
from pathlib import Path

import pytest

from medllm.corpus import executors, passes, sources
from medllm.errors import DataError
from medllm.recipe.data import Corpus
from medllm.stages.corpus import make

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
    monkeypatch.setattr(executors, "POLL", 0.2)
    return tmp_path / "slurm"


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE", 4000)
    monkeypatch.setattr(passes, "PIECE", 4000)
    organs = ("肝臓", "腎臓", "肺", "脾臓", "骨髄")
    rows = [
        {
            "text": f"{organs[n % 5]}の働きを{n * n}回にわたり調べた。"
            + "所見は前の回と変わらない。" * (n % 3)
            + "以上。" * 9,
            "published": str(2000 + n % 17),
            "licence": "cc0",
        }
        for n in range(90)
    ]
    exam = [{"question_id": "1", "text": "誤っている語はどれか。", "choices": ["甲の語", "乙の語"], "answer": "a"}]
    for name, lines in (("texts", rows), ("exam", exam)):
        (tmp_path / name).mkdir()
        written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (tmp_path / name / "rows.jsonl").write_text(written, "utf-8")
    return {"./texts": tmp_path / "texts", "exam": tmp_path / "exam"}


def settings(executor) -> Corpus:
    told = {"data": ["./texts"], "held_out": ["exam"], "cutoff": date(2017, 12, 31), "workers": 2}
    return Corpus.model_validate({**told, "executor": executor})


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def options(**more):
    return {"kind": "slurm", "options": {"partition": "cpu", "time": "4:00:00", "tasks_per_job": 20, **more}}


@pytest.mark.slow
def test_slurm_gives_the_bytes_that_this_machine_gives(texts, cluster, tmp_path):
    make(settings("local"), texts, tmp_path / "here")
    make(settings(options(qos="long")), texts, tmp_path / "there")
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(files(tmp_path / "here")) > 6, "several tasks, three tables each"
    assert len((cluster / "submitted").read_text("utf-8").splitlines()) == 4, "each pass once, and nothing else"
    asked = (cluster / "asked").read_text("utf-8")
    assert "--partition=cpu" in asked and "--time=4:00:00" in asked and "--qos=long" in asked


def test_a_slurm_job_that_fails_is_named_with_its_logs(texts, cluster, tmp_path):
    (cluster / "srun").write_text("#!/bin/bash\nexit 3\n", "utf-8")
    with pytest.raises(DataError, match=r"\d tasks of the pass `read` did not end, the first is 0(.|\n)*marks/read"):
        make(settings(options()), texts, tmp_path / "out")
    (cluster / "sbatch").write_text("#!/bin/bash\nexit 9\n", "utf-8")
    with pytest.raises(DataError, match="sbatch refused the job with code 9"):
        make(settings(options()), texts, tmp_path / "out")


def test_an_executor_that_is_not_at_hand_and_options_it_does_not_know_are_named(texts, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="slurm needs time under `options`"):
        make(settings({"kind": "slurm", "options": {"partition": "cpu"}}), texts, tmp_path / "out")
    with pytest.raises(DataError, match=r"slurm does not know these options: .*'nodes'"):
        make(settings(options(nodes=4)), texts, tmp_path / "out")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(DataError, match=r"slurm is not at hand .*sbatch.*Run this where `sbatch` is"):
        make(settings(options()), texts, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"ray is not at hand .*pip install ray"):
        make(settings("ray"), texts, tmp_path / "out")


@pytest.mark.slow
def test_ray_gives_the_bytes_that_this_machine_gives(texts, tmp_path):
    ray = pytest.importorskip("ray", reason="ray is no dependency: pip install ray, and this runs")
    make(settings("local"), texts, tmp_path / "here")
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
    make(settings({"kind": "ray", "options": {"mem_per_cpu_gb": 0.3}}), texts, tmp_path / "there")
    assert files(tmp_path / "here") == files(tmp_path / "there")
