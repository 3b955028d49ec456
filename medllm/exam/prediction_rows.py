"""Read one row of a results file: the question, the reply, and who replied, in the format that its columns show."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, isfinite
from typing import Any

from medllm.errors import DataError
from medllm.exam.prediction_files import IDS, text_of
from medllm.exam.question import LETTERS, Question
from medllm.exam.record import PROMPTS, REQUIRED, PromptStyle, Record, to_record

_REPLIES = (
    "prediction", "raw_response", "response", "completion", "output", "model_output", "generated_text", "generation",
    "reply", "model_answer", "model_response", "predicted_answer", "predicted", "pred", "answer", "choice",
    "予測", "出力", "モデル回答", "モデルの回答", "回答", "解答", "正答",
)  # fmt: skip
"""The usual names of the column with the reply; raw text comes first, and `answer`, which may be a key, late."""
_KEYS = ("answer", "解答", "正答")
_QUESTIONS = ("choices", "options", "選択肢")
_MODELS = ("model", "model_name", "system", "モデル")
_CUT_OFF = ("length", "max_tokens", "max_output_tokens", "model_length")
_LOOP = "repetition"
"""vLLM's word for the end of a reply in a loop."""
_KEPT = ("model_revision", "template", "shots", "context", "seed", "tokens", "prompt_hash")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One reply as predicted, not yet graded."""

    question_id: str
    text: str
    place: str
    finish_reason: str | None = None
    probability: float | None = None
    filter: str | None = None
    """The filter under which lm-evaluation-harness wrote this row."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further columns of a record, where the row is one."""

    def repeats(self, earlier: "Prediction") -> bool:
        """Return whether this is the same reply, repeated for another filter of lm-evaluation-harness."""
        same = (self.text, self.probability) == (earlier.text, earlier.probability)
        return same and self.filter is not None and self.filter != earlier.filter


@dataclass(frozen=True, slots=True)
class NamedPrediction:
    """A prediction with the model and the prompt that its row names; None where it names none."""

    model: str | None
    prompt: PromptStyle | None
    prediction: Prediction


