"""Preference pairs as tokens and as batches, in which each prompt and each answer occurs once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from medllm.errors import DataError
from medllm.training.data import holds_conversations, messages_of, read_table
from medllm.training.updates import SHARE
from medllm.weights.chat_template import ChatTemplate
from medllm.weights.load import TextTokens
from medllm.work_progress import counted

COLUMNS = ("prompt", "chosen", "rejected")
BARE_PROMPT = "prompt_without_shots"
OF_QUESTION = ("benchmark", "question_id")
"""The columns that name the question of a pair; pairs of other people may have none."""
VALUES = "chat_template_kwargs"
"""The column with the values of the chat template; it is there where pairs are conversations."""
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
    """Read the pairs of a preferences folder, with or without the worked examples in the prompt.

    Conversations are read as JSON, with a column of the values that their chat template takes.
    """
    root = folder / "data" if (folder / "data").is_dir() else folder
    wanted = list(COLUMNS) if keep_exemplars else [BARE_PROMPT, *COLUMNS[1:]]
    mend = "Give the output of the preferences stage, or name the columns so."
    talks = (*wanted, VALUES) if holds_conversations(root, wanted[0]) else ()
    table = read_table(root, cache, "pair", wanted, mend, talks=talks)
    return table if keep_exemplars else table.rename_column(BARE_PROMPT, "prompt")


def question_names(folder: Path, cache: Path) -> list[str]:
    """Name the question of each pair of a preferences folder: by exam and number, else by its prompt as it is alone."""
    root = folder / "data" if (folder / "data").is_dir() else folder
    mend = "Give the output of the preferences stage, or name the columns so."
    talks = (*OF_QUESTION, BARE_PROMPT, *(["prompt"] if holds_conversations(root, "prompt") else []))
    table = read_table(root, cache, "pair", ["prompt"], mend, talks=talks)
    return [
        f"{row['benchmark']} {row['question_id']}"
        if row["question_id"].strip('"')
        else row[BARE_PROMPT] or row["prompt"]
        for row in table
    ]


def encode_pairs(
    table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, chat: ChatTemplate | None = None
) -> tuple[Dataset, PairCounts]:
    """Tokenize each prompt and answer as generation sees them; pairs over max_length are counted and left out.

    With `chat` a pair is a conversation: its messages, or a text as what the user writes.
    """
    tally = PairCounts()
    words = TextTokens(tokenizer)
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(counted(table, len(table), "pairs", "tokenizing")):
        if chat is None:
            prompt, chosen, rejected = _of_texts(pair, words, tokenizer.eos_token_id, tally)
        else:
            prompt, chosen, rejected = _of_messages(pair, chat, f"pair {number + 1}")
        longest = len(prompt) + max(len(chosen), len(rejected))
        tally.pairs += 1
        tally.longest = max(tally.longest, longest)
        if longest > max_length:
            tally.too_long += 1
            continue
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "pair": number})
    tally.trained = len(rows)
    if not rows:
        raise DataError(
            "training.pairs-too-long",
            f"each of the {tally.pairs} pairs is longer than `max_length` {max_length} (the longest: {tally.longest}). "
            "Raise `max_length`, or set `keep_exemplars: false`.",
        )
    return Dataset.from_list(rows), tally


Tokens = tuple[list[int], list[int], list[int]]
"""Prompt, chosen and rejected answer."""


def _of_texts(pair: Mapping[str, str], words: TextTokens, end: int, tally: PairCounts) -> Tokens:
    prompt = words.prompt(pair["prompt"])
    answers = []
    merged = False
    for side in ("chosen", "rejected"):
        whole = words.prompt(pair["prompt"] + pair[side])
        if whole[: len(prompt)] == prompt:
            answer = whole[len(prompt) :]
        else:
            merged, answer = True, words.continued(pair[side])
        answers.append([*answer, end])
    tally.split_at_prompt += merged
    return prompt, answers[0], answers[1]


def _of_messages(pair: Mapping[str, str], chat: ChatTemplate, place: str) -> Tokens:
    if VALUES not in pair:
        asked = [{"role": "user", "content": pair["prompt"]}]
        chosen, rejected = (chat.reply(asked, pair[side]) for side in ("chosen", "rejected"))
        return chat.prompt(asked), chosen, rejected
    values = json.loads(pair[VALUES] or "null") or {}
    messages = messages_of(pair["prompt"], place, "prompt")
    sides = []
    for side in ("chosen", "rejected"):
        conversation = messages_of(pair[side], place, side)
        if len(conversation) != 1 or conversation[0]["role"] != "assistant":
            raise DataError(
                "training.not-one-reply",
                f"{place}: `{side}` is not one message of the assistant. Put the messages before it into `prompt`.",
            )
        chat.refuse_dropped_thinking(thought := conversation[0].get("reasoning_content") or "", values, place)
        sides.append(chat.reply(messages, conversation[0]["content"], thought, values=values))
    return chat.prompt(messages, values=values), sides[0], sides[1]


@dataclass
class PromptAnswers:
    """One prompt and its distinct answers."""

    prompt: list[int]
    answers: list[list[int]]
    targets: list[list[int]]
    """What is learnt of each answer: its tokens, or NOTHING in the place of those that are only read."""

    def place(self, answer: list[int], target: list[int]) -> int:
        """Return the number of this answer among those of the prompt; add it when it is new."""
        for number, known in enumerate(zip(self.answers, self.targets, strict=True)):
            if known == (answer, target):
                return number
        self.answers.append(answer)
        self.targets.append(target)
        return len(self.answers) - 1


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
    mixed: bool = True
    """Whether other layers see the whole row; off, all layers have the window, and one mask."""
    aligned: bool = True
    """Off: rows are padded at their end alone, for models that padding before a text changes."""

    @property
    def layout(self) -> str:
        """The name of the layout."""
        return "one row" if self.shared else "two rows" if self.aligned else "two rows, padded at the end"

    def __call__(self, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Lay out tokens, positions and masks.

        `targets` (rows x columns) holds the token that each position predicts, `widths` the columns of the prompt and
        of each answer, `chosen` and `rejected` the number of each pair's answers among rows x answers of a row, `pair`
        and `share` a pair's number and its part of the update's mean.
        """
        rows, chosen, rejected = self._rows(pairs)
        most = max(len(row.answers) for row in rows)
        own = 1 if self.aligned else max(len(row.prompt) for row in rows)  # tokens of the prompt before an answer
        columns = [self._column([row.prompt[:-own][::-1] for row in rows]).flip(1)]
        targets = [torch.full_like(columns[0], NOTHING)]
        for number in range(most):
            answers = [row.answers[number] if number < len(row.answers) else [] for row in rows]
            begun = [[*row.prompt[-own:], *ids[:-1]] if ids else [] for row, ids in zip(rows, answers, strict=True)]
            columns.append(self._column(begun))
            goals = [row.targets[number] if number < len(row.targets) else [] for row in rows]
            learnt = [[NOTHING] * (len(row.prompt[-own:]) - 1) + ids for row, ids in zip(rows, goals, strict=True)]
            targets.append(self._column(learnt, NOTHING))
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
        sides = torch.cat([torch.full_like(part[0], side) for side, part in enumerate(columns)])
        mask = self._masks(tokens >= 0, sides, positions) if self.shared else (tokens >= 0).long()
        return batch | {"attention_mask": mask}

    def _rows(
        self, pairs: Sequence[dict[str, Any]]
    ) -> tuple[list[PromptAnswers], list[tuple[int, int]], list[tuple[int, int]]]:
        """Return the rows of the batch, and the place (row, answer) of both answers of each pair."""
        rows: list[PromptAnswers] = []
        numbers: dict[tuple[int, ...], int] = {}
        places: dict[str, list[tuple[int, int]]] = {"chosen_ids": [], "rejected_ids": []}
        for pair in pairs:
            for side, positions in places.items():
                # A row for each prompt, or where rows cannot be shared, for each answer to it.
                key = tuple(pair["prompt_ids"]) if self.shared else (*pair["prompt_ids"], -1, *pair[side])
                if key not in numbers:
                    numbers[key] = len(rows)
                    rows.append(PromptAnswers(pair["prompt_ids"], [], []))
                row = numbers[key]
                positions.append((row, rows[row].place(pair[side], _target(pair, side))))
        return rows, places["chosen_ids"], places["rejected_ids"]

    def _column(self, lists: list[list[int]], gap: int = -1) -> torch.Tensor:
        width = max(map(len, lists))
        return torch.tensor([[*tokens, *[gap] * (width - len(tokens))] for tokens in lists], dtype=torch.long)

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
        sliding = (full & near)[:, None]
        return {"full_attention": full[:, None], "sliding_attention": sliding} if self.mixed else sliding


