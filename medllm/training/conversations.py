"""Conversations as tokens: what the model is asked, and the assistant's turns, which alone are learnt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from medllm.errors import DataError
from medllm.exam.extract.reply import split_thinking
from medllm.recipe.servers import switches
from medllm.recipe.settings import Instructions
from medllm.weights.chat_template import ChatTemplate
from medllm.weights.load import TextTokens
from medllm.work_progress import counted

ROLES = ("system", "user", "assistant")
FORMS = ("messages", "conversations", "prompt", "completion")
"""The columns that hold a conversation: `messages`, `conversations` of ShareGPT, or `prompt` and `completion`."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Keys under which the messages of different publishers hold the assistant's thinking."""
SPEAKERS = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}
"""The roles of ShareGPT's rows."""
VALUES = "chat_template_kwargs"
Message = dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """One row: messages of which the assistant's are learnt, or a text and how it goes on."""

    place: str
    """File and row, for messages."""
    messages: tuple[Message, ...] = ()
    """`role` and `content` of each, of the assistant's also `reasoning_content`; none where the row is a text."""
    given: int = 0
    """The number of messages that are the prompt: of these none is learnt."""
    continued: tuple[str, str] | None = None
    """A text and how it goes on, of which the latter is learnt."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of the chat template for this row."""

    @property
    def text(self) -> str:
        """All words of the row, thinking included, as the audit reads them."""
        if self.continued:
            return "".join(self.continued)
        parts = [part for message in self.messages for part in (message.get("reasoning_content"), message["content"])]
        return "\n".join(part for part in parts if part)


def conversation_of(row: Mapping[str, Any], place: str, columns: Mapping[str, str] = {}) -> Conversation:
    """Read the conversation in a row, as TRL names its columns or as `columns` maps them.

    Raises DataError, with the place, for a row that is none.
    """
    given = {form: row.get(columns.get(form, form)) for form in FORMS}
    values = row.get(VALUES) or {}
    values = {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else {}
    prompt, completion = given["prompt"], given["completion"]
    if given["messages"] is not None:
        messages = _messages(given["messages"], place, columns.get("messages", "messages"))
    elif given["conversations"] is not None:
        messages = _messages(_of_sharegpt(given["conversations"]), place, "conversations")
    elif isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise _empty(place, columns.get("completion", "completion"))
        return Conversation(place, continued=(prompt, completion), values=values)
    elif prompt is not None and completion is not None:
        asked = _messages(prompt, place, columns.get("prompt", "prompt"))
        replied = _messages(completion, place, columns.get("completion", "completion"))
        _check(messages := (*asked, *replied), place)
        return Conversation(place, messages, len(asked), values=values)
    else:
        raise DataError(
            "training.no-conversation",
            f"{place}: the row has neither `messages` nor `prompt` and `completion`. There is: {', '.join(row)}. "
            "Rename the columns, or map them, as `columns: {prompt: instruction, completion: output}`.",
        )
    _check(messages, place)
    return Conversation(place, messages, values=values)


def _of_sharegpt(turns: object) -> object:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "from" in turn for turn in turns):
        return turns
    return [{"role": SPEAKERS.get(turn["from"], turn["from"]), "content": turn.get("value")} for turn in turns]


def _messages(value: object, place: str, column: str) -> tuple[Message, ...]:
    """Return the messages of a column, their thinking under one name whatever the publisher's."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise _no_messages(place, column)
    messages = []
    for turn in value:
        role, content = turn.get("role"), _text(turn.get("content"))
        if not isinstance(role, str) or content is None:
            raise _no_messages(place, column)
        thought = next((turn[name] for name in THOUGHTS if isinstance(turn.get(name), str) and turn[name].strip()), "")
        if role == "assistant" and not thought and "</think>" in content:
            thought, visible = split_thinking(content, thinks="<think>" not in content)
            content = (visible or "").strip()
        messages.append({"role": role, "content": content} | ({"reasoning_content": thought} if thought else {}))
    return tuple(messages)


def _text(content: object) -> str | None:
    """Return a message's content as a text, which some publishers write as a list of parts; None for pictures."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text") or "") for part in content)
    return content if isinstance(content, str) else None


def _no_messages(place: str, column: str) -> DataError:
    return DataError(
        "training.not-messages",
        f"{place}: `{column}` holds no messages. Write a list of `{{role, content}}`, both texts.",
    )


