"""Prompts: a question rendered plainly or with explanation, 0 to n shots, as text and as chat messages."""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, TypedDict

from medllm.errors import DataError
from medllm.exam.question import Question
from medllm.exam.record import PromptStyle

Template = Literal["igakuqa", "paper"]
Context = Literal["original", "linked"]
Message = dict[str, str]

_SYSTEM = {"igakuqa": "医師国家試験を解きます。", "paper": None}
_JOINTS = {"igakuqa": "\n", "paper": " "}
_STOPS = {"igakuqa": ("\n問題:", "\n問題："), "paper": ("\nQuestion:",)}


class RequestFields(TypedDict):
    """The fields of a prompt that a request has too."""

    text: str
    messages: tuple[Message, ...]
    stop: tuple[str, ...]
    style: PromptStyle


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered question, ready for a completion model (`text`) and for a chat model (`messages`)."""

    text: str
    messages: tuple[Message, ...]
    stop: tuple[str, ...]
    """Strings that end a completion: only an invented next question begins with them."""
    joint: str
    """The separator between `text` and a reply when both form one text: a line break, or a space."""
    style: PromptStyle = "plain"
    """What is asked for: the answer alone, an explanation first, or the answer alone after thinking."""

    @property
    def hash(self) -> str:
        """SHA-256 of the text, which identifies replies to the same prompt."""
        return hash_of(self.text)

    @property
    def request_fields(self) -> RequestFields:
        """What a request takes over from the prompt: `Request(**prompt.request_fields, key=...)`."""
        return {"text": self.text, "messages": self.messages, "stop": self.stop, "style": self.style}

    @property
    def conversation(self) -> str:
        """The prompt as a conversation, one message after the other under its role, for people."""
        return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in self.messages)

    def completion(self, text: str) -> str:
        """Return a reply as it continues this prompt in training: after the joint, without blanks at its end.

        Chosen and rejected answers begin alike, or a model would learn to separate them by their first character.
        """
        return self.joint + text.strip()


def hash_of(text: str) -> str:
    """Return the hash of a prompt's text, as records have it."""
    return hashlib.sha256(text.encode()).hexdigest()


def render(
    question: Question,
    *,
    prompt: PromptStyle = "plain",
    template: Template = "igakuqa",
    exemplars: Sequence[Question] = (),
    shots: int | None = None,
    context: Context = "original",
    system: str | None = None,
) -> Prompt:
    """Render a question after the first `shots` exemplars (all of them when None).

    `think` is worded as `plain`: a model that thinks does so before its reply, in a channel of its own. `system` is the
    system message of the chat; the template's own when None, and no message when empty.
    """
    chosen = _shots(question, exemplars, shots)
    messages = system_of(template, system)
    parts: list[str] = []
    for example in chosen:
        asked, answered = question_block(example, prompt, template), target_completion(example, prompt, template)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        parts.append(f"{asked}{_JOINTS[template]}{answered}")
    asked = question_block(question, prompt, template, context)
    if not chosen and not question.open_ended:
        asked = _zero_shot_prompt(question, prompt, template, context)
    messages.append({"role": "user", "content": asked})
    parts.append(asked)
    separator = "\n" if template == "igakuqa" else "\n\n"
    return Prompt(separator.join(parts), tuple(messages), _STOPS[template], _JOINTS[template], prompt)


def question_block(question: Question, prompt: PromptStyle, template: Template, context: Context = "original") -> str:
    """Return the question's own block, up to the place where the reply begins."""
    case = "\n".join(part for part in (_lost(question, context), question.context) if part)
    stem = f"{case}\n{question.text}" if case else question.text
    if template == "paper":
        options = "".join(f"\n{letter}. {choice}" for letter, choice in _choices(question))
        return f"Question: {stem}{options}\n{'Explanation:' if prompt == 'explain' else 'Answer:'}"
    block = f"問題: {stem}" + "".join(f"\n{letter}: {choice}" for letter, choice in _choices(question))
    if question.choices:
        block += f"\n必ず{_listed(question)}の中からちょうど{question.answers_wanted}個選んでください。"
    if prompt == "explain":
        return f"{block}\n解説:"
    return f"{block}\n答え:" if question.choices or question.open_ended else block


def target_completion(
    question: Question, prompt: PromptStyle, template: Template, explanation: str | None = None
) -> str:
    """Return a right reply to the question: exemplars show it and preference pairs are made of it."""
    if prompt != "explain":
        return question.gold_answer
    reasons = explanation or question.explanation
    if not reasons:
        raise DataError(
            "exam.no-explanation",
            f"{question.benchmark} question {question.question_id}: has no explanation, and the prompt `explain`"
            " shows one."
            " Use exemplars with explanations.",
        )
    return f"{reasons.strip()}\n{'Answer: ' if template == 'paper' else '答え:'}{question.gold_answer}"