@dataclass(frozen=True)
class RowReader:
    """Reads rows for one exam.

    Args:
        questions: The exam, by id and in its order.
        benchmark: Its name.
        filter: The filter of lm-evaluation-harness whose replies count; None takes the raw reply.
        columns: The names of the columns `id` and `answer`, where they are not usual ones.
    """

    questions: Mapping[str, Question]
    benchmark: str
    filter: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    filters: set[str] = field(default_factory=set)
    """The filters of lm-evaluation-harness that occurred."""
    others: set[str] = field(default_factory=set)
    """The exams of records that were passed over."""

    @cached_property
    def order(self) -> list[str]:
        """The ids in the exam's order, for tools that number questions."""
        return list(self.questions)

    @cached_property
    def _alike(self) -> dict[str, str]:
        """The ids by their letters and digits alone; empty where two ids would be one."""
        by_bare_name = {_bare(name): name for name in self.questions}
        return by_bare_name if len(by_bare_name) == len(self.questions) else {}

    def read(self, row: dict[str, Any], place: str) -> NamedPrediction | None:
        """Return the prediction of a row; None for another exam's record, a further sample or another filter."""
        if "benchmark" in row and "completion" in row and row["benchmark"] != self.benchmark:
            self.others.add(str(row["benchmark"]))
            return None
        if row.get("sample") not in (None, 0):
            return None
        prediction = self._read(row, place)
        if prediction is None or prediction.prediction.question_id in self.questions:
            return prediction
        raise DataError(
            "exam.unknown-question",
            f"{place}: question {prediction.prediction.question_id} is not in {self.benchmark}, whose ids look like"
            f" {self.order[0]}. Give predictions for this exam, or name the exam they are for.",
        )

    def _read(self, row: dict[str, Any], place: str) -> NamedPrediction | None:
        if all(name in row for name in REQUIRED):
            return _of_record(to_record(row, place), place)
        if "resps" in row or "filtered_resps" in row:
            return self._of_harness(row, place)
        doc, response = row.get("doc", row.get("__doc__")), row.get("model_response", row.get("__model_response__"))
        if isinstance(doc, dict) and isinstance(response, dict):
            return self._of_lighteval(doc, response, place)
        failed = row.get("response", row) is None and isinstance(row.get("error"), dict)
        if "custom_id" in row and (failed or isinstance(row.get("response") or row.get("result"), dict)):
            return self._of_batch(row, place)
        return self._of_columns(row, place)

    def _id(self, value: object, place: str) -> str:
        """Return the question's id as the exam writes it: `119B1` and `119b-1` are one question."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, str | int) or isinstance(value, bool) or str(value).strip() == "":
            raise DataError(
                "exam.no-question-named",
                f"{place}: has no question_id or problem_id. Name the question it predicts.",
            )
        name = str(value).strip()
        return name if name in self.questions else self._alike.get(_bare(name), name)

    def _of_columns(self, row: dict[str, Any], place: str) -> NamedPrediction:
        """Read a row with a column of ids and one of replies, under any of their usual names."""
        usual = {_usual(name): name for name in reversed(list(row))}
        reply = self.columns.get("answer") or next((usual[name] for name in _REPLIES if name in usual), None)
        named = self.columns.get("id") or next((usual[name] for name in IDS if name in usual), None)
        if reply is None or reply not in row or (named is None and _usual(reply) in _KEYS):
            raise DataError(
                "exam.not-a-prediction",
                f"{place}: has the columns {', '.join(map(str, list(row)[:12]))}; no reply is among them. Rename two of"
                " them to question_id (or problem_id) and prediction, or name them: --columns id=COLUMN,answer=COLUMN."
                " docs/evaluation.md lists the tools whose files are read.",
            )
        if _usual(reply) in _KEYS and any(name in usual for name in _QUESTIONS) and "answer" not in self.columns:
            raise DataError(
                "exam.exam-as-predictions",
                f"{place}: has choices and {reply}: it looks like the exam, not like replies. If {reply} is"
                f" the model's, write --columns id={named},answer={reply}.",
            )
        value = row[reply]
        if _usual(reply) == "raw_response" and not value and "predicted" in usual:
            value = row[usual["predicted"]]
        at = row.get("position")
        question_id = self._id(row.get(named) if named else None, place)
        if question_id not in self.questions and isinstance(at, int) and 0 <= at < len(self.order):
            question_id = self.order[at]
        model = next((row[usual[name]] for name in _MODELS if isinstance(row.get(usual.get(name, "")), str)), None)
        prompt = next((style for style in PROMPTS if row.get(usual.get("prompt", "")) == style), None)
        ended = _how_cut(row.get(usual.get("finish_reason", "")))
        text = _reply(value, reply, place)
        return NamedPrediction(model or None, prompt, Prediction(question_id, text, place, ended))

    def _of_lighteval(self, doc: dict[str, Any], response: dict[str, Any], place: str) -> NamedPrediction:
        """Read a row of lighteval's details: generated text, or one log-likelihood for each choice.

        A reply with as many tokens as the task allows was cut off; lighteval writes no other mark.
        """
        specific = doc.get("specific")
        facts = specific if isinstance(specific, dict) else {}
        question_id = next((str(facts[name]) for name in IDS if facts.get(name) is not None), str(doc.get("id")))
        if question_id not in self.questions and question_id.isdigit() and int(question_id) < len(self.order):
            question_id = self.order[int(question_id)]
        texts = response.get("text_post_processed") or response.get("text")
        if texts is not None and len(texts):
            size, tokens = doc.get("generation_size"), response.get("output_tokens") or [()]
            cut = "length" if isinstance(size, int) and 0 < size <= len(tokens[0]) else None
            return NamedPrediction(None, None, Prediction(self._id(question_id, place), str(texts[0]), place, cut))
        values = [[value] for value in response.get("logprobs") or ()]
        return NamedPrediction(None, None, self._likeliest(values, question_id, place, None))

    def _of_batch(self, row: dict[str, Any], place: str) -> NamedPrediction:
        """Read a row of a batch's output at OpenAI or Anthropic; a request that failed is a question without reply.

        A request that failed names no model, and one that expired has no response at all.
        """
        answer = row.get("response") or row.get("result") or {}
        body = answer.get("body") or answer.get("message") or {}
        choice = (body.get("choices") or [{}])[0]
        outputs = body["output"] if isinstance(body.get("output"), list) else []
        texts = [text_of(choice.get("message")), choice.get("text"), text_of(body), *map(text_of, outputs)]
        text = next((text for text in texts if isinstance(text, str) and text), "")
        incomplete = (body.get("incomplete_details") or {}).get("reason")
        ended = choice.get("finish_reason") or body.get("stop_reason") or incomplete
        prediction = Prediction(self._id(row["custom_id"], place), text, place, _how_cut(ended))
        return NamedPrediction(body.get("model"), None, prediction)

    def _of_harness(self, row: dict[str, Any], place: str) -> NamedPrediction | None:
        """Read a sample of lm-evaluation-harness: generated text, or one log-likelihood per choice.

        The harness writes a row for each of a task's filters. A row that names its filter still has the raw reply in
        `resps`. The raw reply counts, so that every filter's row gives the same one, unless a filter was chosen. Of
        several repeats the first counts.
        """
        named = row["filter"] if isinstance(row.get("filter"), str) else None
        self.filters.update([named] if named else [])
        if self.filter is not None and named != self.filter:
            return None
        question_id = self._harness_id(row, place)
        filtered, raw = row.get("filtered_resps"), row.get("resps")
        for replies in (raw, filtered) if named is not None and self.filter is None else (filtered, raw):
            text = _generated(replies)
            if text is not None:
                return NamedPrediction(None, None, Prediction(question_id, text, place, filter=named))
        return NamedPrediction(None, None, self._likeliest(filtered or raw, question_id, place, named))

    def _likeliest(self, replies: Any, question_id: str, place: str, named: str | None) -> Prediction:  # noqa: ANN401
        """Return the choice with the highest log-likelihood, and its share of the probability of all choices."""
        likelihoods = _likelihoods(replies, place, self.questions.get(question_id))
        best = max(range(len(likelihoods)), key=lambda number: likelihoods[number])
        shares = [exp(value - likelihoods[best]) for value in likelihoods]
        return Prediction(question_id, LETTERS[best], place, "stop", 1 / sum(shares), named)

    def _harness_id(self, row: dict[str, Any], place: str) -> str:
        """Return the question's id from the task's document, or else by its position in the exam."""
        doc = row.get("doc")
        if isinstance(doc, dict):
            for name in IDS:
                value = doc.get(name)
                if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                    return self._id(value, place)
        number = row.get("doc_id")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.order):
            raise DataError(
                "exam.unknown-question",
                f"{place}: doc_id is {number!r}, outside the exam's {len(self.order)} questions. Check the task.",
            )
        return self.order[number]


def _of_record(record: Record, place: str) -> NamedPrediction:
    facts = {name: getattr(record, name) for name in _KEPT}
    prediction = Prediction(
        record.question_id, record.completion, place, record.finish_reason, record.probability, facts=facts
    )
    return NamedPrediction(record.model, record.prompt, prediction)


def _how_cut(ended: object) -> str | None:
    """Return how a reply was cut, by any provider's word for its end; None where it may be whole."""
    if ended == _LOOP:
        return _LOOP
    return "length" if ended in _CUT_OFF else None


