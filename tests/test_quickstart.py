"""The quickstart in a shorter form: the whole method on an invented medicine, then all that it made is inspected."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medllm.cli.quickstart import recipe_file
from medllm.exam.record import Record, read_records
from medllm.exam.stability.report import stability_report
from medllm.hub import connect
from medllm.miniature import exams
from medllm.miniature.corpora import PLANTED_LEAKS, PLANTED_UNLICENSED, PLANTED_YOUNG
from medllm.miniature.exams import mock_exam
from medllm.miniature.world import make_world
from medllm.pipeline.build import read_facts
from medllm.recipe import read_recipe, stages_of
from medllm.recipe.base import KINDS

STAGES = stages_of(read_recipe(recipe_file()))

pytestmark = [pytest.mark.slow, pytest.mark.long]

SHORTER = ("cpt.num_train_epochs=4", "rpo.num_train_epochs=2", "rpo.logging_steps=4", "preferences.questions=120")


def start(folder: Path, settings: tuple[str, ...] = SHORTER) -> subprocess.Popen[str]:
    words = [word for setting in settings for word in ("--set", setting)]
    # One thread: beside another process of tests, two wait for each other far longer than they work.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(folder.parent / "home")}
    command = [sys.executable, "-m", "medllm.cli", "quickstart", str(folder), "--short", *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # Started in the background, a shell's children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(folder: Path, settings: tuple[str, ...] = SHORTER) -> subprocess.CompletedProcess[str]:
    going = start(folder, settings)
    stdout, stderr = going.communicate(timeout=1500)
    return subprocess.CompletedProcess(going.args, going.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[Path, int, str]:
    """A run that somebody stopped with Ctrl-C when CPT had just begun."""
    folder = tmp_path_factory.mktemp("quick") / "start"
    going = start(folder)
    assert going.stderr
    printed = ""
    for line in going.stderr:
        printed += line
        if " cpt: " in line:
            break
    going.send_signal(signal.SIGINT)
    _, rest = going.communicate(timeout=300)
    return folder, going.returncode, printed + rest


@pytest.fixture(scope="module")
def made(stopped) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder, _, _ = stopped
    done = run(folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{(folder / 'log.txt').read_text()[-4000:]}"
    return folder, done


@pytest.fixture(scope="module")
def pulled(made) -> dict[str, Path]:
    with connect(str(made[0] / "hub"), "quickstart") as hub:
        found = {}
        for stage in STAGES:
            name = "quickstart/medllm-mini" + ("" if stage == "merge" else f"-{stage}")
            found[stage] = hub.pull(hub.resolve(name, KINDS[stage]))
        return found


def test_ctrl_c_is_quiet_and_what_was_made_is_there_afterwards(stopped, made):
    _, code, printed = stopped
    assert code == 1, printed
    assert "rerun the same command to resume" in printed
    assert "Traceback" not in printed
    assert re.search(r"corpus +exists", made[1].stderr), made[1].stderr


def test_it_tells_a_plan_a_word_on_each_stage_the_table_and_what_to_type_next(stopped, made):
    _, done = made
    for stage in STAGES:
        assert f"{stage}: " in stopped[2] + done.stderr
    assert "to build" in done.stderr
    assert "explained minus plain" in done.stdout
    assert all(row in done.stdout for row in ("base", "cpt", "cpt-rpo", "final"))
    assert "medllm app" in done.stdout


def test_no_library_speaks_in_the_printout(made):
    printed = made[1].stderr + made[1].stdout
    assert not [line for line in printed.splitlines() if "Warning" in line or "warn(" in line or "Traceback" in line]


def test_every_repository_has_card_provenance_and_tag(made, pulled):
    with connect(str(made[0] / "hub"), "quickstart") as hub:
        for stage, folder in pulled.items():
            assert (folder / "README.md").is_file()
            name = "quickstart/medllm-mini" + ("" if stage == "merge" else f"-{stage}")
            artifact = hub.resolve(name, KINDS[stage])
            provenance = hub.provenance(artifact)
            assert provenance is not None
            assert provenance.stage == stage
            assert hub.find(name, KINDS[stage], provenance.digest) is not None


def test_the_audit_found_exactly_what_was_planted(pulled):
    facts = read_facts(pulled["corpus"])
    assert facts["reasons"] | {"duplicate": 0} == {
        "leak": PLANTED_LEAKS,
        "no_license": PLANTED_UNLICENSED,
        "published_after_cutoff": PLANTED_YOUNG,
        "duplicate": 0,
    }
    assert facts["audit"]["documents_to_drop"] == PLANTED_LEAKS


def test_both_trainings_go_in_their_direction(pulled):
    cpt, rpo = read_facts(pulled["cpt"]), read_facts(pulled["rpo"])
    assert cpt["last_loss"] < cpt["first_loss"]
    assert rpo["last"]["loss/nll"] < rpo["first"]["loss/nll"]
    records = read_records(pulled["evaluate"])
    assert {record.model for record in records} == {"base", "cpt", "cpt-rpo", "final"}
    assert all(one.change is not None for one in stability_report(records).models)


def share(records: list[Record], model: str, prompt: str, kinds: tuple[str, ...] = ("known", "exam", "text")) -> float:
    asked = [one for one in records if one.model == model and one.prompt == prompt and one.category.startswith(kinds)]
    return sum(one.correct for one in asked) / len(asked)


def test_the_base_answers_plainly_and_loses_when_it_explains_first(pulled):
    records = list(read_records(pulled["evaluate"]))
    assert share(records, "base", "plain", ("known",)) > 0.8
    assert share(records, "base", "explain") < share(records, "base", "plain") - 0.05


def test_cpt_teaches_what_the_base_did_not_know(pulled):
    records = list(read_records(pulled["evaluate"]))
    new = ("exam",)
    assert share(records, "cpt", "plain", new) > share(records, "base", "plain", new) + 0.05


def test_rpo_mends_explaining_and_costs_plain_answers_little(pulled):
    records = list(read_records(pulled["evaluate"]))
    assert share(records, "final", "explain") > share(records, "cpt", "explain")
    assert share(records, "final", "plain") > share(records, "cpt", "plain") - 0.1


def test_the_merged_model_answers_as_the_adapter_does(made, pulled):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pulled["merge"], padding_side="left")
    merged = AutoModelForCausalLM.from_pretrained(pulled["merge"])
    base = AutoModelForCausalLM.from_pretrained(made[0] / "base")
    adapted = PeftModel.from_pretrained(base, str(pulled["rounds"]))
    items = mock_exam(make_world(0), 40).items
    asked = tokenizer(
        [f"{exams.question_block(item)}Explanation:" for item in items], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        one, other = (model.generate(**asked, max_new_tokens=60, do_sample=False) for model in (merged, adapted))
    assert tokenizer.batch_decode(one) == tokenizer.batch_decode(other)
    assert len(set(tokenizer.batch_decode(one[:, asked["input_ids"].shape[1] :]))) > len(items) // 2


def test_a_second_run_makes_nothing(made):
    folder, _ = made
    again = run(folder)
    assert again.returncode == 0, again.stderr
    assert "Everything is up to date." in again.stderr
    assert "explained minus plain" in again.stdout
