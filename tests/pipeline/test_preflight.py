"""The preflight at the start of `medllm run`: refused before a stage begins, on the embedded Hub."""

import shutil
import socket
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from medllm.cli.main import app
from medllm.errors import MedllmError
from medllm.hub import connect
from medllm.pipeline import make_plan, preflight
from medllm.pipeline.preflight import check_before_work
from medllm.recipe import read_recipe
from tests.preflight.conftest import Ward, ward  # noqa: F401  a fixture
from tests.refusals import refused


def hub_with_base(folder: Path, api: HfApi) -> None:
    """Push the folder's base to the Hub as clinic/base."""
    api.create_repo("clinic/base")
    api.upload_folder(repo_id="clinic/base", folder_path=folder / "base")


def test_a_year_that_no_exam_has_is_refused_before_anything_is_made_or_pushed(ward: Ward, monkeypatch):  # noqa: F811
    monkeypatch.chdir(ward.folder)
    done = CliRunner().invoke(app, ["run", "ward.yaml", "--hub", "hub", "--set", "evaluate.years=[2025]", "--yes"])
    assert isinstance(done.exception, MedllmError)
    assert done.exception.code == "recipe.unknown-year"
    assert "evaluate.years: no exam here is of 2025: naika has 2019" in str(done.exception)
    assert not (ward.folder / "runs").exists()


def test_all_faults_are_listed_by_their_lines_in_the_recipe(ward: Ward, monkeypatch):  # noqa: F811
    monkeypatch.chdir(ward.folder)
    (ward.folder / "base" / "tokenizer.json").unlink()
    done = CliRunner().invoke(app, ["check", "ward.yaml", "--set", "evaluate.shots=1"])
    lines = str(done.exception).splitlines()
    assert lines[0] == "ward.yaml has 2 faults:"
    assert [line.split(":")[0].strip() for line in lines[1:3]] == ["line 3, base", "line 11, evaluate.shots"]


def test_a_base_of_the_hub_is_judged_by_its_small_files(ward: Ward):  # noqa: F811
    recipe_file = ward.folder / "ward.yaml"
    recipe_file.write_text(recipe_file.read_text("utf-8").replace("./base", "clinic/base@main"), "utf-8")
    (ward.folder / "base" / "tokenizer.json").unlink()
    with connect(str(ward.folder / "hub"), "clinic") as hub:
        hub_with_base(ward.folder, hub.api)
        plan = make_plan(read_recipe(recipe_file), hub)
        with refused("weights.no-tokenizer", "line 3, base"):
            check_before_work([plan], hub, ward.folder / "runs", here=True)
        assert not list(hub.cache_folder("clinic/base", "model").rglob("*.safetensors"))


def test_a_disk_without_room_for_the_merged_model_is_a_fault(ward: Ward, monkeypatch):  # noqa: F811
    from tests import tiny

    recipe_file = ward.folder / "ward.yaml"
    recipe_file.write_text(recipe_file.read_text("utf-8") + "merge: {model: ./adapter}\n", "utf-8")
    tiny.make_adapter(ward.folder / "adapter", ward.folder / "base")
    usage = namedtuple("usage", "total used free")
    with connect(str(ward.folder / "hub"), "clinic") as hub:
        plan = make_plan(read_recipe(recipe_file), hub)
        check_before_work([plan], hub, ward.folder / "runs", here=True)
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: usage(10, 9, 1))
        with refused("stage.no-room", "the merged model on the local Hub"):
            check_before_work([plan], hub, ward.folder / "runs", here=True)
        check_before_work([plan], hub, ward.folder / "runs", here=False)
    monkeypatch.chdir(ward.folder)
    checked = CliRunner().invoke(app, ["check", "ward.yaml", "--hub", "hub"])
    assert isinstance(checked.exception, MedllmError) and checked.exception.code == "stage.no-room"
    rented = [part for stage in ("evaluate", "merge") for part in ("--set", f"{stage}.run_on=cpu")]
    assert CliRunner().invoke(app, ["check", "ward.yaml", "--hub", "hub", *rented]).exit_code == 0, "not this machine"
    assert not (ward.folder / "runs").exists()


def test_stages_that_exist_already_are_not_opened_again(ward: Ward):  # noqa: F811
    with connect(str(ward.folder / "hub"), "clinic") as hub:
        plan = make_plan(read_recipe(ward.folder / "ward.yaml"), hub, ("corpus",))
        shutil.rmtree(ward.folder / "base")
        check_before_work([plan], hub, ward.folder / "runs", here=True)


def test_a_file_that_this_user_may_not_read_is_one_line(monkeypatch, capsys):
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "/data/exam.jsonl")

    program = sys.modules["medllm.cli.main"]
    monkeypatch.setattr(program, "app", refuse)
    with pytest.raises(SystemExit):
        program.main()
    assert capsys.readouterr().err == (
        "medllm: /data/exam.jsonl: Permission denied. See what it is and who may use it. [command.unusable-file]\n"
    )


def test_a_private_exam_is_not_pushed_to_a_hub_of_another_machine(ward: Ward):  # noqa: F811
    recipe_file = ward.folder / "ward.yaml"
    recipe_file.write_text(
        recipe_file.read_text("utf-8").replace("{source: ./naika,", "{source: ./naika, private: true,")
    )
    with connect(str(ward.folder / "hub"), "clinic") as hub:
        plan = make_plan(read_recipe(recipe_file), hub)
        check_before_work([plan], hub, ward.folder / "runs", here=True)
        public = replace(hub, endpoint="https://huggingface.co")
        with refused("stage.private-exam", "exams.naika", "https://huggingface.co"):
            check_before_work([plan], public, ward.folder / "runs", here=True)
        allowed = read_recipe(recipe_file, {"exams.naika.allowed_hosts": ["huggingface.co"]})
        check_before_work([make_plan(allowed, hub)], public, ward.folder / "runs", here=True)


def test_a_key_that_is_not_set_is_found_before_the_first_stage(ward: Ward, monkeypatch):  # noqa: F811
    monkeypatch.delenv("LLM_KEY", raising=False)
    api = {"api": "http://127.0.0.1:9/v1", "model": "m", "key": "LLM_KEY"}
    with connect(str(ward.folder / "hub"), "clinic") as hub:
        plan = make_plan(read_recipe(ward.folder / "ward.yaml", {"evaluate.models.a": api}), hub)
        with refused("generation.no-key", "evaluate.models.a", "LLM_KEY"):
            check_before_work([plan], hub, ward.folder / "runs", here=True)


def test_a_server_that_does_not_run_is_found_before_the_stage_that_asks_it_and_not_before_others(ward: Ward):  # noqa: F811
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        only = ward.folder / "only.yaml"
        text = (ward.folder / "ward.yaml").read_text("utf-8")
        kept = [line for line in text.splitlines() if not line.startswith(("preferences:",))]
        only.write_text("\n".join(kept), "utf-8")
        recipe = read_recipe(only, {"evaluate.models": {"a": {"api": address, "model": "m"}}})
        with connect(str(ward.folder / "hub"), "clinic") as hub:
            plan = make_plan(recipe, hub)
            check_before_work([plan], hub, ward.folder / "runs", here=True)
            alone = replace(plan, items=tuple(one for one in plan.items if one.stage == "evaluate"))
            with refused("generation.server-not-reachable", "evaluate.models.a", address):
                check_before_work([alone], hub, ward.folder / "runs", here=True)
            taken.listen()
            check_before_work([alone], hub, ward.folder / "runs", here=True)
