"""RPO's loss, number for number, and its reference on every route."""

import math
import random
from itertools import combinations
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from trl import DPOTrainer

from medllm.recipe.settings import Lora, Rpo
from medllm.recipe.training import PreferenceLoss
from medllm.training.losses import PairLogps, rpo_loss
from medllm.training.pair_batches import PairCollator, encode_pairs, read_pairs
from medllm.training.reference import ComputeReference
from medllm.training.rpo import answer_logps, make_trainer
from medllm.weights.load import load_adapters, load_base, load_tokenizer
from tests import tiny
from tests.refusals import refused

LORA = Lora(r=4, lora_alpha=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rpo")
    tiny.make_base(folder / "base")
    tiny.make_adapter(folder / "cpt", folder / "base", target_modules=["q_proj", "up_proj", "embed_tokens"])
    tiny.make_pairs(folder / "preferences")
    return folder


def trainer_for(root, work, *, lora=None, quantization="none", model=None, **changed):
    settings = Rpo(
        model="cpt",
        rpo_alpha=10,
        lora=lora,
        dtype="float32",
        total_batch_size=4,
        max_length=256,
        gradient_checkpointing=False,
        report_to=(),
        **{"max_steps": 1, **changed},
    )
    tokenizer = load_tokenizer(root / "base")
    pairs, _ = encode_pairs(read_pairs(root / "preferences", root / "cache"), tokenizer, 256)
    if model is None:
        model = load_base(root / "base", dtype="float32", quantization=quantization)
        if lora is None:
            model = load_adapters(model, {"default": root / "cpt"}, root / "base", trainable="default")
    return make_trainer(model, tokenizer, pairs, settings, work, say=print)


def by_hand(model, pair, reference):
    """The loss of one pair from two plain passes over whole sequences, in Python's own numbers."""

    def logp(answer):
        ids = torch.tensor([pair["prompt_ids"] + answer])
        with torch.no_grad():
            scores = model(ids, use_cache=False).logits[0].double().log_softmax(-1)
        begin = len(pair["prompt_ids"])
        return sum(float(scores[begin + at - 1, token]) for at, token in enumerate(answer))

    chosen, rejected = logp(pair["chosen_ids"]), logp(pair["rejected_ids"])
    margin = 0.1 * ((chosen - reference[0]) - (rejected - reference[1]))
    return math.log1p(math.exp(-margin)) + 10 * -chosen / len(pair["chosen_ids"]), (chosen, rejected)


@pytest.mark.parametrize("shared", [True, False])
def test_the_loss_is_that_of_the_paper_on_a_batch_computed_by_hand(root, tmp_path, shared):
    trainer = trainer_for(root, tmp_path, lora=LORA)
    model = trainer.model.eval()
    pairs = [trainer.train_dataset[number] for number in range(4)]
    assert len({len(pair["chosen_ids"]) for pair in pairs}) > 1, "equal lengths would hide the averaging"
    references = [by_hand(model, pair, (0.0, 0.0))[1] for pair in pairs]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = sum(by_hand(model, pair, ref)[0] for pair, ref in zip(pairs, references, strict=True)) / 4
    batch = PairCollator(trainer.processing_class.pad_token_id, shared=shared)(pairs)
    trainer.state.global_step = 1
    trainer.reference = torch.tensor(references)
    with torch.no_grad():
        loss = trainer._compute_loss(model, batch, False)
    assert float(loss) == pytest.approx(expected, abs=1e-5 * max(1.0, abs(expected) / 10))
    logged = {}
    trainer.log(logged)
    assert logged["rewards/margins"] != 0


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma3_text"])
def test_a_shared_prompt_gives_the_numbers_of_two_rows(tmp_path, family):
    base = tiny.make_base(tmp_path / "base", family=family)
    model, tokenizer = load_base(base, dtype="float32"), load_tokenizer(base)
    pairs, _ = encode_pairs(read_pairs(tiny.make_pairs(tmp_path / "pairs"), tmp_path / "cache"), tokenizer, 256)
    window = model.config.sliding_window if family == "gemma3_text" else None
    rows = [pairs[number] for number in range(5)]
    with torch.no_grad():
        together, apart = (
            answer_logps(model, PairCollator(0, shared=shared, window=window)(rows)) for shared in (True, False)
        )
    for left, right in zip(together, apart, strict=True):
        assert torch.allclose(left.float(), right.float(), atol=2e-4)


class Written:
    """A model that gives the tokens of a padded batch of TRL's drawn log-probabilities."""

    def __init__(self, log_probs):
        self.log_probs = log_probs

    def __call__(self, **_):
        blank = torch.zeros_like(self.log_probs)
        return SimpleNamespace(log_probs=self.log_probs, entropy=blank, mean_logits=blank, is_top1=blank.bool())


def test_each_loss_is_that_of_trl_on_the_same_pairs(root, tmp_path):
    trainer = trainer_for(root, tmp_path, lora=LORA)
    draw = torch.Generator().manual_seed(0)
    mask = torch.zeros(6, 12, dtype=torch.long)
    for row, (begin, end) in enumerate([(3, 9), (5, 12), (2, 4), (3, 12), (5, 7), (2, 11)]):
        mask[row, begin:end] = 1
    log_probs = -torch.rand(6, 11, generator=draw) * 3 * mask[:, 1:]
    sums, lengths = log_probs.sum(1), mask.sum(1)
    moved = torch.tensor([0.5, -2.0, 4.0, -0.25, 3.0, -1.0])
    reference = sums + moved
    inputs = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask}
    inputs |= {"ref_chosen_logps": reference[:3], "ref_rejected_logps": reference[3:]}
    trainer.precompute_ref_logps, trainer.loss_weights = True, [1.0]
    trainer.ref_model = None
    for name in get_args(PreferenceLoss):
        smoothing = 0.1 if name in ("robust", "exo_pair") else 0.0
        trainer.loss_types, trainer.label_smoothing, trainer.beta = [name], smoothing, 0.2
        expected = DPOTrainer._compute_loss(trainer, Written(log_probs), inputs, False)
        mine, _ = rpo_loss(
            PairLogps(sums[:3], sums[3:], lengths[:3], lengths[3:]),
            PairLogps(reference[:3], reference[3:], lengths[:3], lengths[3:]),
            **{"beta": 0.2, "alpha": 0.0, "loss_type": name, "label_smoothing": smoothing},
        )
        assert mine.shape == (3,) and float(mine.mean()) == pytest.approx(float(expected), rel=1e-5), name


