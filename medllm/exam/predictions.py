"""Read predictions of any origin: IgakuQA's files, medllm's records, and lm-evaluation-harness samples."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from pathlib import Path
from typing import Any

from medllm.errors import DataError
from medllm.exam.question import LETTERS, Question
from medllm.exam.record import REQUIRED, to_record
from medllm.exam.tables import table_rows

_SECTION_FILE = re.compile(r"\d{3}-[A-F]_(?P<model>.+)")
_IDS = ("question_id", "problem_id", "id", "sample_id")


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

    def repeats(self, earlier: "Prediction") -> bool:
        """Return whether this is the same reply, repeated for another filter of lm-evaluation-harness."""
        same = (self.text, self.probability) == (earlier.text, earlier.probability)
        return same and self.filter is not None and self.filter != earlier.filter


@dataclass(frozen=True, slots=True)
class System:
    """The predictions of one model under one prompt."""

    model: str
    prompt: str | None
    predictions: dict[str, Prediction]


def read_predictions(files: Sequence[Path], questions: Mapping[str, Question], benchmark: str) -> list[System]:
    """Read all files' predictions, by model and prompt; a repeated id or one of another exam raises with its place."""
    found: dict[tuple[str, str | None], dict[str, Prediction]] = {}
    order = list(questions)
    for file in files:
        for place, row in _rows(file):
            if _of_another_benchmark(row, benchmark) or row.get("sample") not in (None, 0):
                continue
            model, prompt, prediction = _prediction(row, place, file, questions, order)
            if prediction.question_id not in questions:
                raise DataError(
                    "exam.unknown-question",
                    f"{place}: question {prediction.question_id} is not in {benchmark}, whose ids look like {order[0]}."
                    " Give predictions for this exam, or name the exam they are for.",
                )
            system = found.setdefault((model, prompt), {})
            earlier = system.get(prediction.question_id)
            if earlier is not None and prediction.repeats(earlier):
                continue
            if earlier is not None:
                raise DataError(
                    "exam.predicted-twice",
                    f"{place}: question {prediction.question_id} is predicted twice for {model}, first at"
                    f" {earlier.place}. Give one reply per question and model{_one_filter(prediction, earlier)}.",
                )
            system[prediction.question_id] = prediction
    if not found:
        raise DataError(
            "exam.no-predictions",
            f"{', '.join(map(str, files))}: has no predictions for {benchmark}. Give files with predictions for"
            " that exam.",
        )
    return [System(model, prompt, predictions) for (model, prompt), predictions in found.items()]


