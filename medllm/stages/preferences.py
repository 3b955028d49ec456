"""The `preferences` stage: the model answers past exams, and its answers are ranked below the verified ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.errors import DataError
from medllm.exam.prompts import Prompt, render, target_completion
from medllm.exam.question import Question
from medllm.generation.identity import AskedAs
from medllm.generation.types import Reply, Request, release_model, shared_length
from medllm.preferences.lint import filter_samples, lint
from medllm.preferences.pairs import (
    LabelledSample,
    PreferencePair,
    RankedAnswers,
    labelled,
    make_pairs,
    yield_report,
)
from medllm.preferences.questions import (
    AUDIT_COLUMNS,
    Key,
    QuestionSelection,
    key_of,
    seed_of,
    select_questions,
    vote_texts,
)
from medllm.preferences.votes import read_votes
from medllm.recipe.servers import for_prompt, is_address, switches
from medllm.recipe.settings import Preferences
from medllm.stages.workdir import move_into_place, round_of, say, work_folder, write_facts
from medllm.wording import describe_counts

REPLIES = "replies.jsonl"


def make(settings: Preferences, sources: dict[str, Path], out: Path) -> None:
    """Sample, label and pair; called again after an interruption, sample only the missing answers."""
    if (out / "facts.json").is_file():
        return
    work = work_folder(out)
    asked = select_questions(settings, sources)
    say(
        "preferences",
        f"{len(asked.questions)} questions, {settings.samples} samples each; {describe_counts(asked.counts)}",
    )
    prompts = {key_of(question): prompts_of(question, asked, settings) for question in asked.questions}
    form = _form(settings, sources)
    replies, kept_under = _sample(settings, sources, asked, prompts, work, form)
    if settings.prompt == "think":
        refuse_unseen_thinking([reply for of in replies.values() for _, _, reply in of])
    drawn = _label(settings, sources, asked.questions, _clean(asked, replies), prompts, kept_under)
    known = {key_of(question): question for question in asked.questions}
    samples = {key: filter_samples(known[key], of, settings.filters) for key, of in drawn.items()}
    number = round_of(sources.get(settings.model)) + 1
    values = _values(settings) if form.chat else None
    pairs = _pair(settings, asked, samples, prompts, number, values)
    votes, undecided = _votes(settings, sources, asked, {**values, **switches(thinks=False)} if values else None)
    pairs += votes
    report = yield_report(_by_name(samples), pairs)
    if report["too_long"]:
        say("preferences", f"{report['too_long']} of {report['samples']} prompts do not fit the model: not asked")
    if not pairs:
        long = report["too_long"]
        unfit = f" {long} prompts leave the model no room for `max_new_tokens`: give fewer `shots`." if long else ""
        raise DataError(
            "preferences.no-pair",
            f"preferences: {report['samples']} samples of {report['questions']} questions give no pair: "
            f"{describe_counts(report['labels'])}.{unfit} Ask more questions, draw more `samples`, or raise "
            "`max_new_tokens` if the answers are cut off.",
        )
    taught = settings.explanations is not None
    _table([pair.row(taught=taught) for pair in pairs], work / "data" / "train-00000.parquet")
    _table([sample.row() for of in samples.values() for sample in of], work / "samples" / "train-00000.parquet")
    _table(asked.watch.rows(), work / "audit" / "train-00000.parquet", AUDIT_COLUMNS)
    asked.watch.write("the preference pairs", work / "audit.html")
    facts = {"stage": "preferences", "round": number, **report, "votes": len(votes), "votes_undecided": undecided}
    facts["lint"] = lint(asked.questions, drawn, pairs)
    if taught:
        facts["questions_explained_by_a_teacher"] = sum(
            key_of(question) in asked.taught for question in asked.questions
        )
    settled = {"left_out": asked.counts, "audit": asked.watch.facts(), "settings": settings.model_dump(mode="json")}
    write_facts(work, {**facts, **settled, "languages": sorted({q.language for q in asked.questions})})
    move_into_place(work, out, (REPLIES,))


def prompts_of(question: Question, asked: QuestionSelection, settings: Preferences) -> tuple[Prompt, Prompt]:
    """Render the prompt of a question, with and without its worked examples."""
    options: dict[str, Any] = {"prompt": settings.prompt, "template": settings.template}
    options["system"] = settings.system_prompt
    return render(question, exemplars=asked.exemplars, **options), render(question, **options)


def _name_of(settings: Preferences) -> str:
    """Return the name by which the maker knows the model."""
    return settings.model if is_address(settings.engine) else "model"


def _form(settings: Preferences, sources: dict[str, Path]) -> AskedAs:
    """Decide whether the model is asked by chat; one that has no template for it is refused before any work."""
    from medllm.generation.identity import asked_as, refuse_thinking_without_chat

    models = {_name_of(settings): settings.model}
    forms = asked_as(models, sources, engine=settings.engine, form=settings.format, given=settings.chat_template)
    refuse_thinking_without_chat(forms, [settings.prompt])
    form = forms[_name_of(settings)]
    if settings.prompt == "think" and form.template:
        from medllm.generation.identity import base_under
        from medllm.weights.chat_template import open_template

        folder, base = sources[settings.model], base_under(settings.model, sources)
        chat = open_template(folder, base, form.template, settings.model)
        chat.refuse_dropped_thinking("think", _values(settings), "preferences.prompt")
    return form


def _values(settings: Preferences) -> dict[str, Any]:
    """Return the values of the chat template for asking and for training: thinking is on with `think` alone."""
    return {**switches(settings.prompt == "think"), **for_prompt(settings.chat_template_kwargs, settings.prompt)}


def refuse_unseen_thinking(replies: list[Reply]) -> None:
    """Raise DataError where pairs of thinking replies would lack it: the model does not think, or a server hides it."""
    whole = [reply for reply in replies if reply.finish_reason == "stop"]
    hidden = sum(bool(reply.reasoning_tokens) and not reply.reasoning for reply in whole)
    if hidden:
        raise DataError(
            "preferences.hidden-thinking",
            f"preferences: the server counts thinking in {hidden} of {len(whole)} replies and does not show it, so "
            "pairs cannot hold it. Ask a server that shows it, or write `prompt: explain`.",
        )
    if whole and not any(reply.reasoning for reply in whole):
        raise DataError(
            "preferences.no-thinking",
            f"preferences: the model thought before none of {len(whole)} replies, and `prompt: think` makes pairs of "
            "thinking. Write `prompt: plain` or `explain`, or switch thinking on by `chat_template_kwargs`.",
        )


def _sample(
    settings: Preferences,
    sources: dict[str, Path],
    asked: QuestionSelection,
    prompts: dict[Key, tuple[Prompt, Prompt]],
    work: Path,
    form: AskedAs,
) -> tuple[dict[Key, list[tuple[int, int | None, Reply]]], Mapping[Key, Mapping[int, str]]]:
    """Draw the samples of every question; also return what each is kept under, by question and number."""
    from medllm.generation.answer_store import AnswerStore
    from medllm.generation.factory import ServerOptions, make_generators, processes_of
    from medllm.generation.identity import answerers
    from medllm.generation.reply_log import KeptGenerator, generate_watched

    models = {(row := _name_of(settings)): settings.model}
    computing: dict[str, Any] = {name: getattr(settings, name) for name in ("engine", "dtype", "quantization")}
    computing |= {"form": settings.format, "given": settings.chat_template}
    model, name = make_generators(
        models,
        sources,
        **computing,
        batch_size=settings.batch_size,
        server=ServerOptions(num_concurrent=settings.num_concurrent, vllm=settings.vllm),
        num_processes=processes_of(settings),
    )[row]
    who = answerers(models, sources, **computing)[row]
    served = form.chat and form.template is None  # whose own default may be to think
    values = _values(settings) if served else for_prompt(settings.chat_template_kwargs, settings.prompt)
    shared = shared_length([prompt.text for prompt, _ in prompts.values()]) if asked.exemplars else 0
    wanted = {
        f"{key[0]}/{key[1]}#{number}": (key, number)
        for key in map(key_of, asked.questions)
        for number in range(settings.samples)
    }
    requests = [
        Request(
            **prompts[key][0].request_fields,
            key=text,
            model=name,
            shared=shared,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=seed_of(settings, key, number),
            chat_template_kwargs=values,
        )
        for text, (key, number) in wanted.items()
    ]
    put = {request.key: request for request in requests}
    kept = KeptGenerator(model, AnswerStore.here(), dict.fromkeys(put, who))
    kept_under: dict[Key, dict[int, str]] = defaultdict(dict)
    samples: dict[Key, list[tuple[int, int | None, Reply]]] = defaultdict(list)
    for reply in generate_watched(kept, requests, work / REPLIES, "", "samples"):
        key, number = wanted[reply.key]
        samples[key].append((number, seed_of(settings, key, number) if settings.temperature else None, reply))
        kept_under[key][number] = str(kept.key_of(put[reply.key], reply))
    if kept.kept:
        say("preferences", f"{kept.kept} of {len(requests)} samples are kept from earlier runs")
    release_model(model)
    return {key: sorted(of, key=lambda sample: sample[0]) for key, of in samples.items()}, kept_under


def _clean(
    asked: QuestionSelection, replies: dict[Key, list[tuple[int, int | None, Reply]]]
) -> dict[Key, list[tuple[int, int | None, Reply]]]:
    """Drop the replies that contain a held-out question: a teacher may know the question by heart."""
    texts = [
        ("/".join(key) + f"#{sample[0]}", "\n".join(part for part in (sample[2].reasoning, sample[2].text) if part))
        for key, of in replies.items()
        for sample in of
    ]
    leaks = asked.watch.match("teacher", texts)
    return {
        key: [sample for sample in of if "/".join(key) + f"#{sample[0]}" not in leaks] for key, of in replies.items()
    }


def _label(
    settings: Preferences,
    sources: dict[str, Path],
    questions: list[Question],
    replies: dict[Key, list[tuple[int, int | None, Reply]]],
    prompts: dict[Key, tuple[Prompt, Prompt]],
    kept_under: Mapping[Key, Mapping[int, str]],
) -> dict[Key, list[LabelledSample]]:
    from medllm.generation.identity import source_of

    name, revision = source_of(sources.get(settings.model))
    return {
        key_of(question): labelled(
            question,
            replies[key_of(question)],
            model=name or settings.model,
            revision=revision,
            prompt_hash=prompts[key_of(question)][0].hash,
            max_similarity=settings.max_similarity,
            answer_keys=kept_under[key_of(question)],
        )
        for question in questions
    }


def _pair(
    settings: Preferences,
    asked: QuestionSelection,
    samples: dict[Key, list[LabelledSample]],
    prompts: dict[Key, tuple[Prompt, Prompt]],
    number: int,
    values: Mapping[str, Any] | None,
) -> list[PreferencePair]:
    pairs: list[PreferencePair] = []
    for question in asked.questions:
        key = key_of(question)
        truth = target_completion(question, settings.prompt, settings.template)
        lesson = asked.taught.get(key) if settings.prompt == "explain" else None
        teacher = (lesson.teacher, lesson.cutoff) if lesson else None
        pairs += make_pairs(
            RankedAnswers(*prompts[key], truth, samples[key], values, teacher),
            steps=settings.pairs,
            most=settings.pairs_per_question,
            max_similarity=settings.max_similarity,
            seed=settings.seed,
            number=number,
        )
    return pairs


def _votes(
    settings: Preferences, sources: dict[str, Path], asked: QuestionSelection, values: Mapping[str, Any] | None = None
) -> tuple[list[PreferencePair], int]:
    pairs: list[PreferencePair] = []
    undecided = 0
    for vote in settings.votes:
        more, none = read_votes(sources[vote.source], asked.refused)
        asked.watch.refuse("preferences", f"preferences.votes: {vote.source}", vote_texts(more))
        pairs, undecided = pairs + more, undecided + none
    return pairs if values is None else [pair.conversation(values) for pair in pairs], undecided


def _by_name(samples: dict[Key, list[LabelledSample]]) -> dict[str, list[LabelledSample]]:
    return {"/".join(key): of for key, of in samples.items()}


def _table(rows: list[dict[str, Any]], path: Path, schema: pa.Schema | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd")
