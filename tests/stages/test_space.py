"""The space stage: a folder that can be pushed; tests/pipeline/test_space_pushed.py starts it from the Hub."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from medllm.cards import render
from medllm.hub import Input, Provenance
from medllm.recipe.settings import Space
from medllm.stages.space import ENTRY, make, requirements
from tests.page.simulated import MODELS, write

ROOT = Path(__file__).parent.parent.parent
INPUTS = (Input("evaluate", "dataset", "clinic/m-evaluate", "a" * 40, "d"),)
BLOCKED = ("torch", "transformers", "peft", "trl", "datasets", "datatrove", "bitsandbytes", "accelerate", "playwright")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a Space over a made-up evaluation."""
    folder = tmp_path_factory.mktemp("space")
    make(Space(), {"evaluate": write(folder / "evaluate")}, folder / "out")
    return folder / "out"


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_folder_holds_the_entry_the_package_the_results_and_the_facts(made):
    for name in ("app.py", "requirements.txt", "facts.json", "medllm/page/words.yaml", "medllm/page/style.css"):
        assert (made / name).is_file(), name
    assert list((made / "results" / "records").glob("*.parquet"))
    assert not list(made.rglob("__pycache__"))


def test_the_entry_is_the_project_s_own_app(made):
    assert (ROOT / "app.py").read_text(encoding="utf-8") == ENTRY == (made / "app.py").read_text(encoding="utf-8")


def test_requirements_are_the_core_and_the_space_extra_and_nothing_heavy(made):
    wanted = {*project()["dependencies"], *project()["optional-dependencies"]["space"]}
    listed = (made / "requirements.txt").read_text(encoding="utf-8").split()
    names = {bare(line) for line in listed}
    assert {bare(line) for line in wanted} == names
    assert not names & set(BLOCKED)


def bare(requirement: str) -> str:
    """A requirement's name as PyPI writes it."""
    return re.split(r"[<>=!~\[]", requirement)[0].lower().replace("_", "-")


def test_adapters_need_what_training_needs():
    assert any(line.startswith("peft") for line in requirements(("space", "train")))


def test_a_space_whose_raters_sign_in_asks_the_hub_for_it_and_installs_what_it_needs(made, tmp_path):
    make(Space(sign_in=True), {"evaluate": made / "results"}, tmp_path / "out")
    assert "gradio[oauth]==" in (tmp_path / "out" / "requirements.txt").read_text(encoding="utf-8")
    assert yaml.safe_load(card(tmp_path / "out").split("---")[1])["hf_oauth"] is True
    assert "hf_oauth" not in yaml.safe_load(card(made).split("---")[1])


def test_made_again_nothing_changes(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    make(Space(), {"evaluate": made / "results"}, made)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def card(made: Path) -> str:
    provenance = Provenance("space", "m", {}, INPUTS, {}, "0" * 64)
    lineage = {"trainings": [{"repo_id": "clinic/m-cpt"}, {"repo_id": "clinic/m-rpo"}]}
    facts = json.loads((made / "facts.json").read_text(encoding="utf-8"))
    return render(
        "model_card/space.md", facts=facts, provenance=provenance, repo_id="clinic/m-space", recipe={}, lineage=lineage
    )


def test_the_card_pins_gradio_as_the_extra_does_and_links_models_and_results(made):
    front = yaml.safe_load(card(made).split("---")[1])
    pinned = next(line for line in project()["optional-dependencies"]["space"] if line.startswith("gradio=="))
    assert front["sdk_version"] == pinned.removeprefix("gradio==")
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    assert front["models"] == ["clinic/m-cpt", "clinic/m-rpo"]
    assert front["datasets"] == ["clinic/m-evaluate"]
    assert len(front["short_description"]) <= 60
    assert all(model in card(made) for model in MODELS)
