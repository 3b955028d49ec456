"""Who answers: the engines of this machine, the vLLM server of a run, and models behind an address of their own."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from medllm.exam.record import PROMPTS
from medllm.recipe.base import Settings

OPENAI = "https://api.openai.com/v1"
OPENAI_PREFIX = "openai:"
LOCAL, TRANSFORMERS, VLLM, AUTO = ENGINES = ("local", "transformers", "vllm", "auto")
_PINNED = re.compile(r"vllm==(?P<version>\d+(?:\.\d+)+)")


def is_address(engine: str) -> bool:
    """Return whether an engine is a server that somebody else runs."""
    return engine.startswith(("http://", "https://"))


def is_vllm(engine: str) -> bool:
    """Return whether an engine is the vLLM server that the run starts itself."""
    return engine == VLLM or _PINNED.fullmatch(engine) is not None


def vllm_version(engine: str) -> str | None:
    """Return the version of vLLM that an engine fixes, or None.

    >>> vllm_version("vllm==0.32.0"), vllm_version("vllm")
    ('0.32.0', None)
    """
    match = _PINNED.fullmatch(engine)
    return match["version"] if match else None


def takes_any_type(settings: object) -> bool:
    """Return whether a stage's engine asks models of any type, also of one that the installed transformers lacks."""
    engine = getattr(settings, "engine", LOCAL)
    return engine == AUTO or is_vllm(engine)


def _engine(value: str) -> str:
    if value in ENGINES or is_vllm(value):
        return value
    parts = urlsplit(value)
    if not is_address(value) or not parts.hostname:
        name = f"`{value}`" if re.fullmatch(r"[\w.=<>~-]{1,40}", value) else "it"  # else it may hold a password
        raise ValueError(f"{name} is no engine. Write {', '.join(ENGINES)}, or an address as http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("an address holds no name, password or key. Put the key into OPENAI_API_KEY")
    return value


def for_prompt(values: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """Return the values of one prompt: those under its name where each key names a prompt, else all of them.

    >>> for_prompt({"seed": 1}, "think"), for_prompt({"think": {"reasoning_effort": "high"}}, "plain")
    ({'seed': 1}, {})
    """
    if values and all(key in PROMPTS and isinstance(value, dict) for key, value in values.items()):
        return dict(values.get(prompt, {}))
    return dict(values)


def switches(thinks: bool) -> dict[str, Any]:
    """Return the template values by which the families let a model think, or answer at once."""
    return {"enable_thinking": thinks, "thinking": thinks}


Engine = Annotated[str, AfterValidator(_engine)]
"""An engine of this machine, `vllm==VERSION`, or the address of a server."""


class VllmOptions(Settings):
    """How `engine: vllm` starts its server; the keys have vLLM's names, and none is part of the digest."""

    tensor_parallel_size: int | None = Field(default=None, ge=1)
    """Devices that share one copy of the model; as many as it needs when left out."""
    data_parallel_size: int | None = Field(default=None, ge=1)
    """Copies of the model; one for each GPU that is left when left out."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that the server takes."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Maximum number of replies that are written at once; vLLM's own when left out."""
    enforce_eager: bool = False
    """Compute without compiled kernels: a quicker start and slower answers."""
    start_timeout: float = Field(default=3600, gt=0)
    """Seconds until a server that is not ready counts as failed."""


class Asking(Settings):
    """How a model is asked: with a text that it completes, or with a conversation by its chat template."""

    keys_since: ClassVar[Mapping[str, Any]] = {
        "format": "completion",
        "system_prompt": None,
        "chat_template_kwargs": {},
        "chat_template": None,
    }

    format: Literal["completion", "chat", "auto"] = "completion"
    """`completion` gives the prompt as a text that goes on; `chat` as a conversation, by the model's own chat template;
    `auto` is `chat` where the model has a template (many bases have one too)."""
    system_prompt: str | None = None
    """The system message of a chat; the template's own when left out, none when empty."""
    chat_template: str | None = None
    """The chat template of models that have none; the recipe's `chat_template` when left out."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Values for the chat template, as `{reasoning_effort: low}`, or by prompt, as `{think: {reasoning_effort: high}}`.
    `enable_thinking` is set by the prompt: on for `think`, else off."""

    @field_validator("chat_template_kwargs")
    @classmethod
    def _leaves_the_conversation(cls, value: dict[str, Any]) -> dict[str, Any]:
        keys = {key for prompt in PROMPTS for key in for_prompt(value, prompt)}
        if reserved := sorted(keys & _OF_THE_CALL):
            raise ValueError(f"`{reserved[0]}` is decided by the evaluation. Leave it out")
        return value


_OF_THE_CALL = frozenset(
    {
        *("conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
        *("continue_final_message", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors"),
        *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    }
)
"""What transformers takes beside the values of a template."""


class ApiModel(Settings):
    """A model behind an address of its own, with OpenAI's protocol."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"key", "responses"})
    addresses: ClassVar[frozenset[str]] = frozenset({"api"})

    api: str
    """The server's address, as `http://HOST:PORT/v1`."""
    model: str = Field(min_length=1)
    """The server's name for the model."""
    revision: str | None = None
    """What the server has under that name, as a commit or a date: with another value the model is asked again."""
    chat: bool = True
    """Ask by chat messages; `false` sends the prompt as text to be completed."""
    responses: bool = False
    """Send chat messages to `/responses` (OpenAI's Responses API). A model that has no `/chat/completions` (the server
    answers 404) is asked there in any case."""
    key: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*$")
    """The environment variable, in capitals, that holds the server's key; the key itself is never written down."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Further keys of each request, as `{reasoning_effort: low}`, or by prompt, as `{think: {reasoning_effort: high}}`;
    `null` leaves out a key that is sent otherwise."""

    @model_serializer(mode="wrap")
    def _absent_when_null(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a revision that is not stated: results of before the key was there keep their digest."""
        return {key: value for key, value in dump(self).items() if key != "revision" or value is not None}

    @field_validator("api")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write the address of a server, as http://HOST:PORT/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("an address holds no name, password or key. Name the key's environment variable in `key`")
        return value

    @field_validator("request")
    @classmethod
    def _leaves_the_question(cls, value: dict[str, Any]) -> dict[str, Any]:
        keys = {key for prompt in PROMPTS for key in for_prompt(value, prompt)}
        if reserved := sorted(keys & {"model", "messages", "prompt", "input", "stream"}):
            raise ValueError(f"`{reserved[0]}` is decided by the evaluation. Leave it out")
        return value
