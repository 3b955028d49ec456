"""Runs of a recipe by AutoTrain: interrupted and gone on with, and by the real program, as far as tag and card."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from medllm.hub import connect
from medllm.launch import refuse_unfit
from medllm.launch.autotrain import OVERRIDES, PACKAGE, launch
from medllm.pipeline import BuildContext, gate, lineage, make, make_plan, run
from medllm.recipe import read_recipe, with_overrides
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from tests.launch.autotrain_like import program_like
from tests.pipeline import toy, whole
from tests.pipeline.finished import MEDLLM
from tests.tiny import make_corpus, make_pairs

pytestmark = pytest.mark.slow

LONGEST_INSTALL = 420


def alive(pid: int) -> bool:
    """Whether a process is still there and no mere entry that waits to be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.long
def test_ctrl_c_ends_autotrain_and_its_training_and_the_same_command_then_trains_cards_and_tags(tmp_path):
    whole.lay_out(tmp_path)
    words = ("run", "tiny.yaml", "cpt", "--on", "autotrain", "--hub", "hub", "--set", "cpt.max_steps=null")
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # deaf where tests run behind &
    command = [sys.executable, "-c", heard + MEDLLM[1], *words, "--set", "cpt.num_train_epochs=1"]
    environment = {**os.environ, "MEDLLM_AUTOTRAIN": str(program_like(tmp_path))}
    hangs = tmp_path / "hangs"
    stopped = subprocess.Popen(
        command, cwd=tmp_path, env=environment | {"AUTOTRAIN_HANGS": str(hangs)}, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while not hangs.exists():
        assert stopped.poll() is None, stopped.communicate()[1]
        time.sleep(0.1)
    autotrain, training = map(int, hangs.read_text().split())
    assert alive(autotrain)
    assert alive(training)
    os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does: everybody in the foreground hears it
    printed = stopped.communicate()[1]
    assert stopped.returncode == 1
    assert printed.splitlines()[-1].startswith("medllm: Interrupted. Finished stages are kept; rerun the same command")
    assert not alive(autotrain)
    assert not alive(training)
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        standing = hub.state_at("clinic/tiny-cpt", "model")
        assert hub.find("clinic/tiny-cpt", "model", standing.provenance.digest).artifact == standing.artifact
        assert "base_model_relation: adapter" in (hub.pull(standing.artifact) / "README.md").read_text("utf-8")


@pytest.fixture(scope="session")
def autotrain(tmp_path_factory) -> dict[str, str]:
    """The variables with which medllm finds the real program: one that is named, or one that uv installs for us."""
    named = os.environ.get("MEDLLM_AUTOTRAIN")
    if named:
        assert shutil.which(named), f"MEDLLM_AUTOTRAIN: {named} is no program"
        return {}
    folder = tmp_path_factory.mktemp("autotrain")
    variables = {"PATH": os.environ["PATH"]}
    if "PIP_FIND_LINKS" in os.environ:
        variables["UV_FIND_LINKS"] = os.environ["PIP_FIND_LINKS"]  # wheels that pip is told of, uv is told of as well
    if shutil.which("uv") is None:
        tried(sys.executable, "-m", "venv", folder / "venv")
        tried(folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "uv")
        variables["PATH"] = f"{folder / 'venv' / 'bin'}{os.pathsep}{variables['PATH']}"
    (folder / "overrides.txt").write_text(OVERRIDES, encoding="utf-8")
    printed = ("--python", "3.11", "--overrides", folder / "overrides.txt", "--from", PACKAGE)
    tried("uv", "tool", "run", *printed, "python", "-c", "", env={**os.environ, **variables})
    return variables


def tried(*words: str | Path, env: dict[str, str] | None = None) -> None:
    """A step of the installation; where it cannot be done there is no real program to test with."""
    try:
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=LONGEST_INSTALL, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{PACKAGE} could not be installed within {LONGEST_INSTALL} s")
    if done.returncode:
        pytest.skip(f"{PACKAGE} could not be installed: {done.stderr[-500:]}")


def laid_by(stage: str):
    """A stage that is not what is tested: invented texts or pairs, long enough to fill AutoTrain's blocks."""

    def work(settings, sources, out: Path) -> None:
        make_corpus(out, longest=400) if stage == "corpus" else make_pairs(out)
        (out / "facts.json").write_text("{}")

    return work


@pytest.mark.matrix
@pytest.mark.long
def test_the_real_program_trains_cpt_and_dpo_and_both_are_checked_carded_pushed_and_tagged(
    tmp_path, monkeypatch, autotrain
):
    whole.lay_out(tmp_path)
    monkeypatch.setattr(lineage, "TEMPLATES", dict(lineage.TEMPLATES))
    monkeypatch.setattr(gate, "CHECKS", dict(gate.CHECKS))
    toy.without_dataset_cards()
    for name, value in {**autotrain, "HF_TOKEN": "hf_canary"}.items():
        monkeypatch.setenv(name, value)
    changes = {f"{stage}.{name}": value for stage in ("cpt", "rpo") for name, value in
               {"max_steps": None, "num_train_epochs": 1, "lora": {"r": 4, "lora_alpha": 8}}.items()}  # fmt: skip
    recipe = with_overrides(read_recipe(tmp_path / "tiny.yaml"), {**changes, "rpo.rpo_alpha": 0})

    def placed(plan, item, made, bench) -> None:
        ours = item.stage in ("cpt", "rpo")
        launch(plan, item, made, bench) if ours else make(plan, item, made, laid_by(item.stage), bench)

    with connect(str(tmp_path / "hub"), "clinic") as hub:
        plan = make_plan(recipe, hub, ("rpo",))
        refuse_unfit("autotrain", plan, hub)
        made = run(plan, BuildContext(hub, tmp_path / "runs", print), placed, lambda plan: None)
        assert make_plan(recipe, hub, ("rpo",)).missing == ()
        for stage, rank in {"cpt": 4, "rpo": 8}.items():
            folder = hub.pull(made[stage])
            adapter = Adapter(folder)
            adapter.fits(Checkpoint(tmp_path / "base"))
            assert {narrow.shape[0] for narrow, _ in adapter.modules.values()} == {rank}
            learnt = load_file(folder / "adapter_model.safetensors")
            assert all(abs(tensor).max() > 0 for name, tensor in learnt.items() if "lora_B" in name)
            assert f'trained_by": "{PACKAGE}' in (folder / "facts.json").read_text("utf-8")
            assert "base_model_relation: adapter" in (folder / "README.md").read_text("utf-8")