def split_item(text: str, prompt: PromptStyle) -> tuple[Template, str, str]:
    """Return template, question and reply of an exam item that was written out as one text.

    It undoes `question_block`, the joint and `target_completion`. An explanation follows the first mark that announces
    one; an answer alone follows the last mark, or is the last line of a question that has none.
    """
    endings: list[tuple[int, Template]] = []
    for template, mark in _ANNOUNCED[prompt == "explain"].items():
        place = text.find(mark) if prompt == "explain" else text.rfind(mark)
        if place >= 0:
            endings.append((place + len(mark), template))
    if not endings:
        asked, _, answered = text.rstrip().rpartition("\n")
        return "igakuqa", asked, answered
    at, template = min(endings) if prompt == "explain" else max(endings)
    return template, text[:at], text[at:].strip()


_ANNOUNCED: dict[bool, dict[Template, str]] = {
    True: {"igakuqa": "\n解説:", "paper": "\nExplanation:"},
    False: {"igakuqa": "\n答え:", "paper": "\nAnswer:"},
}
"""The end of a question that asks for an explanation, and of one that asks for the answer alone."""


def system_of(template: Template, system: str | None = None) -> list[Message]:
    """Return the system message of a conversation, as a list of none or one: the template's own where none is given."""
    text = _SYSTEM[template] if system is None else system
    return [{"role": "system", "content": text}] if text else []


def exemplars_before(
    questions: Sequence[Question], cutoff: date, count: int, prompt: PromptStyle = "plain"
) -> list[Question]:
    """Return the first `count` questions sat on or before the cutoff that can serve as exemplars."""
    fit = [
        question
        for question in questions
        if question.exam_date is not None
        and question.exam_date <= cutoff
        and not question.image
        and (prompt != "explain" or question.explanation)
    ]
    if len(fit) < count:
        raise DataError(
            "exam.too-few-exemplars",
            f"only {len(fit)} of {len(questions)} questions date from {cutoff} or before and can be exemplars, but"
            f" {count} are needed. Lower `shots`, or take exemplars from another set.",
        )
    return fit[:count]


def refuse_test_items(exemplars: Sequence[Question], questions: Sequence[Question]) -> None:
    """Raise DataError if an exemplar is one of the questions to be asked, by id or by text."""
    texts = {_essence(question): question for question in questions}
    for example in exemplars:
        same = texts.get(_essence(example))
        if same is not None:
            raise DataError(
                "exam.exemplar-is-asked",
                f"the exemplar {example.question_id} is the question {same.question_id} of {same.benchmark}: its"
                " answer would"
                " be in the prompt. Take exemplars from another exam.",
            )


def _shots(question: Question, exemplars: Sequence[Question], shots: int | None) -> Sequence[Question]:
    wanted = len(exemplars) if shots is None else shots
    if wanted > len(exemplars):
        raise DataError(
            "exam.too-few-exemplars",
            f"{wanted} shots need {wanted} exemplars, but there are {len(exemplars)}. Give more, or lower `shots`.",
        )
    refuse_test_items(exemplars[:wanted], [question])
    return exemplars[:wanted]


def _zero_shot_prompt(question: Question, prompt: PromptStyle, template: Template, context: Context) -> str:
    """Render the question with an instruction on the form of the reply, since no exemplar shows it."""
    asked = question_block(question, prompt, template, context)
    form = "数値だけ" if question.numeric else "記号だけ(複数ならカンマ区切り)"
    if question.language == "en":
        form = "the number only" if question.numeric else "the letter(s) only, separated by commas"
        mark = "Answer:" if template == "paper" else "答え:"
        first = f'Explain first, then end with "{mark}" and' if prompt == "explain" else "Answer with"
        return f"{first} {form}.\n\n{asked}"
    mark = "Answer:" if template == "paper" else "答え:"
    first = f"まず解説を書き、最後の行に「{mark}」に続けて" if prompt == "explain" else "答えは"
    return f"{first}{form}を書いてください。\n\n{asked}"


def _lost(question: Question, context: Context) -> str | None:
    return question.vignette_text if context == "linked" else None


def _choices(question: Question) -> list[tuple[str, str]]:
    return list(zip(question.letters, question.choices, strict=True))


def _listed(question: Question) -> str:
    """List the letters as the original does: always a to e in IgakuQA, even where there are six or eight."""
    letters = "abcde" if question.benchmark.startswith("igakuqa") else question.letters
    return ",".join(letters)


def _essence(question: Question) -> str:
    """Reduce a question's text and choices to the characters that no difference in print changes."""
    text = unicodedata.normalize("NFKC", "".join((question.text, *question.choices))).casefold()
    return "".join(character for character in text if character.isalnum())
