"""Models of an evaluation behind an address of their own."""

from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from medllm.recipe.base import Settings

OPENAI = "https://api.openai.com/v1"
OPENAI_PREFIX = "openai:"


class ApiModel(Settings):
    """A model behind an address of its own, with OpenAI's protocol."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"key"})
    addresses: ClassVar[frozenset[str]] = frozenset({"api"})

    api: str
    """The server's address, as `http://HOST:PORT/v1`."""
    model: str = Field(min_length=1)
    """The server's name for the model."""
    chat: bool = True
    """Ask by chat messages; `false` sends the prompt as text to be completed."""
    key: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*$")
    """The environment variable, in capitals, that holds the server's key; the key itself is never written down."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Further keys of each request, as `{reasoning_effort: low}`; `null` leaves out a key that is sent otherwise."""

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
        if reserved := sorted(set(value) & {"model", "messages", "prompt", "stream"}):
            raise ValueError(f"`{reserved[0]}` is decided by the evaluation. Leave it out")
        return value
