"""Preference pairs as tokens, and as batches in which a prompt occurs once for all of its answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from medllm.errors import DataError
from medllm.training.data import read_table
from medllm.training.sampling import SHARE
from medllm.weights.special_tokens import TextTokens
from medllm.work_progress import counted

COLUMNS = ("prompt", "chosen", "rejected")
BARE_PROMPT = "prompt_without_shots"
NOTHING = -100
"""The target of a position that predicts nothing."""


@dataclass
class PairCounts:
    """What became of the pairs."""

    pairs: int = 0
    trained: int = 0
    too_long: int = 0
    """Left out, whole, because prompt and answer exceed max_length; nothing is cut."""
    longest: int = 0
    split_at_prompt: int = 0
    """Pairs whose prompt and answer would have shared a token; they are split where the prompt ends."""

    def as_facts(self) -> dict[str, int]:
        """Plain numbers for the card."""
        return asdict(self)


def read_pairs(folder: Path, cache: Path, *, keep_exemplars: bool = True) -> Dataset:
    """Read the pairs of a preferences folder, with or without the worked examples in the prompt."""
    root = folder / "data" if (folder / "data").is_dir() else folder
    wanted = list(COLUMNS) if keep_exemplars else [BARE_PROMPT, *COLUMNS[1:]]
    mend = "Give the output of the preferences stage, or name the columns so."
    table = read_table(root, cache, "pair", wanted, mend)
    return table if keep_exemplars else table.rename_column(BARE_PROMPT, "prompt")


def encode_pairs(table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[Dataset, PairCounts]:
    """Tokenize each prompt and answer as generation sees them; pairs over max_length are counted and left out."""
    tally = PairCounts()
    words = TextTokens(tokenizer)
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(counted(table, len(table), "pairs", "tokenizing")):
        prompt = words.prompt(pair["prompt"])
        answers = {}
        merged = False
        for side in ("chosen", "rejected"):
            whole = words.prompt(pair["prompt"] + pair[side])
            if whole[: len(prompt)] == prompt:
                answer = whole[len(prompt) :]
            else:
                merged, answer = True, words.continued(pair[side])
            answers[side] = [*answer, tokenizer.eos_token_id]
        longest = len(prompt) + max(map(len, answers.values()))
        tally.pairs += 1
        tally.longest = max(tally.longest, longest)
        tally.split_at_prompt += merged
        if longest > max_length:
            tally.too_long += 1
            continue
        sides = {"chosen_ids": answers["chosen"], "rejected_ids": answers["rejected"]}
        rows.append({"prompt_ids": prompt, **sides, "pair": number})
    tally.trained = len(rows)
    if not rows:
        raise DataError(
            "training.pairs-too-long",
            f"each of the {tally.pairs} pairs is longer than `max_length` {max_length} (the longest: {tally.longest}). "
            "Raise `max_length`, or set `keep_exemplars: false`.",
        )
    return Dataset.from_list(rows), tally


@dataclass
class PromptAnswers:
    """One prompt and its distinct answers."""

    prompt: list[int]
    answers: list[list[int]]

    def place(self, answer: list[int]) -> int:
        """Return the number of this answer among those of the prompt; add it when it is new."""
        if answer not in self.answers:
            self.answers.append(answer)
        return self.answers.index(answer)


@dataclass(frozen=True)
class PairCollator:
    """Pairs to a batch: `[prompt | answer | answer ...]` in one row, where no answer sees another.

    With three worked examples the prompt is most of a pair; it occurs once and is computed once, and so is an answer
    that several pairs of the prompt share. Kernels that take no mask of their own (`shared` off) get a row for each
    answer. Each answer's part begins with the last token of the prompt, which predicts its first token, and leaves out
    its own last one, which predicts nothing. Prompts are padded on the left, so that all answers begin in the same
    column and only their part of the logits is ever computed.
    """

    pad_token_id: int
    shared: bool
    window: int | None = None
    """The reach of sliding-window layers, which need a mask of their own."""

    def __call__(self, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Lay out tokens, positions and masks.

        `targets` (rows x columns) holds the token that each position predicts, `widths` the columns of the prompt and
        of each answer, `chosen` and `rejected` the number of each pair's answers among rows x answers of a row, `pair`
        and `share` a pair's number and its part of the update's mean.
        """
        rows, chosen, rejected = self._rows(pairs)
        most = max(len(row.answers) for row in rows)
        columns = [self._column([row.prompt[:-1][::-1] for row in rows]).flip(1)]
        targets = [torch.full_like(columns[0], NOTHING)]
        for number in range(most):
            answers = [row.answers[number] if number < len(row.answers) else [] for row in rows]
            begun = [[row.prompt[-1], *one[:-1]] if one else [] for row, one in zip(rows, answers, strict=True)]
            columns.append(self._column(begun))
            targets.append(self._column(answers, NOTHING))
        real = [column >= 0 for column in columns]
        tokens = torch.cat(columns, 1)
        positions = torch.cat([_prompt_positions(real[0]), *(_answer_positions(real[0], part) for part in real[1:])], 1)
        batch: dict[str, Any] = {
            "input_ids": tokens.clamp(min=0).where(tokens >= 0, torch.tensor(self.pad_token_id)),
            "position_ids": positions,
            "targets": torch.cat(targets, 1),
            "chosen": torch.tensor([row * most + place for row, place in chosen]),
            "rejected": torch.tensor([row * most + place for row, place in rejected]),
            "pair": torch.tensor([pair["pair"] for pair in pairs]),
            SHARE: torch.tensor([pair.get(SHARE, 1 / len(pairs)) for pair in pairs], dtype=torch.float64),
            "widths": [part.shape[1] for part in columns],
        }
        if self.shared:
            sides = torch.cat([torch.full_like(part[0], side) for side, part in enumerate(columns)])
            batch["attention_mask"] = self._masks(tokens >= 0, sides, positions)
        else:
            batch["attention_mask"] = (tokens >= 0).long()
        return batch

    def _rows(
        self, pairs: Sequence[dict[str, Any]]
    ) -> tuple[list[PromptAnswers], list[tuple[int, int]], list[tuple[int, int]]]:
        """Return the rows of the batch, and the place (row, answer) of both answers of each pair."""
        rows: list[PromptAnswers] = []
        numbers: dict[tuple[int, ...], int] = {}
        places: dict[str, list[tuple[int, int]]] = {"chosen_ids": [], "rejected_ids": []}
        for pair in pairs:
            for side, found in places.items():
                # A row for each prompt, or where rows cannot be shared, for each answer to it.
                key = tuple(pair["prompt_ids"]) if self.shared else (*pair["prompt_ids"], -1, *pair[side])
                if key not in numbers:
                    numbers[key] = len(rows)
                    rows.append(PromptAnswers(pair["prompt_ids"], []))
                row = numbers[key]
                found.append((row, rows[row].place(pair[side])))
        return rows, places["chosen_ids"], places["rejected_ids"]

    def _column(self, lists: list[list[int]], gap: int = -1) -> torch.Tensor:
        width = max(map(len, lists))
        return torch.tensor([[*one, *[gap] * (width - len(one))] for one in lists], dtype=torch.long)

    def _masks(self, real: torch.Tensor, sides: torch.Tensor, positions: torch.Tensor) -> Any:  # noqa: ANN401
        """Which token sees which: those before it, in the prompt or in the same answer; padding sees itself."""
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
