"""The servers that a recipe's questions are sent to, and which exams may go there."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from medllm.recipe.servers import OPENAI, OPENAI_PREFIX, ApiModel, is_address
from medllm.recipe.settings import OwnExam, Recipe


@dataclass(frozen=True)
class Host:
    """One server that a stage sends prompts to."""

    place: str
    """The key of the recipe that names it."""
    address: str

    @property
    def name(self) -> str:
        """The host's name, with its port where one is written."""
        return urlsplit(self.address).netloc

    @property
    def hostname(self) -> str:
        """The host's name alone."""
        return urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        """The port, or that of the scheme."""
        parts = urlsplit(self.address)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def outside(self) -> bool:
        """Whether it is another machine than this one."""
        return is_outside(self.address)


def is_outside(address: str) -> bool:
    """Whether an address is another machine's.

    >>> [is_outside(f"http://{host}/v1") for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "10.0.0.7", "x.org")]
    [False, False, False, True, True]
    """
    name = urlsplit(address).hostname or ""
    try:
        return not ip_address(name).is_loopback
    except ValueError:
        return name != "localhost"


def allows(exam: OwnExam, address: str) -> bool:
    """Whether an exam may be sent to this address: any for a published exam, else this machine and what it names."""
    return not exam.private or not is_outside(address) or urlsplit(address).hostname in exam.allowed_hosts


def hosts_of(recipe: Recipe) -> Iterator[Host]:
    """List the servers that questions are sent to, each under the key that names it."""
    if recipe.preferences and is_address(recipe.preferences.engine):
        yield Host("preferences.engine", recipe.preferences.engine)
    evaluate = recipe.evaluate
    if evaluate is None:
        return
    if is_address(evaluate.engine):
        yield Host("evaluate.engine", evaluate.engine)
    for name, model in evaluate.models.items():
        if isinstance(model, ApiModel):
            yield Host(f"evaluate.models.{name}", model.api)
        elif model.startswith(OPENAI_PREFIX) and not is_address(evaluate.engine):
            yield Host(f"evaluate.models.{name}", OPENAI)