def _empty(place: str, what: str) -> DataError:
    return DataError("training.empty-message", f"{place}: {what} is empty. Write its text, or remove the row.")


def _check(messages: Sequence[Message], place: str) -> None:
    """Raise DataError for roles out of order, a message without content, or a conversation without an assistant."""
    before = ""
    for number, message in enumerate(messages, 1):
        role = message["role"]
        fault = ""
        if role not in ROLES:
            fault = f"is of `{role}`, and a conversation has {', '.join(ROLES)}"
        elif role == "system" and number > 1:
            fault = "is of the system, which speaks first or not at all"
        elif role == "assistant" and before in ("", "system"):
            fault = "is of the assistant, and no user has spoken before"
        elif role == "assistant" and before == "assistant":
            fault = "is of the assistant, as the one before it"
        if fault:
            raise DataError(
                "training.wrong-role", f"{place}: message {number} {fault}. Correct its `role`, or remove the row."
            )
        if not message["content"].strip():
            raise _empty(place, f"message {number} ({role})")
        before = role
    if all(message["role"] != "assistant" for message in messages):
        raise DataError(
            "training.no-assistant-turn",
            f"{place}: the assistant has no turn in this conversation, so there is nothing to learn. Add its reply, or "
            "remove the row.",
        )


@dataclass
class LearntTokens:
    """The account of conversations as rows of tokens."""

    conversations: int = 0
    trained: int = 0
    too_long: int = 0
    """Conversations that were left out, whole, because a row of theirs exceeds max_length."""
    longest: int = 0
    turns: int = 0
    """Assistant turns that are learnt, each once."""
    pieces: int = 0
    """Rows before packing: more than conversations where a template writes earlier turns in another way than last ones,
    so that a later turn has a row of its own."""
    tokens: int = 0
    learnt: int = 0
    """Tokens that are learnt."""

    def as_facts(self) -> dict[str, int]:
        """Plain numbers for the card."""
        values = asdict(self)
        return {**values, "tokens_learnt": values.pop("learnt")}

    def __str__(self) -> str:
        left = f", {self.too_long:,} are too long and left out" if self.too_long else ""
        return (
            f"{self.trained:,} conversations with {self.turns:,} turns of the assistant{left}; {self.tokens:,} tokens, "
            f"of which {self.learnt:,} are learnt"
        )


Piece = tuple[list[int], list[bool]]
"""The tokens of a row, and which of them are learnt."""


@dataclass(frozen=True)
class TurnWriter:
    """Writes conversations as tokens, the same that generation gives the model to read."""

    words: TextTokens
    end: int
    """The token that ends a text."""
    chat: ChatTemplate | None
    """None where rows are texts that go on."""
    settings: Instructions

    def pieces(self, conversation: Conversation) -> list[Piece]:
        """Return the rows of a conversation: one, or several where the template rewrites earlier turns.

        A turn is learnt after exactly the prompt that asks for it. The templates of Qwen3 and DeepSeek drop the
        thinking of earlier turns: what follows then is another text than the turns before it were learnt in.
        """
        if conversation.continued and self.settings.format != "chat":
            return [self._continued(*conversation.continued)]
        if self.chat is None:
            raise DataError(
                "training.conversations-as-text",
                f"{conversation.place}: the row is a conversation, and `format: completion` trains on texts. Write "
                "`auto` or `chat`, or give texts as `prompt` and `completion`.",
            )
        if conversation.continued:
            asked, replied = conversation.continued
            messages: Sequence[Message] = [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": replied},
            ]
        else:
            messages = conversation.messages
        given = conversation.given
        if self.settings.system_prompt and messages[0]["role"] != "system":
            messages, given = (
                [{"role": "system", "content": self.settings.system_prompt}, *messages],
                given + bool(given),
            )
        return self._turns(self.chat, messages, given, conversation)

    def _continued(self, prompt: str, completion: str) -> Piece:
        begun, whole = self.words.prompt(prompt), self.words.prompt(prompt + completion)
        if whole[: len(begun)] != begun:
            whole = [*begun, *self.words.continued(completion)]
        ids = [*whole, self.end]
        return ids, self._learnt(len(begun), len(ids))

    def _learnt(self, asked: int, length: int) -> list[bool]:
        if not self.settings.assistant_only_loss:
            return [True] * length
        return [False] * asked + [True] * (length - asked)

    def _turns(
        self, chat: ChatTemplate, messages: Sequence[Message], given: int, conversation: Conversation
    ) -> list[Piece]:
        pieces: list[Piece] = []
        for at, message in enumerate(messages):
            if message["role"] != "assistant" or at < given:
                continue
            thought = message.get("reasoning_content", "")
            values = {**self.settings.chat_template_kwargs, **conversation.values}
            chat.refuse_dropped_thinking(thought, {**switches(bool(thought)), **values}, conversation.place)
            prompt, reply = chat.turn(messages[:at], message["content"], thought, thinks=bool(thought), values=values)
            before, learnt = pieces[-1] if pieces else ([], [])
            if pieces and prompt[: len(before)] == before:
                pieces.pop()
            else:
                before, learnt = [], []
            ids = [*prompt, *reply]
            pieces.append((ids, [*learnt, *self._learnt(len(prompt) - len(before), len(ids) - len(before))]))
        return pieces


