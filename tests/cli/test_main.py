"""Where the program starts: an expected error is one line and exit code 1, a bug keeps its traceback."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import medllm.cli.main  # noqa: F401
from docs import reference
from medllm import __version__
from medllm.cli.app import ORDER
from medllm.errors import HubError, MedllmError, MissingExtraError
from tests.refusals import refused

start = sys.modules["medllm.cli.main"]  # `medllm.cli.main` is also the name of its function
ROOT = Path(__file__).parent.parent.parent


def ran(monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> int | str | None:
    def fall() -> None:
        raise fault

    monkeypatch.setattr(start, "app", fall)
    with pytest.raises(SystemExit) as done:
        start.main()
    return done.value.code


def test_a_foreseen_fault_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert ran(monkeypatch, HubError("hub.no-token", "me/x: there is no token. Run `hf auth login`.")) == 1
    assert capsys.readouterr().err == "medllm: me/x: there is no token. Run `hf auth login`. [hub.no-token]\n"


def test_every_fault_of_the_tree_is_foreseen(monkeypatch: pytest.MonkeyPatch):
    kinds = [kind for kind in MedllmError.__subclasses__() if kind.__module__ == "medllm.errors"]
    assert len(kinds) >= 7
    for kind in kinds:
        fault = kind("train", "training") if kind is MissingExtraError else kind("exam.no-key", "q1: no key.")
        assert ran(monkeypatch, fault) == 1


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def fall() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(start, "app", fall)
    with pytest.raises(KeyError):
        start.main()


def test_a_refusal_of_the_hub_inside_another_library_is_worded_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    assert ran(monkeypatch, LocalTokenNotFoundError("no token")) == 1
    assert "HF_TOKEN" in capsys.readouterr().err
    assert ran(monkeypatch, OfflineModeIsEnabled("offline")) == 1
    assert "--hub DIR" in capsys.readouterr().err


def test_for_a_library_that_is_not_installed_the_error_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert ran(monkeypatch, ModuleNotFoundError("No module named 'gradio'", name="gradio.blocks")) == 1
    line = capsys.readouterr().err
    assert line.startswith("medllm: ") and line.endswith(" [install.missing-extra]\n")
    assert "gradio" in line and "pip install 'medllm[space]'" in line


def test_every_library_of_the_extras_is_known_to_belong_to_one():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    imported = {"python-docx": "docx", "python-pptx": "pptx"}
    names = [(re.split(r"[<>=\[ ]", one)[0], extra) for extra, wanted in extras.items() for one in wanted]
    brought = {imported.get(name, name): extra for name, extra in names}
    assert start.EXTRAS.items() <= brought.items()


def test_a_missing_extra_names_what_to_type():
    with refused("install.missing-extra", "training", "pip install 'medllm[train]'"):
        raise MissingExtraError("train", "training")


@pytest.mark.parametrize("command", [(), *reference.commands()], ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]):
    text = reference.help_text(command)
    assert "Usage: medllm" in text
    # The sentence under the usage line is the command's docstring.
    assert len(text.splitlines()[3].strip()) > 10


def parameters(command: tuple[str, ...]):
    found = typer.main.get_command(start.app)
    for name in command:
        found = found.commands[name]
    return found


@pytest.mark.parametrize("command", [(), *reference.commands()], ids=" ".join)
def test_a_list_of_commands_and_options_has_one_line_of_at_most_60_signs_for_each(command: tuple[str, ...]):
    found = parameters(command)
    lines = {name: inner.get_short_help_str(1_000) for name, inner in getattr(found, "commands", {}).items()}
    own = ("install_completion", "show_completion", "help")  # typer's words
    lines |= {one.name: getattr(one, "help", None) or "" for one in found.params if one.name not in own}
    assert {name: line for name, line in lines.items() if not 0 < len(line) <= 60} == {}


def test_the_list_of_commands_is_whole_at_80_columns():
    shown = CliRunner().invoke(start.app, ["-h"], terminal_width=80).stdout
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("command", [(), *reference.commands()], ids=" ".join)
def test_every_command_takes_h_for_help(command: tuple[str, ...]):
    short, whole = (CliRunner().invoke(start.app, [*command, flag]) for flag in ("-h", "--help"))
    assert (short.exit_code, short.stdout) == (0, whole.stdout)


def test_version_prints_the_version():
    done = CliRunner().invoke(start.app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"medllm {__version__}\n")


def test_a_shell_completes_the_commands():
    asked = {**os.environ, "_MEDLLM_COMPLETE": "complete_bash", "COMP_WORDS": "medllm st", "COMP_CWORD": "1"}
    program = [str(Path(sys.executable).with_name("medllm"))]
    done = subprocess.run(program, env=asked, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["status", "stability"]


def test_help_needs_no_heavy_library():
    program = (
        "import sys; sys.argv = ['medllm', '--help']\n"
        "from medllm.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'datatrove', 'gradio', 'pyarrow', 'scipy', 'matplotlib',"
        " 'huggingface_hub', 'pydantic', 'starlette'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr


def test_no_library_reports_what_is_done_here(tmp_path: Path):
    text = "from medllm.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    text += "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    command = [sys.executable, "-c", text, "check", str(tmp_path / "none.yaml")]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert printed.stdout.splitlines()[-1] == "True"


def test_the_commands_are_found_at_all():
    found = reference.commands()
    assert ("check",) in found
    assert {command[0] for command in found} <= set(ORDER)
    assert isinstance(start.app, typer.Typer)
