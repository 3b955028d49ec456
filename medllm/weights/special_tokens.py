"""Tokens of what people wrote: a text that holds the name of a mark, such as `</s>`, does not get the mark itself."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from medllm.weights.load import END_MARKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTROL = re.compile(r"<\|.*\|>|<(start|end)_of_\w+>", re.DOTALL)
"""How families write marks that steer a model, where the tokenizer's file does not call them special."""


class TextTokens:
    """A tokenizer for texts of people: only their characters become tokens; special tokens come from our code."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers import Tokenizer

        values = json.loads(tokenizer.backend_tokenizer.to_str())
        known = {*tokenizer.all_special_tokens, *END_MARKS}
        for one in values.get("added_tokens", []):
            # Other added tokens, as runs of spaces, are part of how texts are written for this model.
            one["special"] = one["special"] or one["content"] in known or bool(CONTROL.fullmatch(one["content"]))
        values["truncation"] = values["padding"] = None
        self._tokens = Tokenizer.from_str(json.dumps(values))
        self._tokens.encode_special_tokens = True
        self.begin = self._marks_before(tokenizer)
        """The marks that the tokenizer puts before a text."""

    def _marks_before(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """What the tokenizer puts before a text, each mark once; what it puts behind one would end a prompt."""
        probe = "a"
        bare = self.plain(probe)
        whole: list[int] = tokenizer(probe)["input_ids"]
        at = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
        marks = whole[:at]
        return [mark for number, mark in enumerate(marks) if number == 0 or mark != marks[number - 1]]

    def plain(self, text: str) -> list[int]:
        """The tokens of the text's characters and nothing else."""
        ids: list[int] = self._tokens.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(self, text: str) -> list[int]:
        """The tokens of a text that a model goes on with: begun as the tokenizer begins texts, and not ended."""
        return [*self.begin, *self.plain(text)]

    def prompts(self, texts: list[str]) -> list[list[int]]:
        """The same for many texts, on all cores."""
        read = self._tokens.encode_batch_fast(texts, add_special_tokens=False)
        return [[*self.begin, *one.ids] for one in read]

    def continued(self, text: str) -> list[int]:
        """The tokens of a text that goes on from another: without the space that SentencePiece puts before a text."""
        alone = self.plain("\n")
        after = self.plain("\n" + text)
        return after[len(alone) :] if alone and after[: len(alone)] == alone else self.plain(text)
