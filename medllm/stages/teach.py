"""The `teach` stage: a teacher explains past questions, and what agrees with the key is kept as conversations."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.errors import DataError
from medllm.exam.extract.answer import is_right, parse
from medllm.exam.prompts import Prompt, render
from medllm.exam.question import Question
from medllm.generation.types import Reply, Request, release_model, shared_length
from medllm.preferences.questions import AUDIT_COLUMNS, Key, QuestionSelection, key_of, seed_of, select_questions
from medllm.preferences.teaching import (
    TaughtSample,
    conversation_row,
    judged,
    teaching_report,
    with_view,
    without_leaks_and_copies,
)
from medllm.recipe.servers import for_prompt, is_address
from medllm.recipe.settings import ApiModel, Teach
from medllm.stages.workdir import move_into_place, say, work_folder, write_facts
from medllm.wording import describe_counts

REPLIES = "replies.jsonl"
GIVE_UP = (100, 25)
"""Replies, and questions that they are to, after which a teacher without one right answer is not asked any more."""
Drawn = dict[Key, list[tuple[int, int | None, Reply]]]
CONVERSATIONS = pa.schema(
    [
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("date", pa.date32()),
        *((name, pa.string()) for name in ("license", "source", "origin")),
        *((name, pa.string()) for name in ("teacher", "teacher_revision", "teacher_cutoff")),
        *((name, pa.string()) for name in ("question_id", "benchmark", "question_hash", "explanation", "answer")),
        *((name, pa.int64()) for name in ("sample", "seed")),
        ("prompt_hash", pa.string()),
        ("viewed", pa.bool_()),
    ]
)
"""The columns of the conversations that are written."""


def make(settings: Teach, sources: dict[str, Path], out: Path) -> None:
    """Ask, judge and write; called again after an interruption, ask only what has no reply yet.

    Raises:
        DataError: No explanation is kept: no reply agrees with the key, or none that does may be kept.
    """
    if (out / "facts.json").is_file():
        return
    work = work_folder(out)
    asked = select_questions(settings, sources)
    say("teach", f"{len(asked.questions)} questions, {settings.samples} samples each; {describe_counts(asked.counts)}")
    prompts = {key_of(question): prompts_to_teacher(question, asked, settings) for question in asked.questions}
    replies, kept_under, changes = _ask(settings, sources, asked, prompts, work)
    samples = _judge(settings, sources, asked, prompts, replies, kept_under)
    report = teaching_report(samples)
    if not report["explanations"]:
        _stop(settings, report["samples"], report["questions"], report["verdicts"], work)
    rows = [
        conversation_row(question, sample, prompts[key][1], asked.origins[key], settings)
        for question in asked.questions
        for key in (key_of(question),)
        for sample in samples[key]
        if sample.verdict == "kept"
    ]
    _table(rows, work / "data" / "train-00000.parquet", CONVERSATIONS)
    _table([sample.row() for of in samples.values() for sample in of], work / "samples" / "train-00000.parquet")
    _table(asked.watch.rows(), work / "audit" / "train-00000.parquet", AUDIT_COLUMNS)
    asked.watch.write("the teacher's explanations", work / "audit.html")
    teacher = {"model": settings.name, "revision": rows[0]["teacher_revision"], "cutoff": str(settings.teacher_cutoff)}
    facts = {"stage": "teach", "teacher": {**teacher, "is_itself": settings.is_itself}, **report}
    facts |= {"left_out": asked.counts, "audit": asked.watch.facts(), "request_changes": changes}
    facts["licenses"] = dict(Counter(row["license"] or "not stated" for row in rows).most_common())
    facts["languages"] = sorted({question.language for question in asked.questions})
    write_facts(work, {**facts, "settings": settings.model_dump(mode="json")})
    move_into_place(work, out, (REPLIES,))


def prompts_to_teacher(question: Question, asked: QuestionSelection, settings: Teach) -> tuple[Prompt, Prompt]:
    """Render the prompt that the teacher gets, and the one that is written: without worked examples and view."""
    options: dict[str, Any] = {"prompt": "explain", "template": settings.template, "system": settings.system_prompt}
    prompt = render(question, exemplars=asked.exemplars, **options)
    return with_view(prompt, question) if settings.view_explanation else prompt, render(question, **options)


def _ask(
    settings: Teach,
    sources: dict[str, Path],
    asked: QuestionSelection,
    prompts: dict[Key, tuple[Prompt, Prompt]],
    work: Path,
) -> tuple[Drawn, dict[Key, dict[int, str]], list[str]]:
    """Draw every sample; also return what each is kept under, and what the server refused and was sent instead."""
    from medllm.generation.answer_store import AnswerStore
    from medllm.generation.endpoint import EndpointGenerator
    from medllm.generation.factory import ServerOptions, make_generators, processes_of
    from medllm.generation.identity import answerers
    from medllm.generation.reply_log import KeptGenerator, generate_watched

    models: dict[str, str | ApiModel] = {_row_of(settings): settings.model}
    computing: dict[str, Any] = {name: getattr(settings, name) for name in ("engine", "dtype", "quantization")}
    computing |= {"form": settings.format, "given": settings.chat_template}
    server = ServerOptions(settings.prices, settings.num_concurrent, settings.vllm)
    teacher, name = make_generators(
        models,
        sources,
        **computing,
        batch_size=settings.batch_size,
        server=server,
        num_processes=processes_of(settings),
        place="teach",
    )[_row_of(settings)]
    who = answerers(models, sources, **computing)[_row_of(settings)]
    wanted = {
        f"{key[0]}/{key[1]}#{number}": (key, number)
        for key in map(key_of, asked.questions)
        for number in range(settings.samples)
    }
    shared = shared_length([prompt.text for prompt, _ in prompts.values()]) if asked.exemplars else 0
    requests = [_request(settings, text, *of, prompts[of[0]][0], name, shared) for text, of in wanted.items()]
    put = {request.key: request for request in requests}
    kept = KeptGenerator(teacher, AnswerStore.here(), dict.fromkeys(put, who))
    kept_under: dict[Key, dict[int, str]] = defaultdict(dict)
    replies: Drawn = defaultdict(list)
    hope = _Hope(settings, {key_of(question): question for question in asked.questions}, work)
    for reply in generate_watched(kept, requests, work / REPLIES, "", "samples"):
        key, number = wanted[reply.key]
        replies[key].append((number, seed_of(settings, key, number) if settings.temperature else None, reply))
        kept_under[key][number] = str(kept.key_of(put[reply.key], reply))
        hope.see(key, reply)
    if kept.kept:
        say("teach", f"{kept.kept} of {len(requests)} samples are kept from earlier runs")
    release_model(teacher)
    changes = teacher.changes(name) if isinstance(teacher, EndpointGenerator) else []
    return {key: sorted(of, key=lambda drawn: drawn[0]) for key, of in replies.items()}, kept_under, sorted(changes)


def _request(settings: Teach, text: str, key: Key, number: int, prompt: Prompt, model: str, shared: int) -> Request:
    return Request(
        **prompt.request_fields,
        key=text,
        model=model,
        shared=shared,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=seed_of(settings, key, number),
        chat_template_kwargs=for_prompt(settings.chat_template_kwargs, "explain"),
    )


def _row_of(settings: Teach) -> str:
    """Return the name by which the maker knows the teacher; a server at `engine` has it under that name."""
    return str(settings.model) if is_address(settings.engine) and isinstance(settings.model, str) else "model"


class _Hope:
    """Watches for the first right answer; a teacher that gives none for long is not asked any more."""

    def __init__(self, settings: Teach, questions: dict[Key, Question], work: Path) -> None:
        self.settings, self.questions, self.work = settings, questions, work
        self.right = False
        self.statuses: Counter[str] = Counter()
        self.seen: set[Key] = set()

    def see(self, key: Key, reply: Reply) -> None:
        """Count a reply; raise DataError where so many replies give no right answer."""
        if self.right:
            return
        parsed = parse(reply.text, self.questions[key], finish_reason=reply.finish_reason)
        self.right = parsed.answer is not None and is_right(self.questions[key], parsed.answer)
        self.statuses["wrong" if parsed.answer else parsed.status] += 1
        self.seen.add(key)
        if not self.right and self.statuses.total() >= GIVE_UP[0] and len(self.seen) >= GIVE_UP[1]:
            _stop(self.settings, self.statuses.total(), len(self.seen), dict(self.statuses), self.work)


def _judge(
    settings: Teach,
    sources: dict[str, Path],
    asked: QuestionSelection,
    prompts: dict[Key, tuple[Prompt, Prompt]],
    replies: Drawn,
    kept_under: dict[Key, dict[int, str]],
) -> dict[Key, list[TaughtSample]]:
    """Decide of each reply whether it is kept; what would be is first searched for held-out questions."""
    from medllm.generation.identity import source_of

    revision = source_of(sources.get(settings.reference or ""))[1]
    if isinstance(settings.model, ApiModel):
        revision = settings.model.revision
    samples = {
        (key := key_of(question)): judged(
            question,
            replies[key],
            settings,
            revision=revision,
            prompt_hash=prompts[key][0].hash,
            answer_keys=kept_under[key],
        )
        for question in asked.questions
    }
    texts = [(sample.name, sample.explanation) for of in samples.values() for sample in of if sample.verdict == "kept"]
    leaks = asked.watch.match("teacher", texts)
    return {key: without_leaks_and_copies(of, leaks, settings) for key, of in samples.items()}


def _stop(settings: Teach, samples: int, questions: int, verdicts: dict[str, int], work: Path) -> NoReturn:
    """Raise DataError: the teacher gives nothing to learn from, and no later stage begins."""
    raise DataError(
        "teach.nothing-kept",
        f"teach: of {samples} replies of {settings.name} to {questions} questions none is kept "
        f"({describe_counts(verdicts)}), so there is nothing to learn from and no later stage begins. The replies are "
        f"in {work / REPLIES}: see whether the teacher is asked in its own form (`format`), has room "
        "(`max_new_tokens`) and knows the subject, or take another teacher.",
    )


def _table(rows: list[dict[str, Any]], path: Path, schema: pa.Schema | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd")
