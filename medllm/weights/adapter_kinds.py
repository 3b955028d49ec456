"""Which kinds of adapter act as a change of weights that we know to the last bit, and which are refused by name."""

from typing import Any

from medllm.errors import ModelError

FREE = frozenset(
    {
        *("peft_type", "peft_version", "task_type", "auto_mapping", "inference_mode"),
        *("base_model_name_or_path", "revision", "lora_dropout", "runtime_config"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("megatron_core", "qalora_group_size"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    }
)
"""Keys of adapter_config.json that record where the adapter is or how it was trained, never what its tensors do. The
four `..._config` keys belong to initialisations, which `init_lora_weights` decides on."""

FOLLOWED = frozenset(
    {
        *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "modules_to_save"),
        *("trainable_token_indices", "lora_bias", "ensure_weight_tying", "init_lora_weights", "fan_in_fan_out"),
        "use_dora",
    }
)
"""Keys that decide what the tensors do, and that the merge follows as PEFT does."""

BY_PEFT = "Merge it with PEFT (`merge_and_unload`) and give the merged model instead."
REFUSED = {
    "alora_invocation_tokens": (
        "aLoRA (it acts only after its invocation tokens)",
        "No merged model can do that: serve it as an adapter, or train a plain LoRA.",
    ),
    "target_parameters": (
        "LoRA on bare parameters, as mixtures of experts have them (`target_parameters`)",
        BY_PEFT,
    ),
    "layer_replication": ("LoRA with repeated layers (`layer_replication`)", BY_PEFT),
    "megatron_config": ("LoRA on Megatron's parallel layers", "Save it from a model with plain layers."),
    "use_qalora": ("QA-LoRA", "It fits only the GPTQ model it was trained on: serve it there."),
    "use_bdlora": ("BD-LoRA (block-diagonal factors)", BY_PEFT),
    "velora_config": ("VeLoRA", BY_PEFT),
    "monteclora_config": ("MonteCLoRA", BY_PEFT),
    "kasa_config": ("KaSA (it cuts the smallest parts off the base's weights)", BY_PEFT),
    "arrow_config": ("Arrow (it routes between adapters)", "No merged model can do that: serve the adapters."),
}
"""Variants of LoRA that are not one product of two factors added to a weight: key, its name, and what to do."""

CONVERT = (
    "Save it once more where it was trained, with `save_pretrained(..., path_initial_model_for_weight_conversion=...)`:"
    " PEFT then writes it as plain LoRA of the unchanged base."
)
CHANGES_BASE = {"pissa": "PiSSA", "olora": "OLoRA", "corda": "CorDA", "lora_ga": "LoRA-GA", "loftq": "LoftQ"}
"""Initialisations that take something out of the base's own weights, so that base and factors alone are another
model."""
KEEPS_BASE = ("gaussian", "eva", "orthogonal", "mica")
"""Initialisations that leave the base as it is: what is saved acts like any other LoRA."""


def refuse_unknown(config: dict[str, Any], named: str) -> None:
    """Refuse an adapter whose tensors do more than add one product to a weight; the error names the kind and the mend.

    `config` is PEFT's adapter_config.json, `named` what to call the adapter.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(
            "weights.not-lora",
            f"{named}: the adapter is {kind}; medllm reads LoRA only. Convert it with `peft.convert_to_lora`, or "
            "merge it with PEFT and give the merged model instead.",
        )
    for key, (name, mend) in REFUSED.items():
        if config.get(key):
            raise ModelError(
                "weights.lora-variant", f"{named}: the adapter is {name}; medllm reads plain LoRA only. {mend}"
            )
    _refuse_init(config.get("init_lora_weights", True), named)
    unknown = sorted(key for key in config.keys() - FREE - FOLLOWED - REFUSED.keys() if config[key])
    if unknown:
        raise ModelError(
            "weights.unknown-adapter-key",
            f"{named}: adapter_config.json sets `{unknown[0]}`, an unknown key that may change what the adapter does. "
            "Merge it with the version of PEFT that made it; if the key changes no weight, remove it from the file.",
        )


def _refuse_init(init: object, named: str) -> None:
    if init is None or isinstance(init, bool) or (isinstance(init, str) and init.lower() in KEEPS_BASE):
        return
    start = str(init).lower().split("_niter_")[0]
    if start in CHANGES_BASE:
        mend = "Give it as plain LoRA of the LoftQ base (`init_lora_weights: true`)." if start == "loftq" else CONVERT
        raise ModelError(
            "weights.init-changes-base",
            f"{named}: {CHANGES_BASE[start]} initialised the adapter and changed weights of the base as well, so with "
            f"the published base it is another model. {mend}",
        )
    raise ModelError(
        "weights.unknown-init",
        f"{named}: the adapter's initialisation `{init}` is unknown and may change the base. {BY_PEFT}",
    )
