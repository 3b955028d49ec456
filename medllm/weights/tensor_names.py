"""How a model's files name its tensors and how the model in memory names them: transformers' own conversion mapping."""

from collections.abc import Callable
from pathlib import Path

from medllm.errors import ModelError


def renaming(folder: Path) -> Callable[[str], str | None]:
    """Read from config.json how a tensor's name on disk becomes its name in memory; both kinds of name may be given.

    The function gives None for a tensor that transformers joins with others while it loads (fused experts). It is
    needed where the two differ: Gemma 3 with vision stores `language_model.model.layers...` and holds
    `model.language_model.layers...`.
    """
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        found = get_model_conversion_mapping(model)
    except (ImportError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as fault:
        raise ModelError(
            "weights.unknown-tensor-names",
            f"{folder}: the installed transformers does not know how this model names its tensors "
            f"({str(fault).splitlines()[0] if str(fault) else type(fault).__name__}). Update transformers.",
        ) from fault
    renamings = [one for one in found if isinstance(one, WeightRenaming)]
    converters = [one for one in found if not isinstance(one, WeightRenaming)]
    state = model.state_dict()

    def rename(name: str) -> str | None:
        new, joined = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        return None if joined is not None else str(new)

    return rename
