"""`medllm check` as a person and as a program meets it: a process of its own, without network and without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.refusals import assert_refused

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if path.stem != "quickstart")
OURS = ("preferred-medllm-qwen-72b", "qwen2.5-7b", "qwen2.5-0.5b")


def medllm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "medllm.cli", *words], cwd=ROOT, capture_output=True, text=True)


def test_the_recipes_are_found_at_all():
    assert set(OURS) <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_sound_and_fits_its_machines(path: Path):
    done = medllm("check", str(path), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    unstated = [warning for warning in found["warnings"] if warning.startswith("teach: the data cutoff of the teacher")]
    assert found["warnings"] == unstated, (
        "a distillation warns of its teacher's cutoff alone, which Qwen does not state"
    )
    assert len(unstated) == path.stem.startswith("distil")
    assert found["parameters"] or path.stem == "table1", "table1 has no base"


def test_a_recipe_without_a_namespace_makes_a_folder():
    lines = medllm("check", "recipes/table1.yaml").stdout.splitlines()
    assert lines[0] == "recipes/table1.yaml is valid: table1."
    assert lines[2].startswith("1  evaluate     folder   table1-evaluate  <- pfnet/Preferred-MedLLM-Qwen-72B@main, ")
    assert "12 models x 2 prompts, one answer to each question" in [line.strip() for line in lines]


def test_the_quickstarts_recipe_is_sound_before_its_folders_are_written(tmp_path: Path):
    recipe = tmp_path / "quickstart.yaml"
    recipe.write_text((ROOT / "recipes" / "quickstart.yaml").read_text("utf-8"), "utf-8")
    done = medllm("check", str(recipe), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["prepared_by"], found["warnings"]) == ("medllm quickstart", [])
    assert {"./base", "./world/exams/past", "./world/exams/asked"} <= set(found["missing"])
    assert medllm("check", str(recipe)).stdout.splitlines()[-1].startswith("`medllm quickstart` writes what does not")


def test_it_reads_well():
    lines = medllm("check", "recipes/preferred-medllm-qwen-72b.yaml").stdout.splitlines()
    assert lines[0].startswith("recipes/preferred-medllm-qwen-72b.yaml is valid: medllm-72b from Qwen/Qwen2.5-72B@")
    assert "2  cpt          model    your-name/medllm-72b-cpt  <- base, corpus" in lines
    expected = "on a100x4: about 67.6 GB a GPU (weights 41.2, adapter 16.8, activations 5.4), whole on each GPU"
    assert expected in [line.strip() for line in lines]


def test_a_fault_is_one_line_on_stderr_and_exit_code_1():
    done = medllm("check", "recipes/nothing.yaml")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert_refused(done.stderr, "recipe.no-such-file", "recipes/nothing.yaml")


def test_what_does_not_fit_is_printed_last_and_is_no_error():
    done = medllm("check", "recipes/preferred-medllm-qwen-72b.yaml", "--set", "rpo.quantization=none")
    assert done.returncode == 0
    needs = "needs about 233 GB a GPU while the base is loaded, `a100x2` has 80: set `quantization: nf4`."
    assert done.stdout.splitlines()[-1] == f"! rpo: {needs}"


def test_any_base_is_sized_by_its_config(tmp_path: Path):
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config | {"vocab_size": 1000}))
    change = ("--set", "base=me/tiny@v1")
    done = medllm("check", "recipes/qwen2.5-0.5b.yaml", *change, "--config", str(path), "--json")
    # embedding and head 64,000 each; a block 4 x 64 x 64 + 3 x 64 x 128 + two norms; one norm at the end
    assert json.loads(done.stdout)["parameters"] == 2 * 64_000 + 2 * (16_384 + 24_576 + 128) + 64


def test_neither_torch_nor_a_socket_is_touched():
    program = (
        "import socket, sys; socket.socket = None\n"
        "sys.argv = ['medllm', 'check', 'recipes/qwen2.5-7b.yaml']\n"
        "from medllm.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'gradio', 'pyarrow', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_base_that_cannot_be_loaded_is_an_error_before_anything_is_spent(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "t5"}))
    done = medllm("check", "recipes/qwen2.5-0.5b.yaml", "--config", str(path))
    assert done.returncode == 1
    assert_refused(done.stderr, "weights.unsupported-type", "`t5`")


def test_the_time_between_checkpoints_and_the_disk_of_a_merge_are_printed():
    lines = [line.strip() for line in medllm("check", "recipes/preferred-medllm-qwen-72b.yaml").stdout.splitlines()]
    assert any(line.startswith("an update takes about 3 min; a checkpoint at least every ") for line in lines)
    assert "base and merged model take about 305.4 GB of disk" in lines
