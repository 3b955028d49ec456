"""From an empty folder to a merged model that another process loads, every stage for real, on the embedded Hub."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    """The code block of the docs below a mark."""
    return re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", DOCS, re.DOTALL)[1]


COMMANDS = block("run in CI").splitlines()


@pytest.mark.long
def test_the_two_shells_of_the_docs_meet_at_one_hub(tmp_path):
    port = free_port()
    first, second = (block(f"{which} shell").replace("8717", str(port)) for which in ("first", "second"))
    bin = Path(sys.executable).parent
    search = f"{bin}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": ""}
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        environment.pop(name, None)
    options = {"shell": True, "executable": "/bin/bash", "cwd": tmp_path, "env": environment, "text": True}
    serving = subprocess.Popen(f"set -e; {first.replace('medllm hub serve', 'exec medllm hub serve')}", **options)
    try:
        deadline = time.monotonic() + 300
        while not answers(port) and time.monotonic() < deadline:
            assert serving.poll() is None
            time.sleep(0.2)
        done = subprocess.run(f"set -e\n{second}\nmedllm status tiny.yaml", capture_output=True, check=False, **options)
    finally:
        serving.terminate()
        serving.wait()
    assert done.returncode == 0, done.stderr
    assert "corpus      not made yet" in done.stdout


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_every_stage_is_built_and_the_results_are_one_line_each(finished):
    lines = [line.split("\t") for line in finished.first.stdout.splitlines()]
    assert [stage for stage, _ in lines] == ["corpus", "cpt", "preferences", "rpo", "merge", "evaluate"]
    assert all(re.fullmatch(r"clinic/tiny(-\w+)?@[0-9a-f]{40}", artifact) for _, artifact in lines)


def test_the_log_is_plain_lines_without_the_bars_and_notes_of_libraries(finished):
    assert re.search(r"^\d\d:\d\d:\d\d cpt: at work$", finished.first.stderr, re.MULTILINE)
    for noise in ("it/s", "\r", "\x1b", "Warning", "kernels"):
        assert noise not in finished.first.stderr


def test_the_second_run_makes_nothing(finished):
    again = finished.medllm("run", "tiny.yaml")
    assert again.stdout == finished.first.stdout, again.stderr
    assert "Everything is up to date." in again.stderr
    assert "at work" not in again.stderr


def test_a_fresh_process_with_a_fresh_cache_loads_the_model_by_its_name_alone(finished):
    (finished.folder / "load.py").write_text(block(r"load\.py"), encoding="utf-8")
    assert "medllm" not in block(r"load\.py")
    done = finished.shell(COMMANDS[-1], home="another-users-home")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2


@pytest.mark.long
def test_the_other_commands_of_the_docs_run(finished):
    assert COMMANDS[0] == "medllm run tiny.yaml"
    assert [line.split()[1] for line in COMMANDS[1:-1]] == ["status", "trace", "ask", "ablate"]
    for line in COMMANDS[1:4]:
        done = finished.shell(line)
        assert done.returncode == 0, done.stderr
        assert "clinic/tiny" in done.stdout or "--- final, explain" in done.stdout
    assert re.search(
        r"^\[(?:[a-e,]+: right|(?:[a-e,]+: wrong|no answer could be read); the key is [a-e])\]$", done.stdout, re.M
    )


@pytest.mark.long
def test_ask_writes_every_models_reply_to_a_question_of_the_exam_and_to_ones_own(finished):
    cells = json.loads(finished.medllm("ask", "tiny.yaml", "w3", "--json").stdout)
    assert {(cell["model"], cell["prompt"]) for cell in cells} == {
        (model, prompt) for model in ("base", "cpt", "final") for prompt in ("plain", "explain")
    }
    assert all(cell["state"] == "done" and cell["correct"] is not None for cell in cells)
    own = finished.medllm("ask", "tiny.yaml", "発熱の診断は？")
    assert own.returncode == 0, own.stderr
    assert own.stdout.count("\n--- ") == 6
    assert own.stderr == "no question of world has this id; asked word for word\n"
    assert "the key is" not in own.stdout


@pytest.mark.long
def test_the_ablation_table_is_made_of_real_stages_and_what_its_rows_share_is_there_already(finished):
    done = finished.shell(f"{COMMANDS[4]} --json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert list(values["rows"]) == ["base", "rpo-only", "cpt", "cpt-dpo", "final"]
    for row in values["rows"].values():
        assert set(row) == {"plain", "explain", "delta", "interval", "plain_interval", "explain_interval"}
        assert row["delta"] == pytest.approx(row["explain"] - row["plain"])
        assert row["interval"][0] <= row["delta"] <= row["interval"][1]
    compared = values["exams"]["world"]["comparisons"]
    assert len(compared) == 2 * 10  # every two of five rows, both ways of asking
    assert all(one["questions"] == 10 and 0 <= one["p"] <= one["p_holm"] <= 1 for one in compared)
    made = re.findall(r"(\w+): at work", done.stderr)
    assert sorted(made) == ["evaluate", "evaluate", "preferences", "rpo", "rpo"]
    assert (finished.folder / "rows.svg").stat().st_size > 1000
    again = finished.medllm("ablate", "tiny.yaml")
    assert "at work" not in again.stderr
    assert [line.split()[0] for line in again.stdout.splitlines()[2:7]] == list(values["rows"])


@pytest.mark.long
def test_here_trains_by_two_processes_where_the_recipe_names_an_accelerate_config(finished):
    config = Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml"
    finished.seen_processes.clear()
    done = finished.medllm("run", "tiny.yaml", "cpt", "--set", "name=two", "--set", f"cpt.accelerate={config}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("cpt\tclinic/two-cpt@")
    assert any("torch.distributed.run --standalone --nproc_per_node 2" in line for line in finished.seen_processes)
    one, two = (json.loads(finished.medllm("status", "tiny.yaml", "--json", *more).stdout)[1] for more in (
        (), ("--set", "name=two", "--set", f"cpt.accelerate={config}")))  # fmt: skip
    assert one["digest"] == two["digest"]  # where it was made is no part of what it is


OURS = re.compile(
    r"\d\d:\d\d:\d\d (corpus|cpt|preferences|rpo|merge|evaluate|space): |(corpus|cpt|preferences|rpo|merge|evaluate): "
    r"|! |(model|base|cpt|final)  |Look at the answers: medllm app "
)
REPR = re.compile(r"[\[{(]['\"]|[{(]\w+=|: \[|None\b|True\b|False\b|PosixPath")


def test_a_run_prints_its_own_lines_only_and_no_value_as_python_writes_it(finished):
    lines = finished.first.stderr.splitlines()
    assert [line for line in lines if not OURS.match(line)] == []
    assert [line for line in lines if REPR.search(line)] == []
    for stage in ("corpus: kept 20 of 20 documents", "cpt: trained on 976 tokens", "evaluate: 60 replies of 3 models"):
        assert sum(f" {stage}" in line for line in lines) == 1, "each stage ends with its facts"
    assert lines[-1].startswith("Look at the answers: medllm app ")
