"""The commands around the pipeline, as a person runs them: plans, questions, lines of results, faults in one line."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from medllm.cli.main import app
from tests.launch.test_jobs import lay_out_real_corpus
from tests.pipeline import toy
from tests.refusals import assert_refused, refused


@pytest.fixture
def medllm(tmp_path):
    lay_out_real_corpus(tmp_path)
    environment = {**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HF_TOKEN", None)

    def call(*words: str):
        command = [sys.executable, "-c", "from medllm.cli import main; main()", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    return call


@pytest.mark.slow
@pytest.mark.long
def test_a_stage_is_made_once_and_not_again_and_what_is_built_can_be_traced(medllm):
    made = medllm("run", "toy.yaml", "corpus", "--hub", "hub")
    assert made.returncode == 0, made.stderr
    stage, artifact = made.stdout.strip().split("\t")
    assert stage == "corpus"
    assert artifact.startswith("clinic/toy-corpus@")
    assert "corpus: will be built" in made.stderr

    again = medllm("run", "toy.yaml", "corpus", "--hub", "hub")
    assert again.stdout == made.stdout
    assert "Everything is up to date." in again.stderr

    (first, *rest) = json.loads(medllm("status", "toy.yaml", "--hub", "hub", "--json").stdout)
    assert first["exists_as"] == artifact
    assert {one["exists_as"] for one in rest} == {None}

    traced = json.loads(medllm("trace", "clinic/toy-corpus", "--hub", "hub", "--json").stdout)
    assert [one["reference"] for one in traced["from"]] == ["./texts", "world"]

    listed = json.loads(medllm("clean", "toy.yaml", "--hub", "hub", "--json").stdout)
    states = {one["path"]: one["state"] for one in listed["places"]}
    assert set(states.values()) == {"empty", "cache", "hub", "transfers"} and listed["removed"] == []
    freed = json.loads(medllm("clean", "toy.yaml", "--hub", "hub", "--json", "--yes").stdout)
    assert sorted(freed["removed"]) == sorted(path for path, state in states.items() if state in ("empty", "cache"))
    # The plan alone reads a file of the Hub again.
    assert "the Hub has it" not in medllm("clean", "toy.yaml", "--hub", "hub").stdout
    assert traced["seen_by"] == []


@pytest.mark.long
@pytest.mark.slow
def test_what_is_built_is_not_remade_without_a_yes_and_the_plan_says_why(medllm):
    assert medllm("run", "toy.yaml", "corpus", "--hub", "hub").returncode == 0
    changed = ("run", "toy.yaml", "corpus", "--hub", "hub", "--set", "corpus.min_chars=10")
    asked = medllm(*changed)
    assert asked.returncode == 1
    assert asked.stdout == ""
    assert "corpus: will be rebuilt, because min_chars 50 -> 10" in asked.stderr
    assert_refused(asked.stderr, "command.would-rebuild", "clinic/toy-corpus", "--yes")
    assert medllm(*changed, "--yes").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "values"),
    [
        (("run", "none.yaml"), "recipe.no-such-file", ("none.yaml",)),
        (("run", "toy.yaml", "dpo", "--hub", "hub"), "command.unknown-stage", ("dpo", "Did you mean `rpo`?")),
        (("run", "toy.yaml", "--set", "rpo_alpha"), "recipe.no-value-to-set", ("--set rpo_alpha",)),
        (("trace", "clinic/none", "--hub", "hub"), "hub.no-such-repository", ("clinic/none",)),
        (("trace", "./texts", "all.jsonl:1", "--hub", "hub"), "command.not-a-repository", ("./texts", "FILE:LINE")),
        (("ask", "toy.yaml", " ", "--hub", "hub"), "command.no-question", ()),
        (
            ("ask", "toy.yaml", "w1", "--hub", "hub", "--set", "evaluate.models={cpt: cpt}"),
            "stage.no-model-built",
            ("`medllm run`",),
        ),
        (
            ("ablate", "toy.yaml", "--hub", "hub", "--set", "ablations={}"),
            "recipe.no-ablations",
            ("`cpt-dpo: {rpo.rpo_alpha: 0}`",),
        ),
    ],
)
def test_a_fault_names_what_is_wrong_and_what_to_do(tmp_path, monkeypatch, words, code, values):
    toy.lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, list(words))
    with refused(code, *values):
        raise done.exception or AssertionError(done.output)
    assert done.stdout == ""


def test_a_fault_is_one_line_and_exit_code_1(medllm):
    done = medllm("run", "toy.yaml", "--on", "moon", "--hub", "hub")
    assert done.returncode == 1
    assert_refused(done.stderr, "launch.unknown-place", "--on moon")
    assert done.stderr.count("\n") == 1