def writer_of(tokenizer: PreTrainedTokenizerBase, chat: ChatTemplate | None, settings: Instructions) -> TurnWriter:
    """Return the writer of a model's conversations, by its tokenizer and chat template."""
    return TurnWriter(TextTokens(tokenizer), int(tokenizer.eos_token_id), chat, settings)


def encode_conversations(
    conversations: Sequence[Conversation], writer: TurnWriter, max_length: int, place: str = "sft"
) -> tuple[Dataset, LearntTokens]:
    """Write conversations as rows (`input_ids`, `learnt`, `conversation`: its number among them), and their account.

    Raises DataError for one that is longer than `max_length`, unless these are to be left out, and where none is left.
    """
    tally = LearntTokens()
    columns: dict[str, list[Any]] = {"input_ids": [], "learnt": [], "conversation": []}
    for number, conversation in enumerate(counted(conversations, len(conversations), "conversations", "tokenizing")):
        pieces = writer.pieces(conversation)
        longest = max(len(ids) for ids, _ in pieces)
        tally.conversations += 1
        tally.longest = max(tally.longest, longest)
        if longest > max_length:
            if writer.settings.on_too_long == "stop":
                raise DataError(
                    "training.conversation-too-long",
                    f"{conversation.place}: the conversation has {longest:,} tokens, more than `max_length` "
                    f"{max_length:,}. Raise `max_length`, or leave such rows out with `on_too_long: drop`.",
                )
            tally.too_long += 1
            continue
        tally.trained += 1
        # The first token of a row is never predicted.
        tally.learnt += sum(sum(learnt[1:]) for _, learnt in pieces)
        tally.tokens += sum(len(ids) for ids, _ in pieces)
        tally.pieces += len(pieces)
        turns = [message for message in conversation.messages[conversation.given :] if message["role"] == "assistant"]
        tally.turns += len(turns) or 1
        columns["input_ids"] += [np.array(ids, np.int32) for ids, _ in pieces]
        columns["learnt"] += [np.array(learnt, np.bool_) for _, learnt in pieces]
        columns["conversation"] += [number] * len(pieces)
    if not tally.trained:
        raise DataError(
            "training.all-too-long",
            f"{place}: each of the {tally.conversations} conversations is longer than `max_length` "
            f"{max_length} (the longest: {tally.longest}). Raise `max_length`.",
        )
    return Dataset.from_dict(columns), tally


def fill_rows(pieces: Dataset, max_length: int, *, packing: bool) -> Dataset:
    """Fill rows with several pieces, or give each its own; `seq_lengths` has the length of each piece in a row."""
    from trl import pack_dataset

    pieces = pieces.select_columns(["input_ids", "learnt"])
    if packing:
        return pack_dataset(pieces, max_length, "bfd")  # every piece fits, so none is cut
    return pieces.map(lambda row: {"seq_lengths": [len(row["input_ids"])]}, desc="Counting")


def group_of(conversation: Conversation) -> str:
    """Name what no evaluation divides: conversations that ask the same first question."""
    if conversation.continued:
        return conversation.continued[0]
    asked = next(message["content"] for message in conversation.messages if message["role"] == "user")
    return json.dumps(asked, ensure_ascii=False)