def _target(pair: dict[str, Any], side: str) -> list[int]:
    """What is learnt of an answer; a conversation's later questions are only read."""
    if "learnt" not in pair:
        return list(pair[side])
    return [token if learnt else NOTHING for token, learnt in zip(pair[side], pair["learnt"], strict=True)]


def conversations_as_pairs(pieces: Dataset) -> Dataset:
    """Lay out rows of conversations as a batch of pairs takes them: a prompt, and one answer that is both sides.

    The answer reaches from the first learnt token to the last one. `pair` is -1: no reference belongs to them.
    """
    columns: dict[str, list[Any]] = {
        name: [] for name in ("prompt_ids", "chosen_ids", "rejected_ids", "learnt", "pair")
    }
    for piece in pieces:
        ids, learnt = piece["input_ids"], piece["learnt"]
        begin = max(1, learnt.index(True))
        end = len(learnt) - learnt[::-1].index(True)
        columns["prompt_ids"].append(ids[:begin])
        columns["chosen_ids"].append(ids[begin:end])
        columns["rejected_ids"].append(ids[begin:end])
        columns["learnt"].append(learnt[begin:end])
        columns["pair"].append(-1)
    return Dataset.from_dict(columns)


def _prompt_positions(real: torch.Tensor) -> torch.Tensor:
    return (real.long().cumsum(1) - 1).clamp(min=0)


def _answer_positions(prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    return prompt.sum(1, keepdim=True) + torch.arange(answer.shape[1])
