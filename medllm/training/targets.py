"""The layers that an adapter sits on: named by the recipe, adaptable by PEFT, and counted against the whole model."""

import copy
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

from medllm.errors import TrainingError
from medllm.recipe.errors import did_you_mean
from medllm.recipe.settings import Lora
from medllm.recipe.training import ALL_LINEAR, LINEAR
from medllm.weights.adapter import matches, outside_text
from medllm.wording import number_of

PLAIN_LAYERS = ("torch.", "bitsandbytes.")
"""Where classes of linear layers come from whose result is a product and no more; a subclass of a model's own code may
give something else, as a router's scores."""
NAMED = 3
"""Names of layers in a sentence."""


def linear_layers(model: Any) -> list[str]:  # noqa: ANN401  a PreTrainedModel, or a PeftModel
    """The names of all linear layers that work on text, the head left out; under an adapter, as without it."""
    head = model.get_output_embeddings()
    names = []
    for name, module in _decoder(model).named_modules():
        if name.endswith("base_layer") or ".lora_" in name or module is head:
            continue
        layer = getattr(module, "base_layer", module)
        # Those of bitsandbytes are subclasses of torch's.
        if isinstance(layer, torch.nn.Linear) and type(layer).__module__.startswith(PLAIN_LAYERS):
            names.append(name)
    return names


def _decoder(model: Any) -> Any:  # noqa: ANN401
    return model.get_decoder() if hasattr(model, "get_decoder") else model


def target_modules(lora: Lora, model: Any) -> list[str]:  # noqa: ANN401  a PreTrainedModel
    """The names for PEFT: those of the recipe that PEFT can adapt.

    The seven names of the default mean every linear layer on a base whose blocks have layers of other names.
    Raises TrainingError for a name that no layer of the model has, and where PEFT can adapt none.
    """
    known = sorted({_last(name) for name in linear_layers(model)})
    everything = [name for name, _ in model.named_modules()]
    wanted = list(lora.target_modules)
    absent = [
        target for target in wanted if not any(name == target or name.endswith(f".{target}") for name in everything)
    ]
    if ALL_LINEAR in wanted or (absent and set(wanted) == set(LINEAR)):
        wanted, absent = known, []
    if absent:
        raise TrainingError(
            "training.unknown-layer",
            f"lora.target_modules: the base has no layer `{absent[0]}`. Its linear layers: {', '.join(known)}. Name "
            f"some of them, or write `[{ALL_LINEAR}]`.",
        )
    impossible = unadaptable(model, wanted)
    modules = [name for name in wanted if name not in impossible]
    if not modules:
        raise TrainingError(
            "training.no-adaptable-layer",
            f"lora.target_modules: PEFT can adapt none of {', '.join(wanted)} ({impossible[wanted[0]]}). Its linear "
            f"layers: {', '.join(known)}. Name some of them, or write `[{ALL_LINEAR}]`.",
        )
    return modules


