"""What was pushed is noticed when it is deleted, and half-made work is kept beside a stage whatever goes wrong."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from medllm.cli.console import Reporter, confirm_plan, describe_plan
from medllm.cli.main import app
from medllm.errors import MedllmError
from medllm.hub import Hub, connect
from medllm.hub.push import branch_of, fetch_wip
from medllm.pipeline import pushed
from medllm.pipeline.pushed import deleted_versions, drop_copy, hub_key, sync_wip
from tests.refusals import refused

SILENT = Reporter(lambda text: None, lambda text: None, lambda question: False)


def delete(workshop, stage: str = "evaluate") -> None:
    workshop.hub.api.delete_repo(f"clinic/toy-{stage}", repo_type="dataset")


def deleted(workshop) -> dict[str, str]:
    return deleted_versions(workshop.plan(), workshop.hub, workshop.bench().work)


def test_what_was_deleted_on_the_hub_is_named_and_comes_back_only_on_request(workshop):
    commit = workshop.run()["evaluate"].revision
    delete(workshop)
    assert deleted(workshop) == {"evaluate": f"clinic/toy-evaluate@{commit[:7]}"}
    plan, work = workshop.plan(), workshop.bench().work
    (line,) = [one for one in describe_plan(plan, deleted(workshop)) if one.startswith("evaluate")]
    assert f"clinic/toy-evaluate@{commit[:7]}" in line and "--restore" in line
    with refused("command.deleted-on-hub", f"clinic/toy-evaluate@{commit[:7]}", "--restore"):
        confirm_plan(SILENT, workshop.hub, work, yes=True, restore=False)(plan)
    confirm_plan(SILENT, workshop.hub, work, yes=True, restore=True)(plan)
    workshop.run()
    assert deleted(workshop) == {}


def test_a_deleted_version_is_not_restored_by_a_cutoff_that_finds_it_midway(workshop):
    (workshop.folder / "past").mkdir()
    past = "preferences.data=./past"
    workshop.run(past)
    delete(workshop)
    (workshop.folder / "texts" / "a.txt").rename(workshop.folder / "texts" / "z.txt")
    with refused("stage.deleted-on-hub", "evaluate:", "clinic/toy-evaluate@", kind=MedllmError):
        workshop.run(past)
    assert workshop.plan(past).item("corpus").standing


def test_a_hub_that_never_had_it_and_a_broken_record_ask_nothing(workshop):
    workshop.run(wanted=("corpus",))
    delete(workshop, "corpus")
    record = workshop.bench().work / "toy" / "pushed.json"
    values = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps({"https://elsewhere.example": values[hub_key(workshop.hub)]}), "utf-8")
    assert deleted(workshop) == {}
    record.write_text("{", "utf-8")
    assert deleted(workshop) == {}


def test_after_a_push_to_a_hub_of_this_machine_the_disk_holds_the_output_once(workshop):
    made = workshop.run(wanted=("corpus",))["corpus"]
    (place,) = (workshop.bench().work / "toy").glob("corpus-*")
    assert [path.name for path in place.iterdir()] == ["lock"]
    assert (workshop.hub.pull(made) / "corpus" / "toy.parquet").is_file()


@pytest.mark.parametrize("change", ["large", "small", "more"])
def test_a_copy_that_the_hub_does_not_hold_byte_for_byte_stays(workshop, tmp_path, change):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "w.safetensors").write_bytes(b"weights")
    (folder / "a.json").write_text("{}", "utf-8")
    hub: Hub = workshop.hub
    hub.api.create_repo("clinic/w")
    done = hub.api.upload_folder(repo_id="clinic/w", folder_path=folder)
    artifact = hub.resolve("clinic/w", "model", done.oid)
    name = {"large": "w.safetensors", "small": "a.json", "more": "b.json"}[change]
    kept = (folder / name).read_bytes() if (folder / name).exists() else None
    (folder / name).write_bytes(b"others!")
    assert not drop_copy(hub, artifact, folder) and folder.is_dir()
    (folder / name).write_bytes(kept) if kept else (folder / name).unlink()
    assert drop_copy(hub, artifact, folder) and not folder.exists()


def test_status_shows_what_was_deleted(workshop, tmp_path: Path, monkeypatch):
    workshop.run()
    delete(workshop)
    monkeypatch.setenv("HF_TOKEN", workshop.hub.token)
    arguments = [str(tmp_path / "toy.yaml"), "--hub", str(tmp_path / "hub"), "--work", str(tmp_path / "runs")]
    shown = CliRunner().invoke(app, ["status", *arguments])
    assert "was deleted on the Hub; `medllm run --restore` brings it back" in shown.stdout, shown.output


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
    keep = pushed.push_wip

    def stumbling(*args):
        if faults:
            raise faults.pop(0)
        keep(*args)

    monkeypatch.setattr(pushed, "push_wip", stumbling)
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
    monkeypatch.setattr(pushed.shutil, "copytree", lambda source, target: copied.append(source.name))
    for still in ("one", "two"):
        pushed._copy(part, tmp_path / still)
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
    assert set(pushed._state(part)) == {"checkpoints/checkpoint-2/trainer_state.json"}


def test_nothing_is_kept_where_the_disk_outlives_the_run(part, tmp_path):
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        with sync_wip(ITEM, hub, part, None, print):
            pass
        assert hub.refs(ITEM.repo_id, ITEM.kind) is None
