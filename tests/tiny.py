"""A random model of a few thousand numbers and the folders around it, for tests that need real weights but no skill."""

import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.recipe.settings import Cpt, Lora, Rpo, Sft

_QUICK = {"dtype": "float32", "gradient_checkpointing": False, "logging_steps": 1, "save_steps": 2, "report_to": ()}
_QUICK |= {"max_steps": 6, "total_batch_size": 4}
CPT = Cpt(lora=Lora(r=4, lora_alpha=8), per_device_train_batch_size=2, max_length=64, learning_rate=1e-2, **_QUICK)
RPO = Rpo(model="cpt", rpo_alpha=10, max_length=256, learning_rate=1e-3, **_QUICK)
SFT = Sft(
    data=[{"source": "./talks", "license": "cc-by-4.0", "published": "2015-04-01"}],
    held_out=[],
    cutoff="2017-12-31",
    lora=Lora(r=4, lora_alpha=8),
    per_device_train_batch_size=2,
    max_length=96,
    learning_rate=1e-2,
    **_QUICK,
)
"""Six steps of each training, with a checkpoint after every other one."""

NAMES = "患者 発熱 咳嗽 心電図 腎 肝 投与 mg 診断 急性 慢性 治療 痛み 胸部 正解 答え 問題 解説"
WORDS = [*NAMES.split(), *"abcde。、123"]


