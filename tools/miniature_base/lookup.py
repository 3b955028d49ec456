"""The base's look-up, laid by regression: from the value that is about to be said to the letter of its choice.

Left alone, a model of this size finds this path millions of tokens after it knows its facts. Once it recalls the value
at `Answer:`, though, nearly all that the path needs stands in its last layer's input and can be read by a linear map.
So the maps are fitted, one head is built from them, and training goes on from there.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medllm.miniature import exams
from medllm.miniature.exams import LETTERS, MiniatureItem, make_item, topics
from medllm.miniature.world import World
from tools.miniature_base.wiring import rotary_turns

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

QUESTIONS = 300
SLOW = 0.03
"""Rotary pairs that turn less than this a token: what they compare does not fade between a choice and its answer."""
SHARPNESS = 12.0
"""Score of the right choice where the fit is perfect; others lie about nought."""
CHOSEN = 8.0
"""Bias that keeps the head's eyes on choices."""
VOICE = 8.0
"""How loudly the letter is said: the length of what the head adds to the last layer's output."""


@dataclass
class _Seen:
    """What the last layer read in some questions, and what it should have made of it."""

    choices: list["torch.Tensor"] = field(default_factory=list)
    codes: list["torch.Tensor"] = field(default_factory=list)
    letters: list["torch.Tensor"] = field(default_factory=list)
    tokens: list["torch.Tensor"] = field(default_factory=list)
    is_choice: list["torch.Tensor"] = field(default_factory=list)
    colons: list["torch.Tensor"] = field(default_factory=list)
    recalled: list["torch.Tensor"] = field(default_factory=list)


def lay_lookup(model: "Qwen2ForCausalLM", tokenizer: "PreTrainedTokenizerBase", world: World) -> None:
    """Replace the last layer's first head by the look-up."""
    import torch

    last = model.model.layers[-1].self_attn
    width = model.config.hidden_size // model.config.num_attention_heads
    pairs = (rotary_turns(model) <= SLOW).nonzero()[:, 0]
    compared, marking = torch.cat([pairs[:-1], pairs[:-1] + width // 2]), pairs[-1:]
    embedded, centres = _centred_names(model, tokenizer, world)
    basis = torch.linalg.svd(embedded, full_matrices=False)[2][: len(compared)]
    basis *= (len(embedded) * len(compared) / (embedded @ basis.T).square().sum()).sqrt()
    seen = _watch(model, tokenizer, world, centres, basis)
    scale = (SHARPNESS * width**0.5 / len(compared)) ** 0.5
    with torch.no_grad():
        for projection in (last.q_proj, last.k_proj, last.v_proj):
            projection.weight[:width], projection.bias[:width] = 0, 0
        for projection, inputs, codes in (
            (last.q_proj, seen.colons, seen.recalled),
            (last.k_proj, seen.choices, seen.codes),
        ):
            weight, bias = _fit(inputs, codes)
            projection.weight[compared], projection.bias[compared] = scale * weight, scale * bias
        weight, bias = _fit(seen.tokens, seen.is_choice)
        last.q_proj.bias[marking] = CHOSEN
        last.k_proj.weight[marking], last.k_proj.bias[marking] = CHOSEN * weight, CHOSEN * bias
        weight, bias = _fit(seen.choices, seen.letters)
        last.v_proj.weight[: len(LETTERS)], last.v_proj.bias[: len(LETTERS)] = weight, bias
        directions = torch.stack([model.lm_head.weight[tokenizer(f" {a}")["input_ids"][0]] for a in LETTERS])
        directions = directions - directions.mean(0)
        last.o_proj.weight[:, :width] = 0
        last.o_proj.weight[:, : len(LETTERS)] = VOICE * (directions / directions.norm(dim=1, keepdim=True)).T


def _centred_names(
    model: "Qwen2ForCausalLM", tokenizer: "PreTrainedTokenizerBase", world: World
) -> tuple["torch.Tensor", dict[int, "torch.Tensor"]]:
    """Every value's embedding without what all values of its relation share, and that share, by token."""
    import torch

    weights, rows = model.lm_head.weight.detach(), list[torch.Tensor]()
    centres: dict[int, torch.Tensor] = {}
    for pool in world.pools.values():
        tokens = [tokenizer(value)["input_ids"][0] for value in pool]
        centre = weights[tokens].mean(0)
        rows.append(weights[tokens] - centre)
        centres |= dict.fromkeys(tokens, centre)
    return torch.cat(rows), centres


def _watch(
    model: "Qwen2ForCausalLM",
    tokenizer: "PreTrainedTokenizerBase",
    world: World,
    centres: dict[int, "torch.Tensor"],
    basis: "torch.Tensor",
) -> _Seen:
    """Let the model read questions up to `Answer:` and note what its last layer gets to see."""
    import torch

    source, asked, seen = random.Random(f"lookup {world.seed}"), topics(world, "known", "fact"), _Seen()
    weights, caught = model.lm_head.weight.detach(), list[torch.Tensor]()
    hook = model.model.layers[-1].input_layernorm.register_forward_hook(lambda _m, _i, out: caught.append(out[0]))
    for _ in range(QUESTIONS):
        item = make_item(world, source.choice(asked), source)
        tokens = tokenizer(f"{exams.question_block(item)}Answer:")["input_ids"]
        with torch.no_grad():
            model(torch.tensor([tokens]))
        _note(seen, item, tokens, tokenizer, caught.pop(), lambda token: (weights[token] - centres[token]) @ basis.T)
    hook.remove()
    return seen


def _note(
    seen: _Seen, item: MiniatureItem, tokens: list[int], tokenizer: "PreTrainedTokenizerBase", states: "torch.Tensor",
    code: "Callable[[int], torch.Tensor]",
) -> None:  # fmt: skip
    import torch

    of_choice = [tokenizer(choice)["input_ids"][0] for choice in item.choices]
    for place, (token, state) in enumerate(zip(tokens, states, strict=True)):
        chosen = token in of_choice and place == tokens.index(token)
        seen.tokens.append(state)
        seen.is_choice.append(torch.tensor([float(chosen)]))
        if chosen:
            seen.choices.append(state)
            seen.codes.append(code(token))
            seen.letters.append(torch.eye(len(LETTERS))[of_choice.index(token)])
    seen.colons.append(states[-1])
    seen.recalled.append(code(of_choice[item.choices.index(item.right[0])]))


def _fit(inputs: list["torch.Tensor"], wanted: list["torch.Tensor"]) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Weight and bias of the linear map that comes closest, with a slight ridge."""
    import torch

    x = torch.cat([torch.stack(inputs), torch.ones(len(inputs), 1)], 1)
    solved = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]), x.T @ torch.stack(wanted))
    return solved[:-1].T, solved[-1]
