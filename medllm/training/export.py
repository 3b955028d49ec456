"""Export of a training: an adapter folder that loads, stops and records what it was made from."""

import json
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase

from medllm.weights.adapter import write_base
from medllm.weights.chat_template import plain_template
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import end_marks
from medllm.weights.special_tokens import TextTokens

SETS = ("target_modules", "exclude_modules")


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write tokenizer, chat template and a generation_config that stops."""
    if tokenizer.chat_template is None:
        tokenizer.chat_template = plain_template(tokenizer, TextTokens(tokenizer).begin)
    tokenizer.save_pretrained(str(out))
    stops = GenerationConfig(
        eos_token_id=end_marks(tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )
    stops.save_pretrained(str(out))


def save_adapter_only(model: PeftModel, out: Path, state: dict[str, Any] | None = None) -> None:
    """Save the learning adapter only: not TRL's reference, nor the base's embedding that PEFT would add.

    PEFT keeps the names of its targets in a set, whose order is another in each process: the file has them in order.
    """
    model.save_pretrained(str(out), selected_adapters=["default"], save_embedding_layers=False, state_dict=state)
    config = out / "adapter_config.json"
    if config.is_file():  # of several processes one writes it
        values = json.loads(config.read_text("utf-8"))
        values |= {name: sorted(value) for name, value in values.items() if name in SETS and isinstance(value, list)}
        config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")


def write_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    base: Checkpoint,
    out: Path,
    state: dict[str, Any] | None = None,
) -> None:
    """Write the trained adapter alone (TRL's frozen reference is left out), and the base it belongs to."""
    save_adapter_only(model, out, state)
    (out / "README.md").unlink(missing_ok=True)
    write_base(out, base)
    write_tokenizer(tokenizer, out)
