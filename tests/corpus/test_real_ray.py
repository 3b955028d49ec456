"""A real Ray node makes the bytes of the corpus that this machine makes; runs where ray is installed."""

import gc
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest

from medllm.stages.corpus import make
from tests.corpus.spread import files, settings
from tests.refusals import refused

if os.environ.get("CI") == "true":
    import ray
else:
    ray = pytest.importorskip("ray", reason="ray is an extra: pip install '.[ray]', and this runs")
TOKEN = os.urandom(32).hex()
"""One for all tries: Ray reads it once in the life of a process."""


@pytest.fixture
def node(monkeypatch):
    """One node of two cores on loopback, which tells nobody of itself; all of it is gone afterwards."""
    # Short, because Ray puts Unix sockets into it, whose names are bounded.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    (folder / "token").write_text(TOKEN, "utf-8")
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
    with warnings.catch_warnings():
        # Ray lets go of its daemons' Popen objects before the daemons have ended.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.slow
def test_ray_gives_the_bytes_that_this_machine_gives_and_tells_the_same_faults(small_texts, node, tmp_path):
    on_ray = {"kind": "ray", "options": {"mem_per_cpu_gb": 0.3}}
    make(settings("local"), small_texts, tmp_path / "here")
    make(settings(on_ray), small_texts, tmp_path / "there")
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(files(tmp_path / "here")) > 6, "several tasks, three tables each"
    with refused("corpus.unknown-executor-option", "ray", "nodes"):
        make(settings({"kind": "ray", "options": {"nodes": 4}}), small_texts, tmp_path / "elsewhere")
    (small_texts["./texts"] / "z.jsonl").write_text('{"words": "列の名が違う。"}\n', "utf-8")
    with refused("corpus.no-text-column", "z.jsonl:1", "`text`"):
        make(settings(on_ray), small_texts, tmp_path / "elsewhere")
