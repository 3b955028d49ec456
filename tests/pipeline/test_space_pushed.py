"""`medllm run RECIPE space` on the embedded Hub: the Space with all that it is given, and its start from there."""

import json
import os
import re
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, snapshot_download

from medllm.hub import Hub, connect
from medllm.pipeline import BuildContext, gate, lineage, make, make_plan, run
from medllm.recipe import read_recipe
from tests.page import simulated
from tests.pipeline import toy

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECRET = "hush-" + "7" * 20
SPACE = """
space:
  title: "病棟: 読み比べ #1"
  votes: reader-votes
  hardware: t4-small
  variables: {GREETING: こんにちは}
  secrets: [JUDGE_KEY]
"""


def upstream(stage: str):
    """The toy stages, but for an evaluation that a page can show."""
    if stage != "evaluate":
        return toy.maker(stage)

    def work(settings, sources, out: Path) -> None:
        simulated.write(out, per_section=4)

    return work


class Pushed:
    """A recipe's folder whose Space was pushed by the command, and the Hub beside it."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.api = HfApi(endpoint=hub.endpoint, token=hub.token)
        self.first = self.command()

    def command(self, **changed: str) -> subprocess.CompletedProcess[str]:
        """What a user types."""
        words = [sys.executable, "-c", "from medllm.cli import main; main()"]
        return subprocess.run(
            [*words, "run", "toy.yaml", "space", "--hub", "hub", "--yes"],
            cwd=self.folder, env={**os.environ, "JUDGE_KEY": SECRET, **changed}, capture_output=True, text=True,
        )  # fmt: skip

    @property
    def snapshot(self) -> Path:
        """The Space as anybody gets it from the Hub."""
        return Path(
            snapshot_download("clinic/toy-space", repo_type="space", endpoint=self.hub.endpoint, token=self.hub.token,
                              local_dir=self.folder / "snapshot")
        )  # fmt: skip


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("space")
    toy.lay_out(folder)
    (folder / "toy.yaml").write_text((folder / "toy.yaml").read_text() + SPACE)
    with pytest.MonkeyPatch.context() as patch, connect(str(folder / "hub"), "clinic") as hub:
        patch.setattr(lineage, "TEMPLATES", dict(lineage.TEMPLATES))
        patch.setattr(gate, "CHECKS", dict(gate.CHECKS))
        toy.without_dataset_cards()
        plan = make_plan(read_recipe(folder / "toy.yaml"), hub, ("evaluate",))

        def launch(plan, item, made, bench) -> None:
            make(plan, item, made, upstream(item.stage), bench)

        run(plan, BuildContext(hub, folder / "runs", print), launch, lambda plan: None)
        patch.undo()
        yield Pushed(folder, hub)


def test_the_command_pushes_a_gradio_space(pushed):
    assert pushed.first.returncode == 0, pushed.first.stderr
    assert "could not be set" not in pushed.first.stderr
    assert re.search(r"^space\tclinic/toy-space@[0-9a-f]{40}$", pushed.first.stdout, re.M)
    assert pushed.api.space_info("clinic/toy-space").sdk == "gradio"


def test_its_card_pins_the_sdk_and_links_the_models_and_the_dataset(pushed):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    front = yaml.safe_load((pushed.snapshot / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert f"gradio=={front['sdk_version']}" in project["optional-dependencies"]["space"]
    assert (front["sdk"], front["app_file"], front["title"]) == ("gradio", "app.py", "病棟: 読み比べ #1")
    assert set(front["models"]) == {"clinic/toy-cpt", "clinic/toy-rpo"}
    assert front["datasets"] == ["clinic/toy-evaluate"]
    assert (pushed.snapshot / "app.py").is_file()
    assert (pushed.snapshot / "medllm" / "page" / "serve.py").is_file()


def test_variables_votes_hardware_and_secrets_are_set_and_no_secret_can_be_read(pushed):
    variables = {key: one.value for key, one in pushed.api.get_space_variables("clinic/toy-space").items()}
    assert variables == {
        "GREETING": "こんにちは",
        "MEDLLM_VOTES": "clinic/reader-votes",
        "MEDLLM_CUTOFF": "2017-12-31",
    }
    assert list(pushed.api.get_space_secrets("clinic/toy-space")) == ["JUDGE_KEY"]
    assert pushed.api.get_space_runtime("clinic/toy-space").requested_hardware == "t4-small"
    stored = [path for path in (pushed.folder / "hub").rglob("*") if path.is_file()]
    assert stored
    assert not [path for path in stored if SECRET.encode() in path.read_bytes()]
    assert SECRET not in pushed.first.stdout + pushed.first.stderr


def test_run_again_the_space_stays_and_only_what_is_lost_is_set_again(pushed):
    before = {key: one.updated_at for key, one in pushed.api.get_space_variables("clinic/toy-space").items()}
    pushed.api.delete_space_variable("clinic/toy-space", "GREETING")
    pushed.api.delete_space_secret("clinic/toy-space", "JUDGE_KEY")
    again = pushed.command()
    assert again.stdout == pushed.first.stdout, again.stderr
    after = {key: one.updated_at for key, one in pushed.api.get_space_variables("clinic/toy-space").items()}
    assert set(after) == set(before)
    assert after["MEDLLM_VOTES"] == before["MEDLLM_VOTES"]
    assert list(pushed.api.get_space_secrets("clinic/toy-space")) == ["JUDGE_KEY"]


@pytest.fixture(scope="module")
def clean(pushed, tmp_path_factory) -> Path:
    """The Python of a new environment that holds the Space's requirements, from the package index, and nothing else."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = place / "bin" / "python"
    wanted = ["install", "--quiet", "--requirement", pushed.snapshot / "requirements.txt"]
    installer = ["uv", "pip", *wanted, "--python", python]
    try:
        done = subprocess.run(installer, capture_output=True, text=True, timeout=900)
    except FileNotFoundError:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, *wanted], capture_output=True, text=True, timeout=900
        )
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.long
def test_the_pushed_folder_starts_in_a_clean_environment_and_shows_its_results(pushed, clean, tmp_path):
    listed = subprocess.run([clean, "-c", "import torch"], cwd=pushed.snapshot, capture_output=True, text=True)
    assert "No module named 'torch'" in listed.stderr
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GRADIO_SERVER_PORT": "0"}
    log = tmp_path / "log"
    with log.open("w") as out:
        space = subprocess.Popen([clean, "app.py"], cwd=pushed.snapshot, env=environment, stderr=out, stdout=out)
    try:
        end = time.monotonic() + 240
        address = None
        while address is None and space.poll() is None and time.monotonic() < end:
            time.sleep(0.5)
            address = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8"))
        assert address, log.read_text(encoding="utf-8")
        assert "medllm-first" in answer(address[0], end, log)
        config = answer(f"{address[0]}/config", end, log)
        commit = json.loads((pushed.snapshot / "provenance.json").read_text(encoding="utf-8"))["inputs"][0]["commit"]
        assert f"clinic/toy-evaluate@{commit[:12]}" in config
        assert "simulated" in config.lower()
        assert "病棟: 読み比べ #1" in json.dumps(json.loads(config), ensure_ascii=False)
    finally:
        space.kill()
        space.wait()


def answer(url: str, end: float, log: Path) -> str:
    """What an address answers, once it does."""
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return response.read().decode()
        except OSError:
            assert time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.5)
