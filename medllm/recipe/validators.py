"""Rules between the blocks of a recipe; each rule is a named function that yields faults."""

from collections.abc import Callable, Iterator
from datetime import date

from medllm.exam.benchmarks import CATALOGUE
from medllm.recipe.dependencies import (
    Use,
    allows,
    askings_of,
    hosts_of,
    instructions_of,
    is_full,
    lora_of,
    stages_of,
    trainings_of,
    uses,
)
from medllm.recipe.errors import RecipeFault, did_you_mean
from medllm.recipe.hardware import machine, machine_names
from medllm.recipe.round_rules import ROUND_RULES
from medllm.recipe.servers import OPENAI_PREFIX, ApiModel
from medllm.recipe.settings import (
    KINDS,
    STAGES,
    Corpus,
    Evaluate,
    Grpo,
    Instructions,
    Preferences,
    Recipe,
    Reference,
    Rounds,
    Stage,
    Teach,
    Training,
    parse_reference,
)
from medllm.recipe.teacher_rules import TEACHER_RULES, first_asked, first_day
from medllm.recipe.training_rules import TRAINING_RULES

Rule = Callable[[Recipe], Iterator[RecipeFault]]


def keys_of_stages_are_given(recipe: Recipe) -> Iterator[RecipeFault]:
    """Name what only some recipes can leave out: one that only evaluates needs no base, cutoff or namespace."""
    stages = stages_of(recipe)
    any_stage = "" if stages else "any stage"
    trains = next((stage for stage in stages if stage not in ("evaluate", "space")), any_stage)
    other = recipe.teach and not recipe.teach.is_itself  # a teacher with weights of its own needs no base
    loads = next((stage for stage in stages if stage not in ("evaluate", "space", other and "teach")), any_stage)
    pushes = next((stage for stage in stages if stage != "evaluate"), trains)
    asks = "evaluate.models" if recipe.evaluate and "base" in recipe.evaluate.references.values() else ""
    for key, who in (("base", loads or asks), ("cutoff", trains), ("namespace", pushes)):
        if who and getattr(recipe, key) is None:
            yield RecipeFault("recipe.missing-key", key, f"is missing, and {who} needs it. Add it.")


def sources_exist(recipe: Recipe) -> Iterator[RecipeFault]:
    """Every source is a stage above, a repository at a revision, or a folder that exists or that a command writes."""
    yield from _base_exists(recipe)
    for stage in stages_of(recipe):
        for use in uses(recipe, stage):
            if use.wanted != "exam" and use.place != "base":
                yield from _source_faults(recipe, stage, use)
    for name, exam in recipe.exams.items():
        yield from _outside_faults(recipe, f"exams.{name}", parse_reference(exam.source))


def _base_exists(recipe: Recipe) -> Iterator[RecipeFault]:
    if recipe.base is None:
        return
    reference = parse_reference(recipe.base)
    if reference.where in ("hub", "folder"):
        yield from _outside_faults(recipe, "base", reference)
    else:
        text = f"`{recipe.base}` is not a model. Write `ORG/NAME@REVISION` or `./folder`."
        yield RecipeFault("recipe.base-is-no-model", "base", text)


def _source_faults(recipe: Recipe, stage: Stage, use: Use) -> Iterator[RecipeFault]:
    reference = parse_reference(use.source)
    if reference.where == "stage":
        yield from _stage_faults(recipe, stage, use)
    elif reference.where == "base":
        if use.wanted != "model":
            yield RecipeFault("recipe.wrong-kind", use.place, "`base` is a model; this key needs a dataset.")
    elif reference.where == "api":
        if stage != "evaluate":
            text = f"`{use.source}` can only be used in `evaluate`: its weights are not available."
            yield RecipeFault("recipe.api-outside-evaluate", use.place, text)
    else:
        yield from _outside_faults(recipe, use.place, reference, made=_made_above(recipe, stage, use))


def _stage_faults(recipe: Recipe, stage: Stage, use: Use) -> Iterator[RecipeFault]:
    named: Stage = next(known for known in STAGES if known == use.source)
    there = f"Available: {', '.join(_made_above(recipe, stage, use)) or 'nothing'}."
    if named == stage:
        yield RecipeFault("recipe.own-input", use.place, f"`{named}` cannot be its own input. {there}")
    elif _position(recipe, named) > _position(recipe, stage):
        text = f"`{named}` runs after `{stage}` and cannot be its input. {there}"
        yield RecipeFault("recipe.later-stage", use.place, text)
    elif getattr(recipe, named) is None:
        text = f"this recipe has no stage `{named}`. Add a `{named}:` block, or name a repository. {there}"
        yield RecipeFault("recipe.no-such-stage", use.place, text)
    elif KINDS[named] != use.wanted:
        text = f"`{named}` is a {KINDS[named]}; this key needs a {use.wanted}. {there}"
        yield RecipeFault("recipe.wrong-kind", use.place, text)


