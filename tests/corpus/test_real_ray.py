"""A real Ray node makes the bytes of the corpus that this machine makes; runs where ray is installed."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from medllm.stages.corpus import make
from tests.corpus.spread import files, settings

ray = pytest.importorskip("ray", reason="ray is no dependency: pip install ray, and this runs")


@pytest.fixture
def node(monkeypatch):
    """One node of two cores on loopback, which tells nobody of itself; all of it is gone afterwards."""
    # Short, because Ray puts Unix sockets into it, whose names are bounded.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    (folder / "token").write_text(os.urandom(32).hex(), "utf-8")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80_000_000,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder),
        log_to_driver=False,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder)


# datatrove 0.10.1 places its actors in Ray's old words, in a thread whose faults it drops: then it waits for ever.
@pytest.mark.filterwarnings("ignore:placement_group(_bundle_index)? parameter is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_ray_gives_the_bytes_that_this_machine_gives(small_texts, node, tmp_path):
    make(settings("local"), small_texts, tmp_path / "here")
    make(
        settings({"kind": "ray", "options": {"mem_per_cpu_gb": 0.3, "tasks_per_job": 8}}),
        small_texts,
        tmp_path / "there",
    )
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(files(tmp_path / "here")) > 6, "several tasks, three tables each"
