"""The recipe's blocks about where a stage runs: on Slurm, and as Jobs of the Hub; they change no result."""

from typing import ClassVar

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from medllm.recipe.base import Settings


class SlurmOptions(Settings):
    """Resources that `--on slurm` requests."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset(
        {"nodes", "cpus", "mem", "gres", "partition", "time", "extra"}
    )

    nodes: int = Field(default=1, ge=1, le=1024)
    """Nodes for cpt, rpo, preferences and evaluate, each with the GPUs of `run_on`; other stages take one."""
    cpus: int = Field(default=4, ge=1)
    """Processors on each node."""
    mem: str | None = Field(default=None, pattern=r"^[1-9][0-9]*[KMGT]?$|^0$")
    """Main memory on each node, as `200G`, or 0 for all of it; when left out, what loading the base needs."""
    gres: str | None = Field(default=None, pattern=r"^[\w.:,/-]+$")
    """GPUs of each node in your site's words, as `gpu:h100-sxm:4`; those of `run_on` when left out."""
    partition: str | None = Field(default=None, pattern=r"^[\w.,-]+$")
    """The partition, or several divided by commas."""
    time: str = Field(default="2-00:00:00", pattern=r"^(\d+-)?\d+(:\d{1,2}){0,2}$")
    """Time limit of one job; ten minutes before it the training saves and the job is queued again."""
    extra: tuple[str, ...] = ()
    """Further options of sbatch, as `--account=med` or `--qos=long`."""

    @field_validator("extra")
    @classmethod
    def _are_options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not one.startswith("-") or not one.isprintable():
                raise PydanticCustomError("sbatch_option", "`{option}`", {"option": one})
        return value


class JobsOptions(Settings):
    """Options of `--on jobs`."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"image", "packages", "timeout", "tries"})

    image: str | None = Field(default=None, pattern=r"^[\w./:@-]+$")
    """The container image; it needs `uv`. The Hub's own for scripts when left out."""
    packages: tuple[str, ...] = ()
    """Further packages for the Job, as `kernels==0.5`."""
    timeout: str = Field(default="12h", pattern=r"^[1-9][0-9]*[smhd]$")
    """Time limit of one Job; the next Job continues from what it saved."""
    tries: int = Field(default=10, ge=1, le=100)
    """Maximum number of Jobs for one stage; each must get further than the one before."""
