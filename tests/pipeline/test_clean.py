"""What runs left on the disk: what the Hub has can go, what it has not stays."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medllm.localhub import Store
from medllm.pipeline.clean import DiskPlace, list_places, remove_places


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    """The Hub counts as another machine's: what is made stays here when it was pushed."""
    monkeypatch.setattr("medllm.pipeline.build.is_local", lambda hub: False)


def places(workshop, *overrides: str, unfinished: bool = False) -> list[DiskPlace]:
    """List what runs left; the Hub itself and the client's own folders aside."""
    work = workshop.folder / workshop.runs
    listed = list_places(workshop.plan(*overrides), workshop.hub, work, unfinished=unfinished)
    return [place for place in listed if place.state not in ("hub", "transfers", "shell-cache")]


def states(workshop, *overrides: str, unfinished: bool = False) -> dict[str, tuple[str, bool]]:
    """State and whether it can go, by stage (and digest only where a stage has several)."""
    return {
        place.path.name.rpartition("-")[0] if place.state != "cache" else "cache": (place.state, place.removable)
        for place in places(workshop, *overrides, unfinished=unfinished)
    }


def folder_of(workshop, stage: str) -> Path:
    (folder,) = (workshop.folder / workshop.runs / "toy").glob(f"{stage}-*")
    return folder


def test_what_the_hub_has_can_go_and_the_next_run_makes_nothing(workshop):
    made = workshop.run()
    listed = states(workshop)
    assert listed == dict.fromkeys(made, ("pushed", True)) | {"cache": ("cache", True)}
    before = {place.path: place.size for place in places(workshop)}
    removed = [place.path for place in remove_places(places(workshop))]
    assert set(removed) == set(before) and not any(path.exists() for path in removed)
    workshop.worked.clear()
    assert workshop.run() == made
    assert workshop.worked == []


def test_an_output_of_earlier_settings_can_go_as_well(workshop):
    workshop.run()
    workshop.run("rpo.rpo_alpha=0")
    listed = [place for place in places(workshop) if place.path.name.startswith("rpo-")]
    assert [(place.state, place.removable) for place in listed] == [("pushed", True)] * 2


def test_an_output_that_the_hub_does_not_have_stays(workshop):
    workshop.run()
    folder = folder_of(workshop, "rpo")
    workshop.hub.call("clinic/toy-rpo", lambda api: api.delete_repo("clinic/toy-rpo", repo_type="model"))
    assert states(workshop)["rpo"] == ("not-pushed", False)
    list(remove_places(places(workshop)))
    assert (folder / "made" / "facts.json").is_file()


def test_unfinished_work_stays_unless_it_is_named(workshop):
    workshop.run()
    shutil.rmtree(folder_of(workshop, "cpt") / "made")
    (folder_of(workshop, "cpt") / "making.part").mkdir()
    assert states(workshop)["cpt"] == ("unfinished", False)
    assert states(workshop, unfinished=True)["cpt"] == ("unfinished", True)


def test_a_folder_in_which_another_run_works_stays(workshop):
    workshop.run()
    program = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    )
    command = [sys.executable, "-c", program, str(folder_of(workshop, "cpt") / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        other.stdout.readline()
        assert states(workshop)["cpt"] == ("in-use", False)
        other.stdin.write("\n")
        other.stdin.close()
    assert states(workshop)["cpt"] == ("pushed", True)


def test_work_of_another_recipe_and_foreign_folders_are_left_alone(workshop):
    workshop.run()
    runs = workshop.folder / workshop.runs
    shutil.copytree(runs / "toy", runs / "other")
    (runs / "notes").mkdir()
    (runs / "notes" / "thesis.txt").write_text("x")
    listed = {place.path.name: (place.state, place.removable) for place in places(workshop)}
    assert listed["other"] == ("other-recipe", False)
    assert "notes" not in listed
    list(remove_places(places(workshop)))
    assert (runs / "other").is_dir() and (runs / "notes" / "thesis.txt").is_file()
    assert [path.name for path in (runs / "toy").iterdir()] == ["pushed.json"]


def test_a_recipe_without_any_work_has_nothing_to_list(workshop):
    assert [place for place in places(workshop) if place.state != "cache"] == []


@pytest.mark.parametrize("stage", ["corpus", "merge"])
def test_the_size_is_that_of_the_files(workshop, stage):
    workshop.run()
    (folder_of(workshop, stage) / "made" / "big.bin").write_bytes(b"0" * 1_000_000)
    (place,) = (one for one in places(workshop) if one.path == folder_of(workshop, stage))
    assert 1_000_000 < place.size < 1_100_000
    assert places(workshop)[0] == place


def test_the_hub_its_shells_cache_and_the_clients_transfers_are_listed(workshop, tmp_path, monkeypatch):
    workshop.run()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("medllm.pipeline.clean.HF_HOME", str(tmp_path / "hf"))
    store = Store(tmp_path / "hub")
    shells = tmp_path / "home" / ".cache" / "medllm" / f"hub-{store.id}" / "hub"
    store.close()
    for folder in (shells, tmp_path / "hf" / "xet"):
        folder.mkdir(parents=True)
        (folder / "copy").write_bytes(b"0" * 100)
    listed = {place.state: place for place in list_places(workshop.plan(), workshop.hub, tmp_path / "none")}
    assert (listed["hub"].path, listed["hub"].removable) == (tmp_path / "hub", False)
    assert (listed["transfers"].path, listed["transfers"].size) == (tmp_path / "hf" / "xet", 100)
    assert (listed["shell-cache"].path, listed["shell-cache"].removable) == (shells, True)
    list(remove_places(listed.values()))
    assert not shells.exists() and (tmp_path / "hf" / "xet" / "copy").exists() and (tmp_path / "hub").is_dir()


def test_the_store_of_replies_is_listed_and_goes_only_where_it_is_named(workshop, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDLLM_ANSWERS", str(tmp_path / "answers"))
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "model.jsonl").write_text("{}\n")
    hub, work = workshop.hub, workshop.folder / workshop.runs
    for asked, removable in ((False, False), (True, True)):
        (store,) = [one for one in list_places(workshop.plan(), hub, work, answers=asked) if one.state == "answers"]
        assert (store.path, store.size, store.removable) == (tmp_path / "answers", 3, removable)
        assert [one.path for one in remove_places([store])] == ([store.path] if removable else [])
    assert not (tmp_path / "answers").exists()
