"""The recipe's blocks about where work is done: under Slurm, and as Jobs of the Hub. They change no result."""

from typing import ClassVar

from pydantic import Field, field_validator

from medllm.recipe.base import Settings


class SlurmPlace(Settings):
    """What `--on slurm` asks the cluster for."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset(
        {"nodes", "cpus", "mem", "gres", "partition", "time", "extra"}
    )

    nodes: int = Field(default=1, ge=1, le=1024)
    """Machines for cpt, rpo and the stages that answer, each as `run_on` says; the other stages take one."""
    cpus: int = Field(default=4, ge=1)
    """Processors on each node."""
    mem: str | None = Field(default=None, pattern=r"^[1-9][0-9]*[KMGT]?$|^0$")
    """Main memory on each node, as `200G`, or 0 for all of it; when left out, what loading the base needs."""
    gres: str | None = Field(default=None, pattern=r"^[\w.:,/-]+$")
    """GPUs of each node as your site calls them, as `gpu:h100-sxm:4`; when left out, `run_on` says it."""
    partition: str | None = Field(default=None, pattern=r"^[\w.,-]+$")
    """The partition, or several divided by commas."""
    time: str = Field(default="2-00:00:00", pattern=r"^(\d+-)?\d+(:\d{1,2}){0,2}$")
    """Limit of one job; ten minutes before it the training saves and the job is queued again."""
    extra: tuple[str, ...] = ()
    """Further options of sbatch, as `--account=med` or `--qos=long`."""

    @field_validator("extra")
    @classmethod
    def _are_options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if not one.startswith("-") or not one.isprintable():
                raise ValueError(f"`{one}` is no option of sbatch. Write it as `--account=med`")
        return value


class JobsPlace(Settings):
    """How `--on jobs` asks the Hub."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"image", "packages", "timeout", "tries"})

    image: str | None = Field(default=None, pattern=r"^[\w./:@-]+$")
    """The container, when not the Hub's own for scripts; it needs `uv`."""
    packages: tuple[str, ...] = ()
    """Further packages for the Job, as `kernels==0.5`."""
    timeout: str = Field(default="12h", pattern=r"^[1-9][0-9]*[smhd]$")
    """Limit of one Job; what was made until then is kept, and another Job continues it."""
    tries: int = Field(default=10, ge=1, le=100)
    """Jobs for one stage at most; each must get further than the one before."""