def test_the_loss_of_the_recipe_is_the_one_that_is_learnt(root, tmp_path):
    losses = {}
    for name in ("sigmoid", "hinge"):
        trainer = trainer_for(root, tmp_path / name, lora=LORA, loss_type=name)
        trainer.train()
        losses[name] = trainer.state.log_history[0]["loss/dpo"]
    assert losses == {"sigmoid": pytest.approx(math.log(2)), "hinge": pytest.approx(1)}, "the start is the reference"


@pytest.mark.parametrize("route", ["continued", "merged", "continued nf4", "fresh nf4"])
def test_the_reference_is_the_model_at_the_start_to_the_last_bit(root, tmp_path, route):
    quantization = "nf4" if "nf4" in route else "none"
    if route == "merged":
        below = load_adapters(load_base(root / "base", dtype="float32"), {"cpt": root / "cpt"}, root / "base")
        trainer = trainer_for(root, tmp_path, lora=LORA, model=below.merge_and_unload())
    else:
        trainer = trainer_for(root, tmp_path, lora=LORA if "fresh" in route else None, quantization=quantization)
    trainer.train()
    line = next(line for line in trainer.state.log_history if "rewards/margins" in line)
    assert trainer.reference_checked
    assert line["rewards/margins"] == 0 and line["rewards/chosen"] == 0
    assert line["loss/dpo"] == pytest.approx(math.log(2), abs=1e-6)


def test_a_wrong_reference_stops_the_run(root, tmp_path, monkeypatch):
    def of_the_base(self):
        model = self.trainer.model
        with model.disable_adapter():  # the base, which other trainers take for the reference
            return computed(self)

    computed = ComputeReference._computed
    monkeypatch.setattr(ComputeReference, "_computed", of_the_base)
    with refused("training.reference-differs", "rpo"):
        trainer_for(root, tmp_path).train()


def test_adapters_learn_in_float32_on_a_4_bit_base(root, tmp_path):
    trainer = trainer_for(root, tmp_path, quantization="nf4")
    learning = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert learning == {torch.float32}


def test_a_run_whose_chosen_answers_fall_is_stopped_as_the_recipe_says(root, tmp_path, monkeypatch):
    from medllm.training import rpo

    def unlearning(policy, reference, **options):
        return policy.chosen / policy.chosen_tokens, torch.zeros_like(policy.chosen)

    monkeypatch.setattr(rpo, "rpo_loss", unlearning)
    changed = {"max_steps": 6, "logging_steps": 1, "learning_rate": 1e-2, "warmup_ratio": 0.0}
    with refused("training.falling-chosen", tmp_path / "stop" / "last_good") as caught:
        trainer_for(root, tmp_path / "stop", on_falling_chosen="stop", **changed).train()
    assert str(caught.value).startswith(("step 4:", "step 5:"))
    assert (tmp_path / "stop" / "last_good" / "adapter_model.safetensors").is_file()
    warned = trainer_for(root, tmp_path / "warn", on_falling_chosen="warn", **changed)
    warned.train()
    assert warned.falling.first in (4, 5) and warned.state.global_step == 6


