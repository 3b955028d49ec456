"""Conversations as tokens, by a model's own chat template: what a model is asked with is what it is trained with.

The template alone writes marks such as `<|im_end|>`; a mark that is named in a question, a system prompt or a reply
stays text (`sanitize_control_tokens` of transformers). Templates run in transformers' sandbox.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medllm.errors import ModelError
from medllm.exam.extract.reply import split_thinking
from medllm.recipe.servers import switches
from medllm.weights.adapter import is_adapter
from medllm.weights.load import TextTokens, end_marks
from medllm.weights.loadable import has_tokenizer, templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
PLAIN = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""The template that is written for a base without one: the conversation as plain text, the form it was trained on."""
DAY = date(2026, 1, 1)
"""What a template that prints today's date prints here, so that a prompt has the same tokens on every day."""
_TODAY = re.compile(r"strftime_now\(\s*(['\"])(?P<form>.+?)\1")
_THINKING = ("<think>\n", "\n</think>\n\n")
_ASKED, _REPLIED, _SYSTEM, _THOUGHT = "QuestionProbe", "ReplyProbe", "SystemProbe", "ThoughtProbe"


def own_template(folder: Path) -> str | None:
    """Read the chat template that a model's publisher wrote; None where there is none, or only our plain one."""
    named = {name: text for _, name, text in templates(folder)}
    text = named.get("default")
    return None if text is None or text.endswith(PLAIN) else text


def template_of(folder: Path, base: Path | None) -> str | None:
    """Return the chat template of a model, or else that of the base below an adapter; None where there is none."""
    own = own_template(folder)
    return own_template(base) if own is None and base is not None and is_adapter(folder) else own


def no_template(name: str, folder: Path) -> ModelError:
    """Return the error of a model that is to be asked by chat and has no chat template, to be raised or listed."""
    return ModelError(
        "generation.no-chat-template",
        f"{name}: {folder} has no chat template, and `format: chat` needs one. Give one: `chat_template: ./FILE.jinja` "
        'in a recipe, `--chat-template FILE` of `medllm evaluate`, `"chat_template": "FILE"` of live models. Or write '
        "`format: completion`, or `auto`.",
    )


def plain_template(tokenizer: PreTrainedTokenizerBase, begin: Sequence[int]) -> str:
    """Write the template for a base without one; it begins with the marks that the tokenizer puts before a text.

    A server adds none to what a template has written, and the model has learnt with them.
    """
    bos = tokenizer.bos_token_id
    marks = "".join("{{ bos_token }}" if char == bos else tokenizer.convert_ids_to_tokens(char) for char in begin)
    return marks + PLAIN


def begun_template(tokenizer: PreTrainedTokenizerBase, text: str, name: str) -> str:
    """Return a template that somebody wrote for a model without one, begun as the tokenizer begins a text.

    A template that writes these marks itself stays as it is.
    """
    begin = TextTokens(tokenizer).begin
    if ChatTemplate(tokenizer, text, name).prompt([_user(_ASKED)])[: len(begin)] == begin:
        return text
    return plain_template(tokenizer, begin).removesuffix(PLAIN) + text


@lru_cache(maxsize=8)
def given_template(folder: Path, base: Path | None, text: str) -> str:
    """Return a recipe's template for a model in a folder, or on a base, whose tokenizer decides how it begins."""
    from medllm.weights.load import load_tokenizer

    place = folder if base is None or has_tokenizer(folder) else base
    return begun_template(load_tokenizer(place), text, "chat_template")


@lru_cache(maxsize=8)
def open_template(folder: Path, base: Path | None, text: str, name: str) -> ChatTemplate:
    """Return a template with the tokenizer of the model in a folder, or of the base below it."""
    from medllm.weights.load import load_tokenizer

    return ChatTemplate(load_tokenizer(folder if base is None or has_tokenizer(folder) else base), text, name)


