"""Known messages of libraries that do not concern who runs a recipe: one list, each with the reason why it is silenced.

Every process of ours calls `silence_known_messages` once, where it starts; what is not in the list is shown.
"""

import logging
import os
import re
import warnings
from dataclasses import dataclass

LIBRARIES = r"(accelerate|bitsandbytes|datasets|huggingface_hub|peft|torch|transformers|trl)(\.|$)"


@dataclass(frozen=True)
class KnownWarning:
    """A Python warning that is silenced."""

    message: str
    """The beginning of its text, as a regular expression."""
    category: type[Warning]
    reason: str
    module: str = ""
    """The module that it names as its place, as a regular expression; any when empty."""


@dataclass(frozen=True)
class KnownLine:
    """A line of a library's log that is silenced."""

    logger: str
    text: str
    """A part of the line; every line when empty."""
    reason: str


WARNINGS = (
    KnownWarning(
        "",
        FutureWarning,
        "deprecations inside libraries are for their developers; the versions that medllm was tested with are pinned",
        LIBRARIES,
    ),
    KnownWarning(
        ".is_gradient_checkpointing. is deprecated|.gradient_checkpointing(_kwargs|_disable|_enable)?. is deprecated",
        FutureWarning,
        "PEFT and TRL use old names of transformers",
    ),
    KnownWarning(
        "Setting .save_embedding_layers. to .True.",
        UserWarning,
        "PEFT warns at every checkpoint of an adapter on the embedding; the adapter that is written has none",
    ),
    KnownWarning(
        "Model has .tie_word_embeddings=True. and a tied layer is part of the adapter",
        UserWarning,
        "the merge parts a tied head from an adapted embedding, which is what this warns of",
    ),
    KnownWarning(
        "It seems that you are about to commit a data file",
        UserWarning,
        "an RPO model carries its reference as a table, and a Space its results",
    ),
    KnownWarning(".*experimental", UserWarning, "the client warns that Jobs may change; its version is pinned"),
)

LINES = (
    KnownLine("bitsandbytes.backends.cpu.ops", "", "it lacks a CPU kernel that medllm switches off"),
    KnownLine(
        "transformers.trainer_utils",
        "mtime may not be reliable",
        "checkpoints are found by their numbers, not by their times",
    ),
)

ENVIRONMENT = {
    "TQDM_DISABLE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
"""Bars of libraries, which they draw or not as they are imported: they would break the last line and fill a log."""


class _Known(logging.Filter):
    """Lets every line through but those of one entry of the list."""

    def __init__(self, line: KnownLine) -> None:
        super().__init__()
        self.line = line

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is shown."""
        return re.search(re.escape(self.line.text), record.getMessage()) is None


def silence_known_messages() -> None:
    """Silence the list in this process, and bars in those that it starts as well; a second call changes nothing."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for known in WARNINGS:
        warnings.filterwarnings("ignore", known.message, known.category, known.module)
    for line in LINES:
        logger = logging.getLogger(line.logger)
        if not any(isinstance(known, _Known) and known.line == line for known in logger.filters):
            logger.addFilter(_Known(line))