def _made_above(recipe: Recipe, stage: Stage, use: Use) -> list[str]:
    above = [
        earlier
        for earlier in stages_of(recipe)
        if _position(recipe, earlier) < _position(recipe, stage) and KINDS[earlier] == use.wanted
    ]
    return (["base"] if use.wanted == "model" else []) + list(above)


def _position(recipe: Recipe, stage: Stage) -> float:
    """Return where a stage is in the order of the recipe; of a stage that it lacks, where it would be."""
    there = stages_of(recipe)
    return (
        there.index(stage)
        if stage in there
        else sum(STAGES.index(known) < STAGES.index(stage) for known in there) - 0.5
    )


def _outside_faults(
    recipe: Recipe, place: str, reference: Reference, made: list[str] | None = None
) -> Iterator[RecipeFault]:
    if reference.where == "folder":
        if not recipe.prepared_by and not (recipe.folder / reference.text).exists():
            text = f"folder {reference.text} not found (looked in {recipe.folder}). Create it, or correct the path."
            yield RecipeFault("recipe.no-such-folder", place, text)
    elif reference.where != "hub":
        near = did_you_mean(reference.text, made or [])
        text = f"Unknown source `{reference.text}`. {near} Or write `ORG/NAME@REVISION` or `./folder`."
        yield RecipeFault("recipe.unknown-source", place, text)
    elif reference.revision is None:
        text = f"`{reference.text}` has no revision. Write `{reference.text}@main`, a tag or, best, a commit."
        yield RecipeFault("recipe.no-revision", place, text)


def exams_are_known(recipe: Recipe) -> Iterator[RecipeFault]:
    """Every exam is in the catalogue or under `exams`."""
    for stage in stages_of(recipe):
        for use in uses(recipe, stage):
            if use.wanted == "exam" and use.source not in known_exams(recipe):
                near = did_you_mean(use.source, known_exams(recipe))
                yield RecipeFault("recipe.unknown-exam", use.place, f"Unknown exam `{use.source}`. {near}")


def years_belong_to_exams(recipe: Recipe) -> Iterator[RecipeFault]:
    """Only a source that is read as an exam has years."""
    for number, source in enumerate(recipe.corpus.data if recipe.corpus else ()):
        if source.years and source.exam is None:
            text = "`years` needs `exam`: a text has no questions with years. Write `exam: own`, or take `years` out."
            yield RecipeFault("recipe.years-without-exam", f"corpus.data[{number}]", text)


def exam_is_held_out(recipe: Recipe) -> Iterator[RecipeFault]:
    """Every exam of `evaluate` is held out of corpus and preferences."""
    asked = recipe.evaluate.benchmarks if recipe.evaluate else ()
    seen: list[tuple[str, ...]] = []
    for stage, settings in _learning_exams(recipe):
        if settings.held_out in seen:
            continue  # a list that comes from the corpus is reported there
        seen.append(settings.held_out or ())
        for name in asked:
            if name not in (settings.held_out or ()):
                text = f"`evaluate` asks `{name}`, which is not held out. Add it here."
                yield RecipeFault("recipe.exam-not-held-out", f"{stage}.held_out", text)


def cutoff_precedes_exams(recipe: Recipe) -> Iterator[RecipeFault]:
    """Every cutoff is before the first exam of `evaluate`, as far as the recipe states its day; rows are read later."""
    if recipe.evaluate is None or recipe.cutoff is None:
        return
    for name in recipe.evaluate.benchmarks:
        first = first_day(recipe, name)
        if first is not None:
            asked = first_asked(recipe, first)
            for place, day in _cutoffs(recipe):
                if day >= asked:
                    text = f"{day} is not before the first `{name}` exam asked ({asked}). "
                    text += "Set it earlier, or limit `years` to later exams."
                    yield RecipeFault("recipe.cutoff-too-late", place, text)


