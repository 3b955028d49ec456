"""Preference pairs as tokens, and as batches in which the prompt of a pair stands once for both of its answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from medllm.errors import DataError
from medllm.training.tables import read_table

COLUMNS = ("prompt", "chosen", "rejected")
BARE_PROMPT = "prompt_without_shots"


@dataclass
class PairTally:
    """What became of the pairs."""

    pairs: int = 0
    trained: int = 0
    too_long: int = 0
    """Left out, whole, because prompt and answer exceed max_length; nothing is cut."""
    longest: int = 0
    merged_boundary: int = 0
    """Pairs whose prompt and answer would have shared a token; they are split where the prompt ends."""

    def as_facts(self) -> dict[str, int]:
        """Plain numbers for the card."""
        return asdict(self)


def read_pairs(folder: Path, shots: str, cache: Path) -> Dataset:
    """Read the pairs of a preferences folder, with or without the worked examples in the prompt."""
    root = folder / "data" if (folder / "data").is_dir() else folder
    table = read_table(root, cache, "pair")
    wanted = list(COLUMNS) if shots == "keep" else [BARE_PROMPT, *COLUMNS[1:]]
    missing = [column for column in wanted if column not in table.column_names]
    if missing:
        raise DataError(
            f"{root}: no column {', '.join(f'`{m}`' for m in missing)}. There is: {', '.join(table.column_names)}. "
            "Give the output of the preferences stage, or name the columns so."
        )
    table = table.select_columns(wanted)
    return table.rename_column(BARE_PROMPT, "prompt") if shots == "drop" else table


def encode_pairs(table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[Dataset, PairTally]:
    """Tokenize each prompt and answer as generation sees them; pairs over max_length are counted and left out."""
    tally = PairTally()
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(table):
        prompt = tokenizer(pair["prompt"])["input_ids"]
        answers = {}
        merged = False
        for side in ("chosen", "rejected"):
            whole = tokenizer(pair["prompt"] + pair[side])["input_ids"]
            if whole[: len(prompt)] == prompt:
                answer = whole[len(prompt) :]
            else:
                merged, answer = True, tokenizer(pair[side], add_special_tokens=False)["input_ids"]
            answers[side] = answer if answer[-1:] == [tokenizer.eos_token_id] else [*answer, tokenizer.eos_token_id]
        longest = len(prompt) + max(map(len, answers.values()))
        tally.pairs += 1
        tally.longest = max(tally.longest, longest)
        tally.merged_boundary += merged
        if longest > max_length:
            tally.too_long += 1
            continue
        rows.append(
            {"prompt_ids": prompt, "chosen_ids": answers["chosen"], "rejected_ids": answers["rejected"], "pair": number}
        )
    tally.trained = len(rows)
    if not rows:
        raise DataError(
            f"every one of {tally.pairs} pairs is longer than max_length {max_length} (the longest: {tally.longest}). "
            "Raise `max_length`, or set `shots: drop`."
        )
    return Dataset.from_list(rows), tally


@dataclass(frozen=True)
class PairCollator:
    """Pairs to a batch: `[prompt | chosen | rejected]` in one row, where neither answer sees the other.

    With three worked examples the prompt is most of a pair; standing once it is computed once. Kernels that take no
    mask of their own (`shared` off) get the usual two rows. Prompts are padded on the left, so that all answers begin
    in the same column and only their part of the logits is ever computed.
    """

    pad_token_id: int
    shared: bool
    window: int | None = None
    """The reach of sliding-window layers, which need a mask of their own."""

    def __call__(self, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Lay out tokens, positions, masks and the places of both answers."""
        prompts = [pair["prompt_ids"] for pair in pairs]
        chosen = [pair["chosen_ids"] for pair in pairs]
        rejected = [pair["rejected_ids"] for pair in pairs]
        numbers = torch.tensor([pair["pair"] for pair in pairs])
        start = max(map(len, prompts))
        answers = [chosen, rejected] if self.shared else [[*chosen, *rejected]]
        prompts = prompts if self.shared else [*prompts, *prompts]
        ids = [self._column([p[::-1] for p in prompts]).flip(1), *(self._column(part) for part in answers)]
        real = [column >= 0 for column in ids]
        tokens = torch.cat(ids, 1)
        positions = torch.cat([_prompt_positions(real[0]), *(_answer_positions(real[0], r) for r in real[1:])], 1)
        batch: dict[str, Any] = {
            "input_ids": tokens.clamp(min=0).where(tokens >= 0, torch.tensor(self.pad_token_id)),
            "position_ids": positions,
            "answers": tokens.where(tokens >= 0, torch.tensor(-100))[:, start:],
            "pair": numbers,
        }
        if self.shared:
            sides = torch.cat([torch.full_like(part[0], side) for side, part in enumerate(ids)])
            batch["attention_mask"] = self._masks(tokens >= 0, sides, positions)
        else:
            batch["attention_mask"] = (tokens >= 0).long()
        batch["widths"] = torch.tensor([part.shape[1] for part in ids])
        return batch

    def _column(self, lists: list[list[int]]) -> torch.Tensor:
        width = max(map(len, lists))
        return torch.tensor([[*one, *[-1] * (width - len(one))] for one in lists])

    def _masks(self, real: torch.Tensor, sides: torch.Tensor, positions: torch.Tensor) -> Any:  # noqa: ANN401
        """Who sees whom: what came before, in the prompt or in the same answer; padding sees itself."""
        length = real.shape[1]
        before = torch.ones(length, length, dtype=torch.bool).tril()
        related = (sides[None, :] == 0) | (sides[:, None] == sides[None, :])
        full = (before & related)[None] & real[:, None, :] & real[:, :, None]
        full |= torch.eye(length, dtype=torch.bool)[None]
        if self.window is None:
            return full[:, None]
        near = positions[:, :, None] - positions[:, None, :] < self.window
        return {"full_attention": full[:, None], "sliding_attention": (full & near)[:, None]}


def _prompt_positions(real: torch.Tensor) -> torch.Tensor:
    return (real.long().cumsum(1) - 1).clamp(min=0)


def _answer_positions(prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    return prompt.sum(1, keepdim=True) + torch.arange(answer.shape[1])