def _rows(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of a file, or of every records file in an evaluation's folder."""
    if not file.exists():
        raise DataError("exam.no-such-file", f"{file} does not exist. Give a file of predictions.")
    if not file.is_dir():
        return table_rows(file)
    inner = file / "records" if (file / "records").is_dir() else file
    return [row for part in sorted([*inner.glob("*.parquet"), *inner.glob("*.jsonl")]) for row in table_rows(part)]


def _of_another_benchmark(row: dict[str, Any], benchmark: str) -> bool:
    """Return whether a record of an evaluation with several exams belongs to another one."""
    return "benchmark" in row and "completion" in row and row["benchmark"] != benchmark


def _one_filter(prediction: Prediction, earlier: Prediction) -> str:
    """Return the remedy if two filters of lm-evaluation-harness changed a reply in two ways and left no raw one."""
    if prediction.filter is None or prediction.filter == earlier.filter:
        return ""
    return f": keep the rows of one filter, {earlier.filter} or {prediction.filter}"


def _prediction(
    row: dict[str, Any], place: str, file: Path, questions: Mapping[str, Question], order: list[str]
) -> tuple[str, str | None, Prediction]:
    """Return model, prompt and prediction of a row, in the format that its columns show."""
    if all(name in row for name in REQUIRED):
        record = to_record(row, place)
        prediction = Prediction(record.question_id, record.completion, place, record.finish_reason, record.probability)
        return record.model, record.prompt, prediction
    if "resps" in row or "filtered_resps" in row:
        return file.stem, None, _harness(row, place, questions, order)
    if "prediction" in row:
        named = _SECTION_FILE.fullmatch(file.stem)
        question_id, text = row.get("problem_id", row.get("question_id")), row["prediction"]
        if not isinstance(question_id, str | int) or question_id == "":
            raise DataError("exam.no-question-named", f"{place}: has no problem_id. Name the question it predicts.")
        if not isinstance(text, str):
            raise DataError(
                "exam.not-text", f"{place}: prediction is {text!r}. Give the reply as text, empty if there is none."
            )
        return named["model"] if named else file.stem, None, Prediction(str(question_id), text, place)
    raise DataError(
        "exam.not-a-prediction",
        f"{place}: is not a prediction. Known formats are IgakuQA's (problem_id, prediction), medllm's records"
        f" ({', '.join(REQUIRED)}) and lm-evaluation-harness samples (doc_id, doc, resps).",
    )


def _harness(row: dict[str, Any], place: str, questions: Mapping[str, Question], order: list[str]) -> Prediction:
    """Read a sample of lm-evaluation-harness: generated text, or one log-likelihood per choice.

    The harness writes a row for each of a task's filters. A row that names its filter still has the raw reply in
    `resps`. The raw reply counts, so that every filter's row gives the same one. Of several repeats the first counts.
    """
    question_id = _harness_id(row, place, order)
    filtered, raw = row.get("filtered_resps"), row.get("resps")
    named = row["filter"] if isinstance(row.get("filter"), str) else None
    for replies in (raw, filtered) if named is not None else (filtered, raw):
        text = _generated(replies)
        if text is not None:
            return Prediction(question_id, text, place, filter=named)
    likelihoods = _likelihoods(filtered or raw, place, questions.get(question_id))
    best = max(range(len(likelihoods)), key=lambda number: likelihoods[number])
    shares = [exp(value - likelihoods[best]) for value in likelihoods]
    return Prediction(question_id, LETTERS[best], place, "stop", 1 / sum(shares), named)


def _generated(replies: object) -> str | None:
    """Return the first generated text of `["b"]`, or of `[["b", "c"]]` if each question was asked several times."""
    first = replies[0] if isinstance(replies, list) and len(replies) == 1 else None
    if isinstance(first, list) and first and all(isinstance(one, str) for one in first):
        pair = len(first) == 2 and first[1] in ("True", "False")
        return None if pair else str(first[0])
    return first if isinstance(first, str) else None


def _likelihoods(replies: Any, place: str, question: Question | None) -> list[float]:  # noqa: ANN401  (a cell)
    """Return one finite log-likelihood for each choice of the question, in their order; anything else is refused."""
    try:
        found = [_likelihood(reply) for reply in replies or [None]]
    except (TypeError, ValueError, IndexError, KeyError) as fault:
        raise DataError(
            "exam.no-log-likelihoods",
            f"{place}: resps is neither text nor log-likelihoods. Write samples with --log_samples.",
        ) from fault
    wrong = next((number for number, value in enumerate(found) if not isfinite(value)), None)
    if wrong is not None:
        raise DataError(
            "exam.infinite-log-likelihood",
            f"{place}: resps: log-likelihood {wrong + 1} is {found[wrong]}, which is not finite, so no choice"
            " is the likeliest. Run the model again (in float32, if it overflows).",
        )
    if question is not None and question.numeric:
        raise DataError(
            "exam.log-likelihoods-without-choices",
            f"{place}: resps holds log-likelihoods, but question {question.question_id} has no choices: its answer is"
            " a number. Give generated text for it.",
        )
    if len(found) > len(LETTERS) or (question is not None and len(found) != len(question.choices)):
        choices = f"question {question.question_id} has {len(question.choices)}" if question else "at most 8"
        raise DataError(
            "exam.wrong-number-of-log-likelihoods",
            f"{place}: resps holds {len(found)} log-likelihoods, but {choices} choices. Give one for each choice, in"
            " their order (a task that also measures choices without the question writes twice as many).",
        )
    return found


def _likelihood(reply: Any) -> float:  # noqa: ANN401  ([[value, greedy]], [value, greedy], or strings of them)
    inner = reply[0]
    value = inner[0] if isinstance(inner, list | tuple) else inner
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return float(value)


def _harness_id(row: dict[str, Any], place: str, order: list[str]) -> str:
    """Return the question's id from the task's document, or else by its position in the exam."""
    doc = row.get("doc")
    if isinstance(doc, dict):
        for name in _IDS:
            value = doc.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                return str(value)
    number = row.get("doc_id")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(order):
        raise DataError(
            "exam.unknown-question",
            f"{place}: doc_id is {number!r}, outside the exam's {len(order)} questions. Check the task.",
        )
    return order[number]
