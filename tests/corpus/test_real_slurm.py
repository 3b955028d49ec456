"""A corpus spread over a real Slurm of one node: the bytes that this machine makes, and a task that fails is named."""

import pytest

from medllm.corpus import curate
from medllm.stages.corpus import make
from tests import slurm
from tests.corpus.spread import files, settings
from tests.refusals import refused

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm.missing()), reason=f"no Slurm here ({', '.join(slurm.missing())}): {slurm.INSTALL}"),
]


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(curate, "POLL_SECONDS", 0.5)
        yield


def on_slurm(**more: object) -> dict[str, object]:
    return {"kind": "slurm", "options": {"partition": "cpu", "time": "0:10:00", "tasks_per_job": 20, **more}}


def test_what_failed_on_its_node_is_named_and_the_same_command_goes_on_to_the_same_bytes(
    small_texts, cluster, tmp_path
):
    make(settings("local"), small_texts, tmp_path / "here")
    with refused("corpus.sbatch-refused"):
        make(settings(on_slurm(partition="gpu")), small_texts, tmp_path / "there")
    with refused("corpus.tasks-failed", "`read`", "first 0", "marks/read"):
        make(settings(on_slurm(env_command="exit 3")), small_texts, tmp_path / "there")
    make(settings(on_slurm()), small_texts, tmp_path / "there")
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(files(tmp_path / "here")) > 6, "several tasks, three tables each"