def _usual(name: object) -> str:
    """Return a column's name as the lists here write it: normal width, small, one underscore between words."""
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFKC", str(name)).strip().casefold())


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _reply(value: object, column: str, place: str) -> str:
    """Return a cell as the text of a reply: letters of a list joined by commas, a number as digits."""
    if isinstance(value, list) and all(isinstance(entry, str | int) for entry in value):
        return ",".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and isfinite(value):
        return f"{value:g}"
    if not isinstance(value, str):
        raise DataError(
            "exam.not-text", f"{place}: {column} is {value!r}. Give the reply as text, empty if there is none."
        )
    return value


def _generated(replies: object) -> str | None:
    """Return the first generated text of `["b"]`, or of `[["b", "c"]]` if each question was asked several times."""
    first = replies[0] if isinstance(replies, list) and len(replies) == 1 else None
    if isinstance(first, list) and first and all(isinstance(cell, str) for cell in first):
        pair = len(first) == 2 and first[1] in ("True", "False")
        return None if pair else str(first[0])
    return first if isinstance(first, str) else None


def _likelihoods(replies: Any, place: str, question: Question | None) -> list[float]:  # noqa: ANN401  (a cell)
    """Return one finite log-likelihood for each choice of the question, in their order; anything else is refused."""
    try:
        likelihoods = [_likelihood(reply) for reply in replies or [None]]
    except (TypeError, ValueError, IndexError, KeyError) as fault:
        raise DataError(
            "exam.no-log-likelihoods",
            f"{place}: resps is neither text nor log-likelihoods. Write samples with --log_samples.",
        ) from fault
    wrong = next((number for number, value in enumerate(likelihoods) if not isfinite(value)), None)
    if wrong is not None:
        raise DataError(
            "exam.infinite-log-likelihood",
            f"{place}: resps: log-likelihood {wrong + 1} is {likelihoods[wrong]}, which is not finite, so no choice"
            " is the likeliest. Run the model again (in float32, if it overflows).",
        )
    if question is not None and question.numeric:
        raise DataError(
            "exam.log-likelihoods-without-choices",
            f"{place}: resps holds log-likelihoods, but question {question.question_id} has no choices: its answer is"
            " a number. Give generated text for it.",
        )
    if len(likelihoods) > len(LETTERS) or (question is not None and len(likelihoods) != len(question.choices)):
        choices = f"question {question.question_id} has {len(question.choices)}" if question else "at most 8"
        raise DataError(
            "exam.wrong-number-of-log-likelihoods",
            f"{place}: resps holds {len(likelihoods)} log-likelihoods, but {choices} choices. Give one for each choice,"
            " in their order (a task that also measures choices without the question writes twice as many).",
        )
    return likelihoods


def _likelihood(reply: Any) -> float:  # noqa: ANN401  ([[value, greedy]], [value, greedy], or strings of them)
    inner = reply[0]
    value = inner[0] if isinstance(inner, list | tuple) else inner
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return float(value)
