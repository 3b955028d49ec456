"""The keeper beside a stage: it outlives every fault, sends nothing that is remade, and never holds the stage up."""

import time
from types import SimpleNamespace

import pytest

from medllm.hub import connect
from medllm.hub.push import branch_of, fetch_wip
from medllm.pipeline import wip_sync
from medllm.pipeline.wip_sync import sync_wip

ITEM = SimpleNamespace(stage="cpt", repo_id="clinic/tiny-cpt", kind="model", digest="a1b2c3d4e5f60718")
PATIENCE = 300


@pytest.fixture
def part(tmp_path):
    part = tmp_path / "making.part"
    for name in ("checkpoints/checkpoint-2/trainer_state.json", "cache/parquet/a.arrow", "training/log.jsonl"):
        (part / name).parent.mkdir(parents=True)
        (part / name).write_text("{}", "utf-8")
    return part


def until(there):
    end = time.monotonic() + PATIENCE
    while not there() and time.monotonic() < end:
        time.sleep(0.02)
    assert there()


def test_a_fault_of_any_kind_is_reported_and_the_next_round_keeps_the_same_work(part, tmp_path, monkeypatch):
    messages, faults = [], [UserWarning("an arrow file"), ValueError("what nobody thought of"), OSError("gone")]
    keep = wip_sync.push_wip

    def stumbling(*args):
        if faults:
            raise faults.pop(0)
        keep(*args)

    monkeypatch.setattr(wip_sync, "push_wip", stumbling)
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        with sync_wip(ITEM, hub, part, 0.02, messages.append):
            until(lambda: "cpt: the work so far is kept on the Hub" in messages)
        assert [line for line in messages if "could not be kept" in line] == [
            "cpt: the work so far could not be kept (UserWarning: an arrow file)",
            "cpt: the work so far could not be kept (ValueError: what nobody thought of)",
            "cpt: the work so far could not be kept (OSError: gone)",
        ]
        assert fetch_wip(hub, tmp_path / "fetched", ITEM.repo_id, ITEM.kind, branch_of(ITEM.digest))
    names = {path.relative_to(tmp_path / "fetched").as_posix() for path in (tmp_path / "fetched").rglob("*.*")}
    assert names == {"checkpoints/checkpoint-2/trainer_state.json", "training/log.jsonl"}, "the cache is made again"
    assert not part.with_name("making.part.still").exists()


def test_a_log_is_copied_after_the_checkpoint_that_it_must_not_lag_behind(part, tmp_path, monkeypatch):
    copied = []
    monkeypatch.setattr(wip_sync.shutil, "copytree", lambda source, target: copied.append(source.name))
    for still in ("one", "two"):
        wip_sync._copy(part, tmp_path / still)
    assert copied[0] == copied[2] == "checkpoints" and "cache" not in copied


def test_folders_that_vanish_while_they_are_looked_at_are_passed_over(part, monkeypatch):
    import shutil
    from pathlib import Path

    stat = Path.stat

    def vanishing(path, **options):
        if path.name == "log.jsonl":
            shutil.rmtree(path.parent, ignore_errors=True)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", vanishing)
    assert set(wip_sync._state(part)) == {"checkpoints/checkpoint-2/trainer_state.json"}


def test_nothing_is_kept_where_the_disk_outlives_the_run(part, tmp_path):
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        with sync_wip(ITEM, hub, part, None, print):
            pass
        assert hub.refs(ITEM.repo_id, ITEM.kind) is None
