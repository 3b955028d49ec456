"""What a completion is rewarded for: the parts of a reward by our parser and rules, each a reward function of TRL's."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from medllm.exam.extract.answer import answer_at, parse
from medllm.exam.extract.completion import sentences
from medllm.exam.extract.statements import keyed_value
from medllm.exam.grading import grade
from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.generation.engine.batching import PromptReader
from medllm.generation.engine.decoding import Decoder, ends_in_token_loop
from medllm.generation.types import Reply, Request
from medllm.recipe.grpo import PARTS, Grpo, Part

MARKED = frozenset({"marker", "boxed", "tag"})
"""The rules of the parser that read an answer behind its mark."""
EXPLAINED = 20
"""Letters that an explanation has at least."""
ALONE = 20
"""Characters that an answer alone has at most."""
DECIDES = 20
"""Letters from which on a reply has a language."""
KANA_SHARE = 0.1
"""Japanese has kana among its letters at least so often; Chinese has none."""

_KANA = re.compile(r"[ぁ-ゖァ-ヺー]")
_KANJI = re.compile(r"[一-鿿々]")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class RolloutTask:
    """One question of the training, as its model is asked."""

    question: Question
    request: Request
    tokens: tuple[int, ...]
    """The tokens of its prompt."""


@dataclass(frozen=True)
class ScoredCompletion:
    """A completion as an evaluation grades it, and the parts of its reward."""

    reply: Reply
    record: Record
    parts: Mapping[Part, float]


def answer_reward(record: Record) -> float:
    """Return 1 for the right answer as an evaluation grades it, else 0: cut-off thinking holds no answer."""
    return float(bool(record.correct) and record.answer is not None)


def form_reward(record: Record, question: Question) -> float:
    """Return 1 for the form that the prompt asks for, else 0.

    With `explain`: at least 20 letters that give no marked answer, then one marked answer. With `plain` and `think`: an
    answer and at most 20 characters. A reply that is cut off, loops, runs on or gives another number of letters
    than asked for has no form, nor has JSON.
    """
    text = record.completion.strip()
    if record.status != "answered" or record.truncated or record.run_on or record.loop or keyed_value(text) is not None:
        return 0.0
    if record.prompt != "explain":
        return float(len(text) <= ALONE)
    parts = sentences(text)
    place = answer_at(parts, record.answer, question)
    if place is None or record.how not in MARKED:
        return 0.0
    before = "".join(parts[:place])
    return float(len(_LETTER.findall(before)) >= EXPLAINED and not parse(before, question).firm)


def length_reward(tokens: int, longest: int, cache: int) -> float:
    """Return 0 down to -1 over the last `cache` tokens before `longest` (DAPO, arXiv:2503.14476, equation 13).

    >>> [length_reward(tokens, 100, 20) for tokens in (80, 90, 100)]
    [0.0, -0.5, -1.0]
    """
    over = tokens - (longest - cache)
    return -min(1.0, over / cache) if over > 0 else 0.0


def loop_reward(record: Record) -> float:
    """Return -1 for a completion that ends in a loop, else 0."""
    return -1.0 if record.loop else 0.0


def language_reward(text: str, language: str) -> float:
    """Return -1 for a text of 20 letters or more that is not mostly in `language` ("ja" or "en"), else 0.

    Kanji with fewer than a tenth of kana among them are not Japanese.
    """
    kana, kanji, latin, letters = (len(kind.findall(text)) for kind in (_KANA, _KANJI, _LATIN, _LETTER))
    if letters < DECIDES:
        return 0.0
    if language == "en":
        return -1.0 if latin <= letters / 2 else 0.0
    japanese = kana + kanji
    return -1.0 if japanese <= letters / 2 or kana < KANA_SHARE * japanese else 0.0


class RewardScorer:
    """Reads completions from their tokens as a generation reads them, grades them, and computes their rewards.

    Args:
        settings: The training, with the weights of the parts.
        tasks: The questions, by the keys that TRL hands on as prompts.
        reader: The tokenizer and chat template by which the model is asked.
        ends: The tokens at which a completion is over.
    """

    def __init__(
        self, settings: Grpo, tasks: Mapping[str, RolloutTask], reader: PromptReader, ends: frozenset[int]
    ) -> None:
        self.settings = settings
        self.tasks = tasks
        self.reader = reader
        self.ends = ends
        self.weights = settings.rewards.weights()
        self._last: tuple[object, list[ScoredCompletion]] = (None, [])

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model that is trained."""
        return self.reader.tokenizer

    def functions(self) -> list[Callable[..., list[float]]]:
        """Return one reward function for each part that counts, named for TRL's log."""
        return [self._function(part) for part in self.weights]

    def score(self, keys: Sequence[str], completions: Sequence[Sequence[int]]) -> list[ScoredCompletion]:
        """Grade completions (lists of tokens) of the questions of these keys; the same are not read twice."""
        asked = (tuple(keys), tuple(map(tuple, completions)))
        if self._last[0] != asked:
            scored = [self._score(self.tasks[key], ids) for key, ids in zip(keys, completions, strict=True)]
            self._last = (asked, scored)
        return self._last[1]

    def reply(self, task: RolloutTask, ids: Sequence[int]) -> Reply:
        """Read a completion: its thinking apart, why it ended, and its text before what would be a next question."""
        decoder = Decoder.begin(self.reader, task.request, len(task.tokens), self.ends)
        ended = bool(ids) and ids[-1] in decoder.ends
        decoder.tokens = list(ids[:-1] if ended else ids)
        decoder.finished = "stop" if ended else "repetition" if ends_in_token_loop(ids) else "length"
        return decoder.reply()

    def _score(self, task: RolloutTask, ids: Sequence[int]) -> ScoredCompletion:
        reply = self.reply(task, ids)
        record = grade(
            task.question,
            reply.text,
            model=self.settings.model,
            prompt=self.settings.prompt,
            finish_reason=reply.finish_reason,
            reasoning=reply.reasoning,
        )
        longest, cache = self.settings.max_completion_length, self.settings.soft_length
        parts: dict[Part, float] = {
            "answer": answer_reward(record),
            "form": form_reward(record, task.question),
            "length": length_reward(len(ids), longest, cache),
            "loop": loop_reward(record),
            "language": language_reward(reply.text, task.question.language),
        }
        return ScoredCompletion(reply, record, {part: parts[part] for part in PARTS})

    def _function(self, part: Part) -> Callable[..., list[float]]:
        def reward(prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:  # noqa: ANN401
            return [scored.parts[part] for scored in self.score(prompts, completion_ids)]

        reward.__name__ = part
        return reward
