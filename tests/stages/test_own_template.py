"""A recipe's chat template for a base that has none: trained, asked and merged with the same tokens, BOS included."""

import json
import shutil

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from medllm.exam.prompts import render
from medllm.exam.question import own_question
from medllm.generation.engine.batching import PromptReader
from medllm.generation.identity import asked_as
from medllm.generation.types import BASE, Request
from medllm.page.live import open_live
from medllm.stages import cpt, rpo
from medllm.stages.merge import merge_into
from medllm.training import callbacks
from medllm.training.load import chat_template_for
from medllm.weights.chat_template import ChatTemplate, begun_template, own_template
from medllm.weights.load import load_tokenizer
from tests import tiny
from tests.refusals import refused

TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SILENT = (
    "Q: {{ messages[0]['content'] }}{% if add_generation_prompt %}\n{% else %}\n{{ messages[-1]['content'] }}<|im_end|>"
    "{% endif %}"
)
"""A template that does not write the mark with which a text begins."""
TALK = [{"role": "user", "content": "患者の発熱"}]
CHAT = {"format": "chat", "chat_template": TURNS, "max_steps": 2, "save_steps": 2}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A base whose tokenizer begins each text with a mark, and which has no chat template."""
    folder = tmp_path_factory.mktemp("bare")
    base = tiny.make_base(folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    begin = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    tokenizer.save_pretrained(str(base))
    assert load_tokenizer(base)("a")["input_ids"][0] == begin and own_template(base) is None
    return {
        "base": base,
        "corpus": tiny.make_corpus(folder / "corpus", count=20),
        "preferences": tiny.make_pairs(folder / "preferences", count=8),
    }


def test_a_template_begins_as_the_tokenizer_begins_a_text_and_only_once(sources):
    tokenizer = load_tokenizer(sources["base"])
    assert begun_template(tokenizer, SILENT, "own") == "{{ bos_token }}" + SILENT
    for begun in (TURNS, "{{ bos_token }}" + SILENT):  # the first writes this very mark itself
        assert begun_template(tokenizer, begun, "own") == begun
    bare = tiny.make_tokenizer()
    assert begun_template(bare, SILENT, "own") == SILENT


def test_base_adapter_and_merged_model_are_asked_with_the_tokens_of_the_training(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "SAMPLED_TOKENS", 4)
    changed = {**CHAT, "chat_template": SILENT}
    cpt.make(tiny.CPT.model_copy(update=changed), sources, tmp_path / "cpt")
    laid = {**sources, "cpt": tmp_path / "cpt"}
    rpo.make(tiny.RPO.model_copy(update=changed), laid, tmp_path / "rpo")
    merge_into(sources["base"], [tmp_path / "rpo"], tmp_path / "merged", dtype=None, questions=0)
    laid |= {"rpo": tmp_path / "rpo", "merged": tmp_path / "merged.part"}
    settings = tiny.RPO.model_copy(update={**changed, "model": "base"})
    tokenizer = load_tokenizer(sources["base"])
    trained = chat_template_for(settings, laid, tokenizer).prompt(TALK)
    assert trained[0] == tokenizer.bos_token_id != trained[1]
    models = {name: name for name in ("base", "cpt", "rpo", "merged")}
    forms = asked_as(models, laid, engine="local", form="chat", given=SILENT)
    for name, form in forms.items():
        reader = PromptReader(load_tokenizer(laid[name]), {BASE: form.template})
        asked = Request(key="q", model=BASE, text="", messages=tuple(TALK), max_new_tokens=4)
        assert reader.tokens(asked) == trained, name
    alone = AutoTokenizer.from_pretrained(laid["merged"])
    assert alone.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"] == trained
    stops = json.loads((laid["merged"] / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    assert alone.convert_tokens_to_ids("<|im_end|>") in stops


def test_without_one_chat_is_refused_and_a_template_of_its_own_wins(sources, tmp_path):
    bare = tiny.RPO.model_copy(update={**CHAT, "chat_template": None, "model": "base"})
    tokenizer = load_tokenizer(sources["base"])
    with refused("training.no-chat-template", sources["base"], "chat_template"):
        chat_template_for(bare, sources, tokenizer)
    own = shutil.copytree(sources["base"], tmp_path / "own")
    (own / "chat_template.jinja").write_text("{{ bos_token }}Q {{ messages[0]['content'] }}", "utf-8")
    settings = bare.model_copy(update={"chat_template": TURNS})
    assert chat_template_for(settings, {**sources, "base": own}, tokenizer).text.startswith("{{ bos_token }}Q")


def test_live_models_without_a_template_are_asked_by_the_one_that_is_given(sources, tmp_path):
    described = {"base": str(sources["base"]), "adapters": {}}
    with refused("generation.no-chat-template", '"chat_template": "FILE"'):
        open_live(json.dumps(described | {"format": "chat"}))
    (tmp_path / "own.jinja").write_text(SILENT, "utf-8")
    live = open_live(json.dumps(described | {"chat_template": str(tmp_path / "own.jinja")}))
    prompt = render(own_question("患者の発熱"))
    generator, name = live.generators["base"]
    (reply,) = generator.generate([Request(**prompt.request_fields, key="q", model=name, max_new_tokens=4)])
    tokenizer = load_tokenizer(sources["base"])
    chat = ChatTemplate(tokenizer, begun_template(tokenizer, SILENT, "own"), "own")
    assert live.chat and reply.prompt_tokens == len(chat.prompt(prompt.messages))
    with refused("page.bad-live-models", "`chat_template` is none.jinja"):
        open_live(json.dumps(described | {"chat_template": "none.jinja"}))