def _cutoffs(recipe: Recipe) -> Iterator[tuple[str, date]]:
    if recipe.cutoff:
        yield "cutoff", recipe.cutoff
    for stage, settings in _learning_exams(recipe):
        if settings.cutoff and settings.cutoff != recipe.cutoff:
            yield f"{stage}.cutoff", settings.cutoff


def _learning_exams(recipe: Recipe) -> list[tuple[str, Corpus | Teach | Preferences | Instructions | Grpo]]:
    """Return what past exams and other texts are learnt from, by its key in the recipe."""
    corpus = [("corpus", recipe.corpus)] if recipe.corpus else []
    return [*corpus, *askings_of(recipe), *instructions_of(recipe)]


def chat_templates_are_texts(recipe: Recipe) -> Iterator[RecipeFault]:
    """Each chat template is a text, which it is once its file is read."""
    stages = {stage: getattr(recipe, stage) for stage in stages_of(recipe)}
    own = {f"{stage}.chat_template": getattr(settings, "chat_template", None) for stage, settings in stages.items()}
    seen = recipe.chat_template
    for place, text in {"chat_template": recipe.chat_template, **own}.items():
        if text is not None and not is_template(text) and (place == "chat_template" or text != seen):
            fault = f"`{text}` is no chat template and no file beside the recipe that can be read as UTF-8. Write "
            yield RecipeFault(
                "recipe.no-chat-template", place, fault + "`chat_template: ./FILE.jinja` above the stages."
            )


def is_template(text: str) -> bool:
    """Whether a value is the text of a template, not the name of a file: Jinja writes with braces."""
    return "{" in text


def adapter_has_a_shape(recipe: Recipe) -> Iterator[RecipeFault]:
    """A merge needs an adapter, and two adapters that become one can be added up."""
    for stage, settings in trainings_of(recipe):
        below = lora_of(recipe, settings.model) if stage in ("sft", "rpo", "grpo") and settings.model != stage else None
        above = settings.lora
        if below and above and (below.use_dora or above.use_dora):
            text = f"`{stage}` writes its adapter and that of `{settings.model}` as one, which DoRA does not allow. "
            text += f"Remove `{stage}.lora` to train the adapter below further, or set `use_dora: false`."
            yield RecipeFault("recipe.adapter-mix", f"{stage}.lora" + ".use_dora" * above.use_dora, text)
    if recipe.merge and recipe.merge.model == "base":
        text = "`base` has no adapter to merge. Name `cpt`, `sft`, `rpo` or `grpo`."
        yield RecipeFault("recipe.no-adapter-to-merge", "merge.model", text)
    elif recipe.merge and is_full(recipe, recipe.merge.model):
        text = f"`{recipe.merge.model}` trains all weights: it is a full model, and there is nothing to merge. Remove "
        text += "`merge`, or give the training a `lora`."
        yield RecipeFault("recipe.no-adapter-to-merge", "merge.model", text)


def samples_differ(recipe: Recipe) -> Iterator[RecipeFault]:
    """Several samples need a temperature above 0: greedy samples are identical."""
    asking: list[tuple[str, Teach | Preferences | Grpo | Evaluate]] = [*askings_of(recipe)]
    asking += [("evaluate", recipe.evaluate)] if recipe.evaluate else []
    for stage, settings in asking:
        if not isinstance(settings, Grpo) and settings.samples > 1 and settings.temperature == 0:
            text = f"{settings.samples} samples at temperature 0 are identical. Set a temperature."
            yield RecipeFault("recipe.identical-samples", f"{stage}.samples", text)


def thinking_has_a_channel(recipe: Recipe) -> Iterator[RecipeFault]:
    """The prompt `think` is asked by chat: a model that completes a text has no channel to think in."""
    evaluate, preferences = recipe.evaluate, recipe.preferences
    if recipe.grpo and recipe.grpo.prompt == "think" and recipe.grpo.format == "completion":
        text = "`think` asks the model by its chat template. Write `format: chat` (or `auto`) under grpo."
        yield RecipeFault("recipe.think-needs-chat", "grpo.prompt", text)
    if preferences and preferences.prompt == "think":
        if preferences.format == "completion":
            text = "`think` asks the model by its chat template. Write `format: chat` (or `auto`) under preferences."
            yield RecipeFault("recipe.think-needs-chat", "preferences.prompt", text)
        if steps := [step for step in preferences.pairs if step.startswith("gt>")]:
            text = f"`{steps[0]}` prefers a verified answer, and these have no thinking: the model would learn not to "
            text += "think. Write `pairs: [chosen>rejected]`, or `prompt: explain`."
            yield RecipeFault("recipe.think-without-truth", "preferences.pairs", text)
    if evaluate is None or "think" not in evaluate.prompts:
        return
    for name, model in evaluate.models.items():
        own = isinstance(model, ApiModel)
        texts = not model.chat if isinstance(model, ApiModel) else evaluate.format == "completion"
        if texts and not (isinstance(model, str) and model.startswith(OPENAI_PREFIX)):
            mend = f"chat: true` under evaluate.models.{name}" if own else "format: chat` (or `auto`)"
            text = f"`think` asks `{name}` by its chat template. Write `{mend}, or leave `think` out."
            yield RecipeFault("recipe.think-needs-chat", "evaluate.prompts", text)
            return


