"""Conversations that join the pairs of RPO: the loss by hand, their part of each update, and their account."""

import json
import math

import pyarrow.parquet as pq
import pytest
import torch

from medllm.recipe.base import settings_for_digest
from medllm.recipe.settings import Mix
from medllm.stages import rpo
from medllm.training.pair_batches import NOTHING, PairCollator, conversations_as_pairs
from medllm.training.updates import MixedIn, PositionedRows, UpdateBatches
from medllm.weights.load import load_adapters, load_base, load_tokenizer
from tests import tiny
from tests.refusals import refused

STATED = {"source": "./talks", "license": "cc-by-4.0", "published": "2015-04-01"}
MIX = Mix(data=[STATED], held_out=[], cutoff="2017-12-31", share=0.5, weight=3.0)
SETTINGS = tiny.RPO.model_copy(update={"mix": MIX, "chat_template": tiny.CHAT})


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two pairs and two conversations, the second of them with two turns: an update of four rows takes them all."""
    folder = tmp_path_factory.mktemp("sources")
    base = tiny.make_base(folder / "base")
    made = {"base": base, "cpt": tiny.make_adapter(folder / "cpt", base)}
    made["preferences"] = tiny.make_pairs(folder / "pairs", 2)
    first, second = tiny.make_talks(folder / "talks", 4), folder / "talks" / "talks.jsonl"
    lines = second.read_text("utf-8").splitlines()
    second.write_text("\n".join([lines[1], lines[3]]) + "\n", "utf-8")
    return {**made, "./talks": first}


def log_of(out):
    lines = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text("utf-8").splitlines()]
    return [line for line in lines if "loss" in line]


def nll(model, ids, begin):
    """The mean negative log-likelihood of the tokens from `begin` on, or at these places."""
    places = range(begin, len(ids)) if isinstance(begin, int) else begin
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return -sum(float(scores[at - 1, ids[at]]) for at in places) / len(places)


@pytest.mark.parametrize("together", [1, 2, 4])
def test_the_loss_of_an_update_is_that_of_its_pairs_and_conversations_computed_by_hand(sources, tmp_path, together):
    """At the start policy and reference are one, so the preference term of each pair is the logarithm of two."""
    settings = SETTINGS.model_copy(update={"max_steps": 2, "per_device_train_batch_size": together})
    rpo.make(settings, sources, tmp_path / "rpo")
    model = load_adapters(load_base(sources["base"], dtype="float32"), {"cpt": sources["cpt"]}, sources["base"])
    tokenizer = load_tokenizer(sources["base"])
    pairs = [
        nll(model, [*(asked := tokenizer(row["prompt"])["input_ids"]), *tokenizer(row["prompt"] + row["chosen"])[
            "input_ids"][len(asked):], tokenizer.eos_token_id], len(asked))
        for row in pq.read_table(sources["preferences"] / "data").to_pylist()
    ]  # fmt: skip
    spoken = []
    for line in (sources["./talks"] / "talks.jsonl").read_text("utf-8").splitlines():
        ids, places = [], []
        for message in json.loads(line)["messages"]:
            head = tokenizer(f"<|im_start|>{message['role']}\n")["input_ids"]
            words = [*tokenizer(message["content"])["input_ids"], *tokenizer("<|im_end|>")["input_ids"]]
            ids += head
            places += range(len(ids), len(ids) + len(words)) if message["role"] == "assistant" else ()
            ids += [*words, *tokenizer("\n")["input_ids"]]
        spoken.append(nll(model, ids, places))
    first = log_of(tmp_path / "rpo")[0]
    assert first["loss/mix"] == pytest.approx(sum(spoken) / 2, rel=1e-4)
    assert first["loss/nll"] == pytest.approx(sum(pairs) / 2, rel=1e-4)
    by_hand = (2 * math.log(2) + 10 * sum(pairs) + 3 * sum(spoken)) / 4
    assert first["loss"] == pytest.approx(by_hand, rel=1e-4)


def test_an_answer_of_several_turns_is_read_whole_and_learnt_in_its_turns(sources):
    pieces = [{"input_ids": [5, 6, 7, 8, 9, 10], "learnt": [False, False, True, False, True, False]}]
    [row] = conversations_as_pairs(pieces)
    assert (row["prompt_ids"], row["chosen_ids"], row["learnt"]) == ([5, 6], [7, 8, 9], [True, False, True])
    batch = PairCollator(0, shared=True)([row, {**row, "learnt": [True, True, True]}])
    assert batch["input_ids"].shape[0] == 1, "one prompt, computed once"
    targets = batch["targets"][0, batch["widths"][0] :].split(batch["widths"][1:])
    assert [part.tolist() for part in targets] == [[7, NOTHING, 9], [7, 8, 9]]
    assert batch["chosen"].tolist() == batch["rejected"].tolist() == [0, 1]


@pytest.mark.parametrize("devices", [1, 2])
def test_each_update_has_its_share_and_each_row_its_turn_on_any_number_of_devices(devices):
    def epoch(number):
        batches = [
            UpdateBatches(10, batch_size=6, per_device=1, rank=rank, devices=devices, seed=3,
                          mixed=MixedIn(range(5), 2))
            for rank in range(devices)
        ]  # fmt: skip
        for part in batches:
            part.set_epoch(number)
        steps = list(zip(*batches, strict=True))
        assert len(steps) == len(batches[0])
        return [place for step in steps for batch in step for place in batch if place.row is not None]

    first, second = epoch(0), epoch(1)
    whole = [place for place in first if place.rows_in_update == 8]
    assert len(whole) == 8 and sum(place.row >= 10 for place in whole) == 2
    left = [place for place in first if place.rows_in_update != 8]
    assert [place.rows_in_update for place in left] == [5] * 5 and sum(place.row >= 10 for place in left) == 1
    others = [place.row - 10 for place in (*first, *second) if place.row >= 10]
    assert sorted(others[:5]) == [0, 1, 2, 3, 4], "none comes again before all have come"
    assert sorted(place.row for place in first if place.row < 10) == list(range(10))
    rows = PositionedRows([{"a": n} for n in range(10)], {}, [{"b": n} for n in range(5)])
    assert rows[next(place for place in whole if place.row >= 10)].keys() == {"b", "share"}


def test_the_account_of_the_conversations_is_in_the_facts_and_beside_the_model(sources, tmp_path):
    rpo.make(SETTINGS.model_copy(update={"max_steps": 2}), sources, tmp_path / "rpo")
    facts = json.loads((tmp_path / "rpo" / "facts.json").read_text("utf-8"))
    assert facts["mix"]["conversations"] == 2 and facts["mix"]["turns"] == 3
    assert facts["first"]["loss/mix"] > 0 and facts["pairs"] == 2
    assert pq.read_table(tmp_path / "rpo" / "instructions" / "train-00000.parquet").num_rows == 2


def test_without_conversations_the_digest_and_the_weights_are_as_before(sources, tmp_path):
    plain = SETTINGS.model_copy(update={"mix": None})
    assert "mix" not in settings_for_digest(plain) and "mix" in settings_for_digest(SETTINGS)
    rpo.make(plain.model_copy(update={"max_steps": 2}), sources, tmp_path / "rpo")
    assert "loss/mix" not in log_of(tmp_path / "rpo")[0]


def test_pairs_are_evaluated_without_the_conversations_and_a_killed_run_goes_on(tmp_path):
    from tests.stages.test_architectures import resumed

    sources = tiny.make_sources(tmp_path / "sources")
    changed = {"eval_strategy": "steps", "eval_steps": 2, "eval_size": 4, "max_steps": 4}
    facts = resumed(rpo, SETTINGS.model_copy(update=changed), sources, tmp_path / "rpo")
    assert facts["trained"] == 12 and facts["mix"]["conversations"] == 24
    assert set(facts["evaluations"]["4"]) >= {"eval_loss", "eval_loss/nll"} - {"eval_loss/mix"}
    assert "eval_loss/mix" not in facts["evaluations"]["4"]


def test_a_recipe_whose_share_gives_no_row_is_refused(tmp_path):
    from medllm.recipe.settings import Recipe
    from medllm.recipe.training_rules import conversations_have_rows

    few = SETTINGS.model_copy(update={"mix": MIX.model_copy(update={"share": 0.01})})
    recipe = Recipe(name="toy", base="./base", namespace="me", cutoff="2017-12-31", rpo=few)
    [fault] = conversations_have_rows(recipe)
    assert (fault.code, fault.place) == ("recipe.mix-without-rows", "rpo.mix.share")


def test_conversations_on_a_model_without_a_chat_template_are_refused(sources, tmp_path):
    with refused("training.no-chat-template"):
        rpo.make(SETTINGS.model_copy(update={"chat_template": None}), sources, tmp_path / "rpo")
