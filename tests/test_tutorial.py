"""The tutorial's quick commands print what the page shows: the data, the audit, the score and the check."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import medllm.miniature
from medllm.cli.main import app

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILES = re.findall(r"^<!-- (\S+) -->\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of the page, the data they write, and the base."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name, text in FILES:
        (folder / name).write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "make_data.py"], cwd=folder, check=True)
    shutil.copytree(Path(medllm.miniature.__path__[0]) / "base", folder / "base")
    return folder


def shown(command: str) -> list[str]:
    """Return the lines that the page shows below a command."""
    block = re.search(rf"^\$ {re.escape(command)}\n(.*?)^(?:```|\$ )", PAGE, re.DOTALL | re.MULTILINE)
    assert block, command
    return block[1].splitlines()


def test_the_page_has_the_four_files_of_the_tutorial():
    assert [name for name, _ in FILES] == ["make_data.py", "predictions.jsonl", "my-model.yaml"]


def test_the_texts_end_as_shown(folder: Path):
    written = (folder / "texts" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(written) == 15
    assert written[-2:] == shown("tail -n 2 texts/texts.jsonl")


@pytest.mark.parametrize(
    "command",
    [
        "medllm audit texts --against my-exam --data exam",
        "medllm score my-exam predictions.jsonl --data exam",
        "medllm check my-model.yaml",
    ],
)
def test_a_quick_command_prints_what_the_page_shows(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str):
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, command.split()[1:], prog_name="medllm")
    assert done.exit_code == 0, done.output
    printed = [line.rstrip() for line in done.output.splitlines() if line.strip()]
    assert sorted(printed) == sorted(line.rstrip() for line in shown(command) if line.strip())
