"""The `grpo` stage from folders to folder: a tiny model that guesses letters is truly trained, stopped and resumed."""

import json

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from medllm.recipe.grpo import Grpo
from medllm.recipe.settings import Lora, Merge
from medllm.stages import grpo, merge
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from tests import tiny
from tests.guesser import make_exam_of, make_guesser
from tests.refusals import refused

SETTINGS = Grpo(
    model="base",
    data=[{"source": "./past", "exam": "own"}],
    held_out=("mock",),
    cutoff="2017-12-31",
    lora=Lora(r=8, lora_alpha=16),
    prompt="plain",
    shots=0,
    max_completion_length=4,
    max_length=512,
    total_batch_size=32,
    per_device_train_batch_size=32,
    num_generations=8,
    max_steps=10,
    warmup_ratio=0,
    learning_rate=2e-4,
    lr_scheduler_type="constant",
    dtype="float32",
    gradient_checkpointing=False,
    logging_steps=5,
    save_steps=4,
    report_to=(),
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {
        "base": make_guesser(folder / "base"),
        "./past": make_exam_of(folder / "past", "a", without="explanation"),
        "mock": tiny.make_exam(folder / "mock", 6, first="2018-01-10", seed=5),
    }


@pytest.fixture(scope="module")
def trained(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("grpo") / "out"
    grpo.make(SETTINGS, sources, out)
    return out


def facts_of(out):
    return json.loads((out / "facts.json").read_text("utf-8"))


def weights(out):
    return (out / "adapter_model.safetensors").read_bytes()


def test_a_model_that_guesses_learns_the_letter_that_is_rewarded(trained):
    updates = pq.read_table(trained / "rollouts" / "updates.parquet").to_pylist()
    assert [row["step"] for row in updates] == list(range(1, 11))
    assert updates[0]["rewards/answer"] < 0.5 < 0.9 <= updates[-1]["rewards/answer"]
    assert updates[-1]["answered"] == updates[-1]["completions"] == 32
    facts = facts_of(trained)
    assert (facts["stage"], facts["questions"], facts["steps"], facts["written_by"]) == ("grpo", 16, 10, "transformers")
    assert facts["watch"]["first"] == updates[0] and facts["watch"]["last"] == updates[-1]


def test_the_folder_holds_an_adapter_completions_over_time_and_the_questions_by_name(sources, trained):
    names = {path.name for path in trained.iterdir()}
    assert {"adapter_model.safetensors", "base.json", "rollouts", "questions", "audit.html", "training"} <= names
    assert not names & {"checkpoints", "cache", "above", "last_good"}
    Adapter(trained).fits(Checkpoint(sources["base"]))
    samples = pq.read_table(trained / "rollouts" / "completions.parquet").to_pylist()
    assert [row["step"] for row in samples] == [1] * 4 + [5] * 4 + [10] * 4
    assert samples[0]["reward"] >= samples[3]["reward"] and {row["gold"] for row in samples} == {"a"}
    asked = pq.read_table(trained / "questions" / "train-00000.parquet").to_pylist()
    assert {row["question_id"] for row in asked} == {f"Q{number}" for number in range(16)}
    log = [json.loads(line) for line in (trained / "training" / "log.jsonl").read_text("utf-8").splitlines()]
    assert {"rewards/answer/mean", "rewards/form/mean", "rewards/loop/mean"} <= set(log[0])


def test_the_adapter_is_merged_like_any_other(sources, trained, tmp_path):
    merge.make(Merge(model="grpo", dtype="float32", parity_questions=0), {**sources, "grpo": trained}, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


class Stop(Exception):
    """The end of a run at a checkpoint."""


@pytest.mark.long
@pytest.mark.parametrize("changed", [{}, {"num_iterations": 2, "save_steps": 4, "beta": 0.1}])
def test_a_resumed_training_equals_an_undisturbed_one_to_the_last_bit(sources, trained, tmp_path, changed):
    settings = SETTINGS.model_copy(update=changed)
    whole = trained
    if changed:
        whole = tmp_path / "whole"
        grpo.make(settings, sources, whole)

    def stop(checkpoint):
        raise Stop

    with tiny.at_each_checkpoint(stop), pytest.raises(Stop):
        grpo.make(settings, sources, tmp_path / "out")
    assert (tmp_path / "out.part" / "checkpoints" / "checkpoint-4").is_dir()
    grpo.make(settings, sources, tmp_path / "out")
    assert weights(tmp_path / "out") == weights(whole)
    tables = [pq.read_table(out / "rollouts" / "updates.parquet").to_pylist() for out in (whole, tmp_path / "out")]
    assert tables[0] == tables[1]


@pytest.mark.long
def test_an_adapter_below_is_trained_further_or_gets_another_above_it(sources, tmp_path):
    below = tiny.make_adapter(tmp_path / "rpo", sources["base"], std=0.01)
    short = SETTINGS.model_copy(update={"model": "rpo", "max_steps": 2, "beta": 0.01, "learning_rate": 1e-3})
    for name, lora in (("further", None), ("above", Lora(r=2, lora_alpha=4))):
        grpo.make(short.model_copy(update={"lora": lora}), {**sources, "rpo": below}, tmp_path / name)
        Adapter(tmp_path / name).fits(Checkpoint(sources["base"]))
    shapes = {name: load_file(tmp_path / name / "adapter_model.safetensors") for name in ("further", "above")}
    ranks = {name: {len(t) for key, t in of.items() if "q_proj.lora_A" in key} for name, of in shapes.items()}
    assert ranks == {"further": {4}, "above": {6}}
    assert weights(tmp_path / "further") != weights(below)


def test_a_reward_that_never_differs_stops_the_training_at_once_and_says_why(sources, tmp_path):
    endless = make_guesser(tmp_path / "base", ends=False)
    settings = SETTINGS.model_copy(update={"constant_reward_steps": 2})
    settings = settings.model_copy(update={"rewards": settings.rewards.model_copy(update={"answer": 0})})
    with refused("training.constant-reward", "in 2 updates", "64 completions"):
        grpo.make(settings, {**sources, "base": endless}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    lines = (tmp_path / "out.part" / "training" / "rollouts.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["questions_with_equal_rewards"] for line in lines] == [1.0, 1.0]


def test_held_out_young_and_undated_questions_are_never_asked(sources, tmp_path):
    held = make_exam_of(tmp_path / "held", "a", 6)
    with refused("preferences.no-question-left", "grpo.data", "held out"):
        grpo.make(SETTINGS, {**sources, "./past": held, "mock": held}, tmp_path / "1")
    young = make_exam_of(tmp_path / "young", "a", day="2018-02-07")
    with refused("preferences.no-question-left", "grpo.data", "after the cutoff"):
        grpo.make(SETTINGS, {**sources, "./past": young}, tmp_path / "2")
    undated = make_exam_of(tmp_path / "undated", "a", without="exam_date")
    rows = [json.loads(line) for line in (undated / "exam.jsonl").read_text("utf-8").splitlines()]
    rows = [{name: value for name, value in row.items() if name != "year"} for row in rows]
    (undated / "exam.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    with refused("preferences.no-question-left", "grpo.data", "no exam date"):
        grpo.make(SETTINGS, {**sources, "./past": undated}, tmp_path / "3")


def test_what_would_train_on_nothing_is_refused_before_the_model_is_loaded(sources, tmp_path):
    with refused("training.too-few-questions", 16, 20):
        grpo.make(SETTINGS.model_copy(update={"total_batch_size": 160}), sources, tmp_path / "1")
    with refused("training.prompts-too-long", 16):
        grpo.make(SETTINGS.model_copy(update={"max_length": 16}), sources, tmp_path / "2")
    with refused("training.vllm-needs-gpu", "use_vllm"):
        grpo.make(SETTINGS.model_copy(update={"use_vllm": True}), sources, tmp_path / "3")
