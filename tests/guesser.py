"""A tiny model that guesses a letter and ends: what a training by rewards can teach within seconds."""

import json
from pathlib import Path

from tests import tiny


def make_guesser(folder: Path, *, ends: bool = True) -> Path:
    """Write a Qwen2 that writes a letter from a to e after a colon, each as often; then it ends if `ends`.

    Its layers are silent, so an adapter alone decides otherwise: each letter hears a number of its own.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tiny.make_tokenizer()
    size = len(tokenizer)
    config = tiny.make_config(tokenizer, "qwen2", vocab_size=size, hidden_size=size, num_hidden_layers=1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    layer = model.model.layers[0]
    for silent in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight, model.lm_head.weight):
        torch.nn.init.zeros_(silent)
    letters = [tokenizer.encode(letter)[0] for letter in "abcde"]
    (colon,) = tokenizer.encode(":")
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        for number, letter in enumerate(letters):
            model.lm_head.weight[letter, size - 1 - number] = 1.0
            model.lm_head.weight[letter, colon] = 1.0
            model.lm_head.weight[tokenizer.eos_token_id if ends else letter, letter] = 1.0
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def make_exam_of(folder: Path, key: str, count: int = 16, *, day: str = "2015-02-07", without: str = "") -> Path:
    """Write an exam whose every answer is `key`, without the column named by `without`."""
    tiny.make_exam(folder, count, first=day)
    path = folder / "exam.jsonl"
    rows = [json.loads(line) | {"answer": key} for line in path.read_text("utf-8").splitlines()]
    lines = [json.dumps({k: v for k, v in row.items() if k != without}, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return folder
