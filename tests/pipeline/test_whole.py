"""From an empty folder to a merged model that another process loads, every stage for real, on the embedded Hub."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medllm.localhub import serve
from tests.pipeline import whole

pytestmark = pytest.mark.slow

DOCS = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    """The code block of the docs below a mark."""
    return re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", DOCS, re.DOTALL)[1]


COMMANDS = block("run in CI").splitlines()


class Finished:
    """A recipe that was run, the Hub it stands on, and everything that was said or seen on the way."""

    def __init__(self, folder: Path, hub) -> None:
        self.folder, self.hub = folder, hub
        self.seen_processes: set[str] = set()
        self.told: list[str] = []
        self.home = folder / "home"

    def call(self, *words: str, home: str = "home", token: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "HF_ENDPOINT": self.hub.url,
            "HF_TOKEN": token or self.hub.token,
            "HF_HOME": str(self.folder / home),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        self.told += [done.stdout, done.stderr]
        return done

    def shell(self, line: str, **more) -> subprocess.CompletedProcess[str]:
        """A line of the docs, by the program that it names."""
        program, *words = line.split()
        return self.medllm(*words, **more) if program == "medllm" else self.call(*words, **more)

    def medllm(self, *words: str, **more) -> subprocess.CompletedProcess[str]:
        return self.call("-c", "from medllm.cli import main; main()", *words, **more)


def watch(seen: set[str], done: threading.Event) -> None:
    """Gather the command lines of all processes, as `ps` shows them."""
    while not done.wait(0.2):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    whole.lay_out(folder)
    with serve(folder / "hub", user="clinic") as hub:
        run = Finished(folder, hub)
        ended = threading.Event()
        watcher = threading.Thread(target=watch, args=(run.seen_processes, ended), daemon=True)
        watcher.start()
        done = run.shell(COMMANDS[0])
        ended.set()
        watcher.join()
        assert done.returncode == 0, done.stderr
        run.first = done
        yield run


def test_every_stage_stands_and_the_results_are_one_line_each(finished):
    lines = [line.split("\t") for line in finished.first.stdout.splitlines()]
    assert [stage for stage, _ in lines] == ["corpus", "cpt", "preferences", "rpo", "merge", "evaluate"]
    assert all(re.fullmatch(r"clinic/tiny(-\w+)?@[0-9a-f]{40}", artifact) for _, artifact in lines)


def test_the_second_run_makes_nothing(finished):
    again = finished.medllm("run", "tiny.yaml")
    assert again.stdout == finished.first.stdout, again.stderr
    assert "everything stands; nothing to make" in again.stderr
    assert "at work" not in again.stderr


def test_a_fresh_process_with_a_fresh_cache_loads_the_model_by_its_name_alone(finished):
    (finished.folder / "load.py").write_text(block(r"load\.py"), encoding="utf-8")
    done = finished.shell(COMMANDS[-1], home="another-users-home")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2


def test_the_other_commands_of_the_docs_run(finished):
    assert COMMANDS[0] == "medllm run tiny.yaml"
    assert [line.split()[1] for line in COMMANDS[1:-1]] == ["status", "trace", "ask"]
    for line in COMMANDS[1:-1]:
        done = finished.shell(line)
        assert done.returncode == 0, done.stderr
        assert "clinic/tiny" in done.stdout or "--- final, explain" in done.stdout


def test_ask_writes_every_models_reply_to_a_question_of_the_exam_and_to_ones_own(finished):
    cells = json.loads(finished.medllm("ask", "tiny.yaml", "w3", "--json").stdout)
    assert {(cell["model"], cell["prompt"]) for cell in cells} == {
        (model, prompt) for model in ("base", "cpt", "final") for prompt in ("plain", "explain")
    }
    assert all(cell["done"] and cell["correct"] is not None for cell in cells)
    own = finished.medllm("ask", "tiny.yaml", "発熱の診断は？")
    assert own.returncode == 0, own.stderr
    assert own.stdout.count("\n--- ") == 6


def test_the_cards_tell_certificate_results_audit_and_conflicts(finished):
    from huggingface_hub import HfApi

    api = HfApi(endpoint=finished.hub.url, token=finished.hub.token)
    card = Path(api.hf_hub_download("clinic/tiny", "README.md", cache_dir=finished.folder / "cache")).read_text("utf-8")
    for heading in ("Plain against explained", "Leakage audit", "The merge", "Training", "Limits", "How to cite"):
        assert re.search(rf"^## {heading}\n\n\S|^### {heading}\n\n\S", card, re.MULTILINE), heading
    assert not re.search(r"^(#+) .*\n+(?=\1 |\Z)", card, re.MULTILINE), "a heading with nothing under it"
    assert "./past states no licence" in card


@pytest.mark.parametrize("stage", ["corpus", "cpt", "preferences", "rpo", "merge", "evaluate"])
def test_what_was_pushed_is_a_folder_that_hf_upload_takes_as_it_is(finished, stage):
    (folder,) = (finished.folder / "runs" / "tiny").glob(f"{stage}-*/made")
    kind = "dataset" if stage in ("corpus", "preferences", "evaluate") else "model"
    upload = "import sys; from huggingface_hub.cli.hf import main; sys.argv[0] = 'hf'; main()"
    done = finished.call("-c", upload, "upload", f"clinic/copy-{stage}", str(folder), "--repo-type", kind)
    assert done.returncode == 0, done.stderr


def test_the_token_stands_nowhere(finished):
    finished.medllm("run", "tiny.yaml", "--set", "namespace=other", "--yes")
    finished.medllm("run", "tiny.yaml", "--set", "base=clinic/none@main", "--yes")
    finished.medllm("run", "tiny.yaml", token="hf_" + "x" * 34)
    token = finished.hub.token
    assert len(finished.seen_processes) > 3
    assert not any(token in line for line in finished.seen_processes)
    assert not any(token in text for text in finished.told)
    files = [path for path in finished.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    assert [path for path in files if token.encode() in path.read_bytes()] == []
