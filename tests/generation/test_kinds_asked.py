"""Adapters of many kinds beside each other on one copy of the base: each model is what PEFT makes of it alone."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from medllm.generation.engine.local import LocalGenerator
from medllm.generation.types import Request
from tests import tiny
from tests.weights.test_adapter_kinds import ENDS, INSIDE, make

APART = ["bias of the factors", "MiCA", "patterns", "whole norms", "head", "both ends", "some tokens", "whole head"]
TIED = ["head", "embedding, kept tied", "whole embedding, kept tied", "other tokens of the head", "some tokens"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ends", "kind"), [*(("apart", one) for one in APART), *(("tied", one) for one in TIED)])
def test_an_adapter_a_plain_one_and_the_base_answer_as_each_does_alone(tmp_path, ends, kind):
    base = tiny.make_base(tmp_path / "base", tied=ends == "tied")
    folders = {"odd": make(base, tmp_path / "odd", **(INSIDE | ENDS)[kind]), "plain": make(base, tmp_path / "plain")}
    generator = LocalGenerator(base, folders, dtype="float32")
    text = "".join(tiny.sentences(2, seed=4))
    ids = torch.tensor([generator.reader.words.prompt(text)])
    for name in ("odd", "base", "plain", "odd"):
        model = AutoModelForCausalLM.from_pretrained(base)
        if name in folders:
            model = PeftModel.from_pretrained(model, folders[name])
        with torch.no_grad():
            want = model.eval()(ids).logits[0]
        assert float((generator.logits(text, name) - want).abs().max()) < 1e-4, name
    asked = [Request(key=name, model=name, text=text, max_new_tokens=6) for name in ("base", "odd", "plain")]
    together = {reply.key: reply.tokens for reply in generator.generate(asked)}
    assert together == {one.key: next(generator.generate([one])).tokens for one in asked}
