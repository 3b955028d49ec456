"""What only a CUDA device can show: both trainings in bfloat16 and NF4 there, and flash attention's numbers."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; `make test` has none"),
]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_both_trainings_run_and_the_reference_is_exact_in_bfloat16(tmp_path, quantization):
    import json

    from medllm.recipe.settings import Cpt, Lora, Rpo
    from medllm.stages import cpt, rpo
    from tests import tiny

    base = tiny.make_base(tmp_path / "base", hidden_size=64, head_dim=16, dtype="bfloat16")
    sources = {
        "base": base,
        "corpus": tiny.make_corpus(tmp_path / "corpus"),
        "preferences": tiny.make_pairs(tmp_path / "preferences"),
        "cpt": tmp_path / "cpt",
    }
    common = {"quantization": quantization, "max_steps": 4, "total_batch_size": 4, "logging_steps": 1, "report_to": ()}
    cpt.make(Cpt(lora=Lora(r=8, lora_alpha=16), max_length=64, **common), sources, tmp_path / "cpt")
    rpo.make(Rpo(model="cpt", rpo_alpha=10, max_length=256, **common), sources, tmp_path / "rpo")
    facts = json.loads((tmp_path / "rpo" / "facts.json").read_text("utf-8"))
    assert facts["first"]["rewards/margins"] == 0.0 and facts["steps"] == 4


def test_flash_attention_gives_the_loss_of_sdpa_on_packed_rows(tmp_path):
    pytest.importorskip("flash_attn")
    from medllm.training.cpt import RowCollator
    from medllm.weights.load import load_base, load_tokenizer
    from tests import tiny

    base = tiny.make_base(tmp_path / "base", hidden_size=64, head_dim=16, dtype="bfloat16")
    tokenizer = load_tokenizer(base)
    documents = [tokenizer(text)["input_ids"] for text in tiny.sentences(4, seed=8)]
    rows = [
        {"input_ids": [token for ids in documents for token in ids], "seq_lengths": [len(ids) for ids in documents]}
    ]
    losses = []
    for attention, flat in (("sdpa", False), ("flash_attention_2", True)):
        model = load_base(base, attn_implementation=attention)
        batch = {key: value.cuda() for key, value in RowCollator(0, flat=flat)(rows).items()}
        with torch.no_grad():
            losses.append(float(model(**batch, use_cache=False).loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