def unadaptable(model: Any, names: list[str]) -> dict[str, str]:  # noqa: ANN401  a PreTrainedModel, or a PeftModel
    """Which of these names PEFT cannot adapt on this model, each with the reason."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    reasons = {}
    for name in names:
        config = LoraConfig(r=1, target_modules=[name, "another"], task_type="CAUSAL_LM")
        try:
            BaseTuner._check_target_module_compatiblity(None, config, base, _last(name))  # it looks at no tuner
        except ValueError:
            reasons[name] = "its values bypass the layer in this model's kernels"
            continue
        converted = copy.deepcopy(config)
        try:
            convert_peft_config_for_transformers(converted, base, None)
        except ValueError:  # one of two names that mean experts together
            reasons[name] = "PEFT takes the name for the fused experts"
            continue
        if converted.target_parameters:
            reasons[name] = "PEFT takes the name for the fused experts"
    return reasons


def lora_config(lora: Lora, model: Any) -> LoraConfig:  # noqa: ANN401  a PreTrainedModel
    """PEFT's words for a fresh adapter, on the layers that work on text.

    Raises TrainingError for names and patterns that no layer of the model has.
    """
    targets = target_modules(lora, model)
    _refuse_unused(lora, targets, [name for name, _ in model.named_modules()])
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=targets,
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        modules_to_save=list(lora.modules_to_save) or None,
        exclude_modules=outside_text(model),
        task_type="CAUSAL_LM",
    )


def _refuse_unused(lora: Lora, targets: list[str], modules: list[str]) -> None:
    """Refuse patterns that match no layer with an adapter, and modules that are not there: PEFT passes over both."""
    adapted = [name for name in modules if _last(name) in {_last(target) for target in targets}]
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(lora, key):
            try:
                unused = not any(matches(pattern, name) for name in adapted)
            except re.error as fault:
                raise TrainingError(
                    "training.unknown-layer", f"lora.{key}: `{pattern}` is no regular expression ({fault}). Correct it."
                ) from fault
            if unused:
                near = did_you_mean(pattern, sorted({_last(name) for name in adapted}))
                raise TrainingError(
                    "training.unknown-layer", f"lora.{key}: no layer with an adapter has the name `{pattern}`. {near}"
                )
    for wanted in lora.modules_to_save:
        if not any(name.endswith(wanted) for name in modules):
            near = did_you_mean(wanted, sorted({_last(name) for name in modules if not _last(name).isdigit()} - {""}))
            raise TrainingError("training.unknown-layer", f"lora.modules_to_save: no module `{wanted}`. {near}")


@dataclass(frozen=True)
class Coverage:
    """How much of a model an adapter changes."""

    sentence: str
    facts: dict[str, Any]


def coverage(model: Any) -> Coverage:  # noqa: ANN401  a PeftModel
    """Count the linear layers that learn and their share of the base's weights, and name those without an adapter."""
    if not hasattr(model, "peft_config"):
        learnt, total = (
            sum(map(torch.numel, parameters))
            for parameters in (filter(_learns, model.parameters()), model.parameters())
        )
        text = f"full fine-tuning: {learnt:,} of {total:,} weights are trained"
        return Coverage(text, {"method": "full fine-tuning", "trained_numbers": learnt})
    base = model.get_base_model()
    modules = dict(_decoder(base).named_modules())
    adapted: Counter[str] = Counter()
    left: Counter[str] = Counter()
    held = 0
    for name in linear_layers(base):
        layer = modules[name]
        learns = hasattr(layer, "lora_A")
        (adapted if learns else left)[_last(name)] += 1
        held += layer.in_features * layer.out_features if learns else 0
    experts, of_experts = _fused_experts(base)
    total = _numbers(base)
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    layers = adapted.total() + left.total()
    text = (
        f"adapts {adapted.total()} of {layers} linear layers ({_counted(adapted)}), {held / total:.1%} of the "
        f"weights, with {learnt:,} numbers of its own"
    )
    if left:
        reasons = unadaptable(model, sorted(left))
        text += f"; without an adapter: {_counted(left)}"
        for reason in dict.fromkeys(reasons.values()):
            text += f" ({', '.join(name for name, why in reasons.items() if why == reason)}: {reason})"
    if experts:
        text += (
            f"; without an adapter: the fused experts, {of_experts / total:.1%} of the weights ({_counted(experts)}; "
            "PEFT's `target_parameters`)"
        )
    share = {"adapted_layers": adapted.total(), "linear_layers": layers, "adapted_share": round(held / total, 4)}
    return Coverage(text, {**share, "trained_numbers": learnt})


def _learns(parameter: torch.Tensor) -> bool:
    return bool(parameter.requires_grad)


def _fused_experts(base: Any) -> tuple[Counter[str], int]:  # noqa: ANN401
    """The names of parameters that hold the matrices of several experts, and how many numbers they have."""
    counts: Counter[str] = Counter()
    numbers = 0
    for module in _decoder(base).modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 3 and not isinstance(module, torch.nn.Conv1d):
                counts[name] += 1
                numbers += parameter.numel()
    return counts, numbers


def _numbers(base: Any) -> int:  # noqa: ANN401
    """The weights of the base; a packed layer counts as the matrix that was packed."""
    packed = {
        id(module.weight): module.in_features * module.out_features
        for module in base.modules()
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt") and not hasattr(module, "base_layer")
    }
    own = [
        weight for name, weight in base.named_parameters() if ".lora_" not in name and ".modules_to_save." not in name
    ]
    return sum(packed.get(id(parameter), parameter.numel()) for parameter in own)


def unreached(model: Any, read: Any) -> str | None:  # noqa: ANN401  a PeftModel, and a function that lets it read
    """Name adapted layers that a text never goes through while `read` runs, which learn nothing; None without any.

    A kernel that takes a layer's weights and passes the layer over would leave them out without an error.
    """
    layers = {name: module for name, module in model.named_modules() if getattr(module, "lora_A", None)}
    seen: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda _, __, name=name: seen.add(name)) for name, module in layers.items()
    ]
    try:
        read()
    finally:
        for handle in handles:
            handle.remove()
    missed = sorted(set(layers) - seen)
    if not missed:
        return None
    if len(missed) == len(layers):
        raise TrainingError(
            "training.adapter-not-reached",
            "no text goes through any layer that has an adapter, so nothing would be learnt. Name other layers in "
            "`lora.target_modules`.",
        )
    names = [name.removeprefix("base_model.model.") for name in missed[:NAMED]]
    more = ", ..." if len(missed) > NAMED else ""
    return f"no text goes through {number_of(len(missed), 'adapted layer')}, so nothing is learnt there: " + (
        ", ".join(names) + more
    )


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in sorted(names.items())) or "none"