@pytest.mark.parametrize("route", ["fresh", "continued"])
def test_the_adapters_dropout_acts_on_the_policy_and_never_on_the_reference(root, tmp_path, route):
    margins, kept = {}, {}
    for share in (0.0, 0.5):
        lora, model = LORA.model_copy(update={"lora_dropout": share}), None
        if route == "continued":
            targets = ["q_proj", "up_proj"]
            below = tiny.make_adapter(
                tmp_path / f"below {share}", root / "base", target_modules=targets, lora_dropout=share
            )
            model = load_adapters(
                load_base(root / "base", dtype="float32"), {"default": below}, root / "base", trainable="default"
            )
            lora = None
        trainer = trainer_for(
            root,
            tmp_path / f"{share}",
            lora=lora,
            model=model,
            warmup_ratio=0.0,
            max_steps=2,
            logging_steps=1,
            learning_rate=1e-2,
        )
        trainer.train()
        assert trainer.reference_checked
        margins[share] = [line["rewards/margins"] for line in trainer.state.log_history if "rewards/margins" in line]
        kept[share] = trainer.reference
    assert torch.equal(kept[0.0].nan_to_num(), kept[0.5].nan_to_num())
    assert margins[0.0][0] == 0
    assert margins[0.5][1] != margins[0.0][1], "the recipe's dropout did nothing"


def test_pairs_of_one_prompt_in_a_micro_batch_share_it_and_their_common_answers(root):
    tokenizer = load_tokenizer(root / "base")
    model = load_base(root / "base", dtype="float32")
    prompt, other, first, second, third = ([7, 8, 9, 10], [11, 12], [20, 21, 0], [22, 0], [23, 24, 25, 0])
    sides = [(prompt, first, second), (prompt, first, third), (other, second, third), (prompt, second, third)]
    pairs = [
        {"prompt_ids": asked, "chosen_ids": chosen, "rejected_ids": rejected, "pair": number}
        for number, (asked, chosen, rejected) in enumerate(sides)
    ]
    together = PairCollator(tokenizer.pad_token_id, shared=True)(pairs)
    assert together["input_ids"].shape == (2, 3 + 3 + 4 + 4), "two prompts, three answers at most, each computed once"
    rows = PairCollator(tokenizer.pad_token_id, shared=False)(pairs)
    assert rows["input_ids"].shape[0] == 5
    with torch.no_grad():
        alone = [answer_logps(model, PairCollator(0, shared=False)([pair])) for pair in pairs]
        for batch in (together, rows):
            for number, side in enumerate(answer_logps(model, batch)):
                assert side.tolist() == pytest.approx([float(one[number]) for one in alone], abs=1e-4)


def a_question(draw, answers):
    """All pairs of so many answers to one question."""
    prompt, *found = ([draw.randint(3, 40) for _ in range(draw.randint(5, 40))] for _ in range(answers + 1))
    return [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for chosen, rejected in combinations(found, 2)
    ]


def gradient(model, batches, pairs):
    """The gradient of the mean loss over all pairs, by the name of the tensor; the reference differs from the start."""
    model.zero_grad()
    for batch in batches:
        policy = answer_logps(model, PairCollator(0, shared=True)(batch))
        moved = torch.tensor([0.3 * (-1) ** pair["pair"] for pair in batch])
        reference = policy._replace(chosen=policy.chosen.detach() + moved, rejected=policy.rejected.detach())
        (sum(rpo_loss(policy, reference, beta=0.1, alpha=10)).sum() / pairs).backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("answers", [3, 8])
def test_the_gradient_of_a_question_with_all_its_pairs_is_that_of_pair_by_pair(root, answers):
    draw = random.Random(answers)
    pairs = [*a_question(draw, answers), *a_question(draw, 3)]
    pairs = [{**pair, "pair": number} for number, pair in enumerate(pairs)]
    model = load_base(root / "base", dtype="float32")
    model = load_adapters(model, {"default": root / "cpt"}, root / "base", trainable="default").double()
    together = gradient(model, [pairs], len(pairs))
    alone = gradient(model, [[pair] for pair in pairs], len(pairs))
    assert len(alone) == 2 * (2 * 2 + 1), "two matrices for each adapted layer"
    for name, one in alone.items():  # norms and logits are computed in float32 in a model of float64, too
        assert float((together[name] - one).norm() / one.norm()) < 1e-6, name


def test_the_head_in_tiles_gives_the_numbers_of_the_whole_logits(root):
    from medllm.training.reference import fuse_head

    model = load_base(root / "base", dtype="float32")
    fuse_head(model)
    pairs, _ = encode_pairs(read_pairs(root / "preferences", root / "cache"), load_tokenizer(root / "base"), 256)
    for shared in (True, False):
        batch = PairCollator(0, shared=shared)([pairs[number] for number in range(3)])
        for whole, tiled in zip(answer_logps(model, batch), answer_logps(model, batch, whole=False), strict=True):
            assert torch.allclose(whole.float(), tiled.float(), atol=1e-4)