def ablations_have_own_names(recipe: Recipe) -> Iterator[RecipeFault]:
    """No row of the ablation table has the name of a model under evaluate.models."""
    for name in recipe.ablations:
        if recipe.evaluate and name in recipe.evaluate.models:
            text = f"`{name}` is already the name of a row, under evaluate.models. Choose another name."
            yield RecipeFault("recipe.duplicate-name", f"ablations.{name}", text)


def machines_are_known(recipe: Recipe) -> Iterator[RecipeFault]:
    """Each `run_on` is a known machine, and a batch divides evenly over its devices."""
    for named in stages_of(recipe):
        stage, settings = str(named), getattr(recipe, named)
        name = getattr(settings, "run_on", None)
        on = machine(name) if name else None
        if name and on is None:
            near = did_you_mean(name, machine_names())
            yield RecipeFault("recipe.unknown-machine", f"{stage}.run_on", f"Unknown machine `{name}`. {near}")
        if isinstance(settings, Rounds):
            settings, stage = settings.rpo, "rounds.rpo"
        if isinstance(settings, Training):
            nodes = recipe.slurm.nodes
            at_once = settings.per_device_train_batch_size * (on.count if on else 1) * nodes
            if settings.total_batch_size % at_once:
                rows = settings.total_batch_size
                text = f"{rows} rows do not divide over {at_once} at once. Use a multiple of {at_once}."
                yield RecipeFault("recipe.batch-not-divisible", f"{stage}.total_batch_size", text)
            if on and on.gpu and not on.gpu.bfloat16 and settings.dtype == "bfloat16":
                text = f"{on.name} cannot compute in bfloat16. Set `dtype: float16`."
                yield RecipeFault("recipe.no-bfloat16", f"{stage}.dtype", text)


def private_exams_stay_here(recipe: Recipe) -> Iterator[RecipeFault]:
    """No question of a private exam is sent to another machine that the exam does not name."""
    asked = recipe.evaluate.benchmarks if recipe.evaluate else ()
    for name, exam in recipe.exams.items():
        if exam.private and name in asked:
            for host in hosts_of(recipe):
                if host.place.startswith("evaluate") and host.outside and not allows(exam, host.address):
                    text = (
                        f"`{name}` is private, and its questions would be sent to {host.name}. Ask a model of this "
                        f"machine, or write `allowed_hosts: [{host.hostname}]` under exams.{name}."
                    )
                    yield RecipeFault("recipe.private-exam", host.place, text)


RULES: tuple[Rule, ...] = (
    keys_of_stages_are_given,
    sources_exist,
    exams_are_known,
    years_belong_to_exams,
    exam_is_held_out,
    cutoff_precedes_exams,
    chat_templates_are_texts,
    adapter_has_a_shape,
    samples_differ,
    thinking_has_a_channel,
    ablations_have_own_names,
    machines_are_known,
    *TRAINING_RULES,
    private_exams_stay_here,
    *ROUND_RULES,
    *TEACHER_RULES,
)


def broken_rules(recipe: Recipe) -> list[RecipeFault]:
    """Apply every rule to a recipe whose single values are valid; what the rounds inherit is reported once."""
    faults = [fault for rule in RULES for fault in rule(recipe)]
    known = {(fault.place, fault.code) for fault in faults}
    inherited = [fault for fault in faults if (fault.place.removeprefix("rounds."), fault.code) in known]
    return [fault for fault in faults if fault not in inherited or not fault.place.startswith("rounds.")]


def known_exams(recipe: Recipe) -> list[str]:
    """List the exams that a recipe may name: those of the catalogue and its own."""
    return [*CATALOGUE, *(name for name in recipe.exams if name not in CATALOGUE)]