def sentences(count: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Invented word salad, the same for the same seed."""
    draw = random.Random(seed)
    return ["".join(draw.choices(WORDS, k=draw.randint(5, longest))) for _ in range(count)]


def make_base(
    folder: Path,
    *,
    tied: bool = False,
    family: str = "qwen2",
    seed: int = 0,
    shard: str = "50GB",
    dtype: str = "float32",
    **changed,
) -> Path:
    """Write a model folder with a byte-level BPE tokenizer, as those of the supported families have."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer()
    made = make_config(tokenizer, family, tie_word_embeddings=tied, **changed)
    torch.manual_seed(seed)
    kind = getattr(transformers, SEEING[family]) if family in SEEING else AutoModelForCausalLM
    build = getattr(kind, "from_config", None) or kind._from_config
    model = build(made, dtype=getattr(torch, dtype))
    model.save_pretrained(str(folder), max_shard_size=shard)
    tokenizer.save_pretrained(str(folder))
    return folder


HALF = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
LINEAR = {
    **{"layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    **{"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8},
    **{"v_head_dim": 8, "head_dim": None},
}
GROUPED = {"n_routed_experts": 4, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, **EXPERTS}
FAMILIES: dict[str, dict[str, object]] = {
    **{one: {} for one in ("qwen2", "qwen3", "llama", "mistral", "ministral3", "glm4", "phi3", "bert")},
    "gemma3_text": HALF,
    "olmo3": HALF,
    "gemma3": {},
    "gemma2": {"sliding_window": 16, "query_pre_attn_scalar": 8},
    "gemma4_text": {
        **HALF,
        **{"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 400},
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**EXPERTS, "decoder_sparse_step": 1},
    "gpt_oss": {**HALF, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": None},
    "glm4_moe": GROUPED,
    "deepseek_v3": {**GROUPED, **LATENT},
    "llama4_text": {
        **{"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 64},
        **{"interleave_moe_layer_step": 1, "no_rope_layers": [1, 0], "attn_temperature_tuning": True},
    },
    "qwen3_5_text": LINEAR,
    "qwen3_5": {},
    "qwen3_next": {**LINEAR, **EXPERTS, "shared_expert_intermediate_size": 32},
    "falcon_h1": {
        **{"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8},
    },
    "nemotron_h": {
        **{"layer_types": ["mamba", "attention", "mlp", "moe"], "n_routed_experts": 4, "moe_intermediate_size": 32},
        **{"mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 1, "ssm_state_size": 8},
        **{"moe_shared_expert_intermediate_size": 32, "moe_latent_size": None, "num_experts_per_tok": 2},
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024},
    "mamba": {"state_size": 8, "num_attention_heads": None, "num_key_value_heads": None, "head_dim": None},
}
"""Types of model, and what makes a small one of each beside the values that all have; None takes such a value away."""
SEEING = {"gemma3": "Gemma3ForConditionalGeneration", "qwen3_5": "Qwen3_5ForConditionalGeneration"}
"""Models with a vision tower, and the class that published ones are saved with."""
OTHER_FAMILIES = tuple(sorted(set(FAMILIES) - {"qwen2", "qwen3", "llama", "mistral", "gemma3_text", "gemma3"}))
"""Types that are probed when they are loaded."""


def make_config(tokenizer, family, **changed):
    """The shape of the model, in the words of its family."""
    from transformers import CONFIG_MAPPING

    if family in SEEING:
        return _make_seeing(tokenizer, family, **changed)
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.2,
    }
    if family == "gpt2":
        common = {name: common[name] for name in ("vocab_size", "eos_token_id", "bos_token_id")}
    values = {**common, **FAMILIES[family], **changed}
    taken = {
        name for name, value in values.items() if value is None and name not in ("bos_token_id", "rope_parameters")
    }
    return CONFIG_MAPPING[family](**{name: value for name, value in values.items() if name not in taken})


def _make_seeing(tokenizer, family, **changed):
    """A model whose text part has the names of its own, as 4B and more of Gemma 3 and all of Qwen3.5 have them."""
    import transformers

    eyes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ties = {"tie_word_embeddings": changed.get("tie_word_embeddings", False)}
    text = make_config(tokenizer, f"{family}_text", **changed)
    if family == "gemma3":
        eyes = transformers.SiglipVisionConfig(**eyes, image_size=28, patch_size=14)
        marks = {"image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7, "mm_tokens_per_image": 4}
        return transformers.Gemma3Config(text_config=text, vision_config=eyes, **marks, **ties)
    eyes = {"hidden_size": 32, "intermediate_size": 64, "depth": 1, "num_heads": 2, "out_hidden_size": 32}
    marks = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7, "vision_end_token_id": 8}
    return transformers.Qwen3_5Config(
        text_config=text.to_dict(), vision_config={**eyes, "patch_size": 14}, **marks, **ties
    )


def make_tokenizer():
    """Train a small byte-level BPE on the invented words."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # The splitting that Qwen2's class rebuilds from its own rules, so that file and class agree.
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    pattern += r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(200, seed=1), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def published_template(family: str) -> str:
    """Return the chat template of a family, as the installed TRL has it: `qwen3`, `gptoss`, `gemma`, ..."""
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text("utf-8")


def make_chat_tokenizer(template: str):
    """Make a small tokenizer that has a chat template and every mark that the template writes."""
    from tokenizers import AddedToken

    tokenizer = make_tokenizer()
    marks = dict.fromkeys(MARK.findall(template))
    tokenizer.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in ("<think>", "</think>")])
    tokenizer.bos_token = next((mark for mark in ("<bos>", "<s>") if mark in marks), "<|endoftext|>")
    tokenizer.chat_template = template
    return tokenizer


SCRIPT = {"\n": "<think>", "<think>": "患者", "患者": "答え", "答え": "a", "a": "</think>", "</think>": "\n\n"}
SCRIPT |= {"\n\n": "b", "b": "<|im_end|>"}
"""What a scripted Qwen3 writes after each token: with thinking on, that a is the answer; then, or without, b."""


def make_scripted(folder: Path, script: dict[str, str] = SCRIPT, template: str | None = None) -> Path:
    """Write a tiny Qwen3 with its family's chat template that writes one token after another as a script has it."""
    import torch
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM

    tokenizer = make_chat_tokenizer(template or published_template("qwen3"))
    words = [AddedToken(word, special=False, normalized=False) for word in script if word not in tokenizer.get_vocab()]
    tokenizer.add_tokens(words)
    size = len(tokenizer) + len(tokenizer) % 2
    config = make_config(tokenizer, "qwen3", vocab_size=size, hidden_size=size, num_hidden_layers=1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    layer = model.model.layers[0]
    for silent in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight, model.lm_head.weight):
        torch.nn.init.zeros_(silent)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight[tokenizer.eos_token_id] = 0.1
        for before, after in script.items():
            ids = tokenizer.convert_tokens_to_ids([before, after])
            model.lm_head.weight[ids[1], ids[0]] = 1.0
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


MARK = re.compile(
    r"<\|[^|<>\s'\"]+\|>|<(?:start|end)_of_[a-z]+>|<｜[^<>｜]+｜>|<\|[a-z]+>|<[a-z]+\|>|</?s>|\[gMASK\]|<sop>"
)
"""How the families write what steers a model."""


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template without marks of what is learnt, for the small bases."""
SFT = SFT.model_copy(update={"chat_template": CHAT})


def make_corpus(folder: Path, count: int = 40, longest: int = 40) -> Path:
    """Write a corpus folder of invented documents."""
    (folder / "corpus").mkdir(parents=True)
    texts = sentences(count, seed=2, longest=longest)
    table = pa.table({"id": [str(number) for number in range(count)], "text": texts})
    pq.write_table(table, folder / "corpus" / "train.parquet")
    return folder


def make_pairs(folder: Path, count: int = 16) -> Path:
    """Write a preferences folder of invented pairs."""
    (folder / "data").mkdir(parents=True)
    prompts, chosen, rejected = (sentences(count, seed=seed, longest=12) for seed in (3, 4, 5))
    columns = {
        "prompt": [f"{shot}\n\n問題: {p}\n解説:" for shot, p in zip(sentences(count, seed=6), prompts, strict=True)],
        "prompt_without_shots": [f"問題: {p}\n解説:" for p in prompts],
        "chosen": [f"{text}\n答え: a" for text in chosen],
        "rejected": [f"{text}\n答え: b" for text in rejected],
    }
    pq.write_table(pa.table(columns), folder / "data" / "train.parquet")
    return folder


def make_talks(folder: Path, count: int = 24) -> Path:
    """Write a folder of invented conversations, every third with two turns of the assistant."""
    folder.mkdir(parents=True)
    asked, replied = (sentences(2 * count, seed=seed, longest=10) for seed in (30, 31))
    lines = []
    for number in range(count):
        turns = [number, *([count + number] if number % 3 == 0 else [])]
        messages = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in (("user", asked[turn]), ("assistant", replied[turn]))
        ]
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False))
    (folder / "talks.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def make_adapter(
    folder: Path, base: Path, *, seed: int = 0, std: float = 0.1, dtype: str = "float32", **config
) -> Path:
    """Write a random LoRA adapter of this base, one that changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from medllm.weights.adapter import write_base
    from medllm.weights.checkpoint import Checkpoint

    torch.manual_seed(seed)
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], **config}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
    adapted = get_peft_model(model, LoraConfig(**options, task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            torch.nn.init.normal_(parameter, std=std)
        if "modules_to_save" in name:
            parameter.data += std * torch.randn_like(parameter)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    write_base(folder, Checkpoint(base))
    return folder


def make_exam(folder: Path, count: int = 12, *, first: str = "2015-02-07", seed: int = 20) -> Path:
    """Write an exam of our own columns, every item with an explanation."""
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    lines = []
    for number, stem in enumerate(sentences(count, seed=seed, longest=10)):
        row = {
            "question_id": f"Q{number}",
            "text": stem,
            "choices": [f"{word}{number}" for word in draw.sample(NAMES.split(), 5)],
            "answer": draw.choice("abcde"),
            "exam_date": first,
            "year": int(first[:4]),
            "explanation": f"{stem}のため。",
        }
        lines.append(json.dumps(row, ensure_ascii=False))
    (folder / "exam.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def make_sources(folder: Path) -> dict[str, Path]:
    """What the trainings are made from, by the names that the stages know."""
    base = make_base(folder / "base")
    return {
        "base": base,
        "corpus": make_corpus(folder / "corpus"),
        "preferences": make_pairs(folder / "preferences"),
        "./talks": make_talks(folder / "talks"),
        "cpt": make_adapter(folder / "cpt", base),
    }


@contextmanager
def at_each_checkpoint(do: Callable[[Path], None]) -> Iterator[None]:
    """Give `do` the folder of each checkpoint that a training in this process writes, after all of its callbacks."""
    from medllm.training.checkpointing import Checkpoints

    on_save = Checkpoints.on_save  # the last callback of each trainer

    def then(self, args, state, control, **more):
        on_save(self, args, state, control, **more)
        do(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "on_save", then)
        yield
