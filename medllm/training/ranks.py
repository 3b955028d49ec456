"""What a process knows of the others from the variables of its launcher, before anything is exchanged."""

import os


def is_chief() -> bool:
    """Whether this process makes what all of a training read: the first of them, or the one that starts them."""
    return os.environ.get("RANK", "0") == "0"


def is_sharded() -> bool:
    """Whether the processes divide one model by FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def world() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