class ChatTemplate:
    """One model's chat template with its tokenizer.

    Raises ModelError where the template fails, or does not write the question.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str, name: str) -> None:
        self.tokenizer, self.name = tokenizer, name
        self.text = _on_fixed_day(text)
        self._words = TextTokens(tokenizer)
        special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._controls = special | set(end_marks(tokenizer))
        names = sorted(filter(None, map(str, tokenizer.convert_ids_to_tokens(sorted(self._controls)))), key=len)
        self._marks = re.compile("|".join(map(re.escape, reversed(names)))) if names else None
        self._parts = False
        """Whether the template takes a message's content as a list of parts, as those of models with images do."""
        self._choose_parts()
        self.takes_system = self._writes([{"role": "system", "content": _SYSTEM}, _user(_ASKED)], _SYSTEM, _ASKED)
        self.end = self._own_end()
        """The token with which the template ends a reply."""
        self.ends = frozenset(end_marks(tokenizer)) | {self.end}
        """The tokens at which a reply is over."""
        self._opened: dict[str, bool] = {}
        self._kept: dict[str, bool] = {}

    def prompt(self, messages: Sequence[Message], *, thinks: bool = False, values: Mapping[str, Any] = {}) -> list[int]:
        """Return the tokens of a conversation up to the place where the model's reply begins.

        Args:
            messages: `role` and `content` of each message; the last one is the user's.
            thinks: Whether the model is to think before it answers, as far as the template can switch that.
            values: Further values of the template, as `reasoning_effort`; they win over `thinks`.
        """
        return self._ids(self._fitted(messages), {**switches(thinks), **values}, begins_reply=True)

    def reply(
        self,
        messages: Sequence[Message],
        content: str,
        reasoning: str = "",
        *,
        thinks: bool = False,
        values: Mapping[str, Any] = {},
    ) -> list[int]:
        """Return the tokens with which a reply goes on from `prompt`, as the template writes it, with its end mark."""
        return self.turn(messages, content, reasoning, thinks=thinks, values=values)[1]

    def turn(
        self,
        messages: Sequence[Message],
        content: str,
        reasoning: str = "",
        *,
        thinks: bool = False,
        values: Mapping[str, Any] = {},
    ) -> tuple[list[int], list[int]]:
        """Return the tokens of `prompt` and of `reply` together, in half the time."""
        chosen = {**switches(thinks), **values}
        asked = self._fitted(messages)
        prompt = self._ids(asked, chosen, begins_reply=True)
        answer = {"role": "assistant", "content": content.strip()}
        whole = self._ids([*asked, {**answer, "reasoning_content": reasoning} if reasoning else answer], chosen)
        if whole[: len(prompt)] != prompt:
            # The template writes a past reply otherwise than a model writes it: DeepSeek's drops the thinking.
            whole = [*prompt, *self._raw_reply(content, reasoning, opened=self.opens_thinking(thinks, values))]
        return prompt, self._ended(whole[len(prompt) :])

    def opens_thinking(self, thinks: bool, values: Mapping[str, Any] = {}) -> bool:
        """Return whether the prompt itself begins the thinking, so that a reply has only the mark of its end."""
        chosen = {**switches(thinks), **values}
        key = json.dumps(chosen, sort_keys=True, default=str)
        if key not in self._opened:
            asked = self._text([_user(_ASKED)], chosen)
            begun = self._text([_user(_ASKED)], chosen, begins_reply=True)
            self._opened[key] = split_thinking(begun.removeprefix(asked))[1] is None
        return self._opened[key]

    def refuse_dropped_thinking(self, reasoning: str, values: Mapping[str, Any], place: str) -> None:
        """Raise ModelError where thinking is switched on and the template leaves it out of a reply, as Gemma 3's does.

        Where a template drops the thinking of past replies alone, as DeepSeek's, it is written as the model writes it.
        """
        if not reasoning or not any(values.get(switch) for switch in switches(thinks=True)):
            return
        key = json.dumps(values, sort_keys=True, default=str)
        if key not in self._kept:
            reply = self.reply([_user(_ASKED)], _REPLIED, _THOUGHT, values=values)
            self._kept[key] = _THOUGHT in str(self.tokenizer.decode(reply))
        if not self._kept[key]:
            raise ModelError(
                "weights.template-drops-thinking",
                f"{place}: the replies have thinking, and the chat template of {self.name} does not write it, so the "
                "model would learn not to think. Use a template that writes `reasoning_content`, or pairs of "
                "`prompt: explain`.",
            )

    def split(self, written: str, *, opened: bool) -> tuple[str, str | None]:
        """Return the thinking and the reply of what a model has written, marks included; the reply is None without one.

        `opened`: the prompt began the thinking, as `opens_thinking` finds.
        """
        thought, visible = split_thinking(written, thinks=opened)
        return self._without_marks(thought).strip(), None if visible is None else self._without_marks(visible)

    def _without_marks(self, text: str) -> str:
        return self._marks.sub("", text) if self._marks else text

    def _fitted(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Put a system message that the template refuses, or drops, before the first question."""
        fitted = [dict(message) for message in messages]
        if len(fitted) > 1 and fitted[0]["role"] == "system" and not self.takes_system:
            system = fitted.pop(0)
            fitted[0]["content"] = f"{system['content']}\n\n{fitted[0]['content']}"
        return fitted

    def _choose_parts(self) -> None:
        """Find out how the template takes a message's content, by a conversation of one question."""
        asked = [_user(_ASKED)]
        if self._writes(asked, _ASKED):
            return
        self._parts = True
        if self._writes(asked, _ASKED):
            return
        self._parts = False
        self._text(asked, switches(thinks=False), begins_reply=True)  # raises where the template does
        raise ModelError(
            "weights.template-without-question",
            f"{self.name}: the chat template does not write the question that it is given. Correct the template, or "
            "write `format: completion`.",
        )

    def _writes(self, messages: Sequence[Message], *contents: str) -> bool:
        try:
            text = self._text(messages, switches(thinks=False), begins_reply=True)
        except ModelError:
            return False
        return all(content in text for content in contents)

    def _own_end(self) -> int:
        """Find the end mark that the template writes behind a reply; the tokenizer's where it writes none."""
        try:
            ids = self._ids([_user(_ASKED), {"role": "assistant", "content": _REPLIED}], switches(thinks=False))
        except ModelError:  # a template that writes the question alone
            ids = []
        marks = [id_ for id_ in ids[self._tail(ids) :] if id_ in self._controls]
        known = set(end_marks(self.tokenizer))
        return next((mark for mark in marks if mark in known), marks[-1] if marks else self.tokenizer.eos_token_id)

    def _ended(self, reply: list[int]) -> list[int]:
        """Cut a reply behind its end mark; one without a mark gets it."""
        tail = self._tail(reply)
        end = next((at for at in range(tail, len(reply)) if reply[at] in self.ends), None)
        return [*reply[:tail], self.end] if end is None else reply[: end + 1]

    def _tail(self, ids: Sequence[int]) -> int:
        """Return where the marks and blanks at the end begin."""
        at = len(ids)
        while at and (ids[at - 1] in self._controls or not self.tokenizer.decode(ids[at - 1 : at]).strip()):
            at -= 1
        return at

    def _raw_reply(self, content: str, reasoning: str, *, opened: bool) -> list[int]:
        """Write a reply without the template, its thinking between the marks that most families use."""
        ids: list[int] = []
        if reasoning or opened:
            begin, end = (self.tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in _THINKING)
            ids = [*([] if opened else begin), *self._words.continued(reasoning.strip()), *end]
        return [*ids, *self._words.continued(content.strip())]

    def _text(self, messages: Sequence[Message], values: Mapping[str, Any], *, begins_reply: bool = False) -> str:
        written: str = self._applied(messages, values, tokenize=False, add_generation_prompt=begins_reply)
        return written

    def _ids(self, messages: Sequence[Message], values: Mapping[str, Any], *, begins_reply: bool = False) -> list[int]:
        options = {"tokenize": True, "return_dict": False, "sanitize_control_tokens": True}
        ids: list[int] = self._applied(messages, values, add_generation_prompt=begins_reply, **options)
        return ids

    def _applied(self, messages: Sequence[Message], values: Mapping[str, Any], **options: Any) -> Any:  # noqa: ANN401
        """Apply the template; whatever it raises is an error that names the model."""
        given = [_in_parts(message) if self._parts else dict(message) for message in messages]
        apply: Callable[..., Any] = self.tokenizer.apply_chat_template
        try:
            return apply(given, chat_template=self.text, **options, **values)
        except Exception as fault:  # a template may raise anything
            reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(
                "weights.template-raises",
                f"{self.name}: the chat template cannot write a conversation of {roles} ({reason}). Change `shots` or "
                "`chat_template_kwargs` to what the template takes, correct the template, or write "
                "`format: completion`.",
            ) from fault


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _in_parts(message: Message) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _on_fixed_day(template: str) -> str:
    """Define `strftime_now` in a template that asks for today's date, so that it answers with one fixed day."""
    forms = {match["form"] for match in _TODAY.finditer(template)}
    if not forms:
        return template
    days = json.dumps({form: DAY.strftime(form) for form in sorted(forms)})
    return f"{{%- macro strftime_now(form) -%}}{{{{ {days}[form] }}}}{{%- endmacro -%}}{template}"
