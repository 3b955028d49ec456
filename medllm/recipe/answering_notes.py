"""Notes of the stages that ask models: which engine or server answers, and how many answers they draw."""

from medllm.exam.benchmarks import CATALOGUE
from medllm.recipe.dependencies import hosts_of
from medllm.recipe.servers import AUTO, LOCAL, OPENAI_PREFIX, TRANSFORMERS, ApiModel, is_address, is_vllm
from medllm.recipe.settings import Evaluate, Grpo, Preferences, Recipe, Teach
from medllm.wording import number_of

ENGINE_NOTES = {
    LOCAL: "medllm's own generator, which computes the worked examples once",
    TRANSFORMERS: "plain `generate`, for a model of any type",
    AUTO: "vLLM where there are a GPU and MEDLLM_VLLM, else `local` if it passes its check, else `transformers`",
}
"""What each engine of this machine is; a run states which one `auto` has chosen."""


def who_answers(recipe: Recipe, settings: Teach | Preferences | Evaluate) -> tuple[str, ...]:
    """Name the engine that answers, if a model is here, and the servers that others are behind."""
    stage = "evaluate" if isinstance(settings, Evaluate) else "teach" if isinstance(settings, Teach) else "preferences"
    servers = dict.fromkeys(host.address for host in hosts_of(recipe) if host.place.startswith(f"{stage}."))
    asked = tuple(f"asks the server {address}" for address in servers)
    if recipe.chat_template and settings.format == "completion":
        asked = (*asked, "asks by completion, so without `chat_template` (`format: chat` asks by it)")
    models = settings.models.values() if isinstance(settings, Evaluate) else [settings.model]
    behind = [isinstance(model, ApiModel) or model.startswith(OPENAI_PREFIX) for model in models]
    name = settings.engine
    if all(behind) or is_address(name):
        return asked
    if is_vllm(name):
        return (f"answers with {name}: a server of the run's own, from MEDLLM_VLLM or the program `vllm`", *asked)
    return (f"answers with {name}: {ENGINE_NOTES[name]}", *asked)


def describe_drawing(settings: Teach | Preferences) -> str:
    """Word how many answers are drawn, and the most tokens that they have."""
    if not settings.questions:
        return f"{settings.samples} answers to each question, at most {settings.max_new_tokens} tokens each"
    answers = settings.questions * settings.samples
    tokens = answers * settings.max_new_tokens
    most = f"{tokens / 1e6:.1f} million" if tokens >= 1e5 else f"{tokens:,}"
    dollars = most_dollars(settings) if isinstance(settings, Teach) else None
    price = "" if dollars is None else f", at most ${dollars:,.2f} for them (prompts aside)"
    return f"{number_of(answers, 'answer')}, at most {most} tokens{price}"


def most_dollars(settings: Teach) -> float | None:
    """Return what the replies of a teacher behind a server cost at most, prompts aside; None without price or number.

    >>> from medllm.recipe.settings import Teach
    >>> here = {"model": "big", "engine": "http://127.0.0.1:8000/v1", "data": "./past"}
    >>> most_dollars(Teach(**here, questions=1000, samples=4, max_new_tokens=1000, prices={"big": (1, 5)}))
    20.0
    """
    price = settings.prices.get(settings.name)
    if price is None or settings.questions is None:
        return None
    return settings.questions * settings.samples * settings.max_new_tokens * price[1] / 1e6


def describe_rollouts(settings: Grpo) -> str:
    """Describe how many completions a training by rewards writes, and their tokens."""
    count = settings.max_steps and settings.max_steps * settings.total_batch_size // settings.num_iterations
    if settings.num_train_epochs and settings.questions:
        count = int(settings.num_train_epochs * settings.questions) * settings.num_generations
    if not count:
        each = f"{settings.num_generations} completions of each question and epoch"
        return f"writes {each}, at most {settings.max_completion_length} tokens each"
    tokens = count * settings.max_completion_length
    most = f"{tokens / 1e6:.1f} million" if tokens >= 1e5 else f"{tokens:,}"
    return f"writes {number_of(count, 'completion')}, at most {most} tokens"


def describe_exam(settings: Evaluate) -> str:
    """Word how many questions an evaluation asks, as far as the catalogue counts them."""
    counts = [CATALOGUE[name].questions for name in settings.benchmarks if name in CATALOGUE]
    if len(counts) < len(settings.benchmarks) or settings.years:
        each = "one answer" if settings.samples == 1 else f"{settings.samples} answers"
        models, prompts = number_of(len(settings.models), "model"), number_of(len(settings.prompts), "prompt")
        return f"{models} x {prompts}, {each} to each question"
    asked = sum(min(count, settings.limit or count) for count in counts)
    answers = asked * len(settings.models) * len(settings.prompts) * settings.samples
    return f"{asked:,} questions, {answers:,} answers"
