"""`--on slurm` with a real Slurm of one node: the stage stands on the Hub, and a job that fails is told."""

import pytest

from medllm.errors import LaunchError
from medllm.hub import connect
from medllm.launch.slurm import launch
from medllm.pipeline import Bench, make_plan, run
from medllm.recipe import read_recipe
from tests import slurm
from tests.launch.test_jobs import lay_out_real_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm.missing()), reason=f"no Slurm here ({', '.join(slurm.missing())}): {slurm.INSTALL}"),
]


@pytest.fixture
def bench(tmp_path, tmp_path_factory, monkeypatch):
    with (
        slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment,
        connect(str(tmp_path / "hub"), "clinic") as hub,
    ):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Bench(hub, tmp_path / "runs", lambda text: None)


def test_a_job_that_fails_is_told_and_the_same_command_then_makes_the_stage(tmp_path, bench, monkeypatch):
    lay_out_real_corpus(tmp_path)
    texts = tmp_path / "texts"
    texts.rename(tmp_path / "elsewhere")
    texts.mkdir()
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    with pytest.raises(LaunchError, match=r"corpus: the job ended with code 1. Its last words:\n(.|\n)*medllm: "):
        run(plan, bench, launch, lambda plan: None)
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    with pytest.raises(LaunchError, match=r"ended with code 1. Its last words:\n.*invalid partition"):
        run(plan, bench, launch, lambda plan: None)
    monkeypatch.delenv("SBATCH_PARTITION")
    texts.rmdir()
    (tmp_path / "elsewhere").rename(texts)
    plan = make_plan(read_recipe(tmp_path / "toy.yaml"), bench.hub, ("corpus",))
    made = run(plan, bench, launch, lambda plan: None)["corpus"]
    assert bench.hub.provenance(made).digest == plan.items[0].digest
    scripts = "".join(path.read_text() for path in (tmp_path / "runs").rglob("*.sbatch"))
    assert scripts and bench.hub.token not in scripts
