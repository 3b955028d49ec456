"""A thinking chat model from its corpus to its scores, every stage by its own template: Qwen3's, on a tiny Qwen3."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medllm.exam.record import read_records
from medllm.exam.stability.report import stability_report
from medllm.recipe import read_recipe
from medllm.stages import corpus, cpt, evaluate, merge, preferences, rpo
from medllm.training.cpt import make_rows, read_texts
from tests import tiny
from tests.pipeline.whole import question
from tests.refusals import refused

RECIPE = """\
name: chat
base: ./base
namespace: clinic
cutoff: 2017-12-31
exams: {world: {source: ./world, first: 2020-01-01}}
corpus:
  data: [./texts, {source: ./past, exam: own, license: cc-by-4.0, published: 2016-01-01}]
  held_out: [world]
  min_chars: 5
  max_repetition: 1.0
  template: igakuqa
cpt:
  {lora: {r: 2, lora_alpha: 4}, max_steps: 2, learning_rate: 1.0e-6, total_batch_size: 2, max_length: 512,
   format: chat, dtype: float32}
preferences:
  {model: cpt, data: {source: ./past, exam: own}, shots: 1, samples: 1, temperature: 0, max_new_tokens: 16,
   format: chat, dtype: float32}
rpo:
  {model: cpt, rpo_alpha: 10, max_steps: 2, learning_rate: 1.0e-6, total_batch_size: 2, max_length: 1024,
   dtype: float32}
merge: {model: rpo, dtype: float32, parity_questions: 2}
evaluate:
  models: {base: base, cpt: cpt, final: rpo}
  benchmarks: [world]
  shots: 0
  format: chat
  prompts: [plain, explain, think]
  max_new_tokens: {plain: 8, explain: 12, think: 16}
  dtype: float32
"""


def lines(folder: Path, rows) -> None:
    folder.mkdir()
    (folder / "all.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    tiny.make_scripted(folder / "base")
    texts = [" ".join(tiny.sentences(6, seed=number)) for number in range(12)]
    lines(folder / "texts", [{"text": text, "license": "cc-by-4.0", "published": "2015-01-01"} for text in texts])
    lines(folder / "past", [question(f"p{number}", 2015) for number in range(9)])
    lines(folder / "world", [question(f"w{number}", 2020) for number in range(6)])
    (folder / "chat.yaml").write_text(RECIPE, "utf-8")
    return folder


@pytest.fixture(scope="module")
def made(laid):
    """Every stage, made once."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MEDLLM_ANSWERS", "none")
    recipe = read_recipe(laid / "chat.yaml")
    sources = {name: laid / name for name in ("base", "world")}
    sources |= {f"./{name}": laid / name for name in ("texts", "past")}
    for stage in (corpus, cpt, preferences, rpo, merge, evaluate):
        name = stage.__name__.rpartition(".")[2]
        stage.make(getattr(recipe, name), sources, laid / "out" / name)
        sources[name] = laid / "out" / name
    patch.undo()
    return sources


@pytest.mark.slow
def test_exam_items_of_the_corpus_are_learnt_as_conversations_and_texts_as_texts(made, laid, tmp_path):
    facts = json.loads((made["cpt"] / "facts.json").read_text("utf-8"))
    table = pq.read_table(made["corpus"] / "corpus").to_pylist()
    items = [row for row in table if row["kind"] == "exam"]
    assert facts["conversations"] == len(items) == 18 and facts["documents"] == len(table) == 30
    recipe = read_recipe(laid / "chat.yaml")
    from medllm.training.cpt import Talk
    from medllm.weights.chat_template import ChatTemplate
    from medllm.weights.load import load_tokenizer

    tokenizer = load_tokenizer(made["base"])
    chat = ChatTemplate(tokenizer, tiny.published_template("qwen3"), "base")
    texts = read_texts(made["corpus"], tmp_path / "cache", items=True)
    rows, _ = make_rows(texts, tokenizer, recipe.cpt.max_length, packing=False, talk=Talk(chat))
    written = [tokenizer.decode(row) for row in rows["input_ids"]]
    talks = [text for text in written if text.startswith("<|im_start|>system\n医師国家試験を解きます。<|im_end|>\n")]
    assert len(talks) == 18 and all(text.endswith("<|im_end|>") for text in talks)
    assert all("<|im_start|>assistant\n<think>\n\n</think>\n\n" in text for text in talks)
    assert all(text.endswith("<|endoftext|>") and "<|im_start|>" not in text for text in set(written) - set(talks))


@pytest.mark.slow
def test_the_trained_model_answers_by_chat_in_three_prompts_and_its_thinking_is_kept(made):
    records = read_records(made["evaluate"])
    assert len(records) == 6 * 3 * 3
    assert {(one.model, one.prompt, one.completion, one.reasoning) for one in records} == {
        (model, prompt, "b", "患者答えa" if prompt == "think" else None)
        for model in ("base", "cpt", "final")
        for prompt in ("plain", "explain", "think")
    }
    for one in stability_report(records).models:
        assert set(one.changes) == {("plain", "explain"), ("plain", "think"), ("explain", "think")}
    pairs = pq.read_table(made["preferences"] / "data").to_pylist()
    assert pairs and all(row["chosen"][0]["role"] == "assistant" for row in pairs)


@pytest.mark.slow
def test_the_merged_model_chats_with_transformers_alone_as_it_was_evaluated(made):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made["merge"])
    model = AutoModelForCausalLM.from_pretrained(made["merge"])
    assert tokenizer.chat_template == tiny.published_template("qwen3")
    talk = [{"role": "user", "content": "患者の発熱はどれか。\n答え:"}]
    replies = {}
    for thinks in (True, False):
        asked = tokenizer.apply_chat_template(
            talk, add_generation_prompt=True, enable_thinking=thinks, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**asked, max_new_tokens=20, do_sample=False)[0, asked["input_ids"].shape[1] :]
        replies[thinks] = tokenizer.decode(ids)
    assert replies == {True: "<think>患者答えa</think>\n\nb<|im_end|>", False: "b<|im_end|>"}


def test_an_adapter_whose_base_has_no_template_cannot_be_trained_by_chat(laid, tmp_path):
    recipe = read_recipe(laid / "chat.yaml")
    bare = tiny.make_base(tmp_path / "bare")
    sources = {"base": bare, "corpus": tiny.make_corpus(tmp_path / "corpus")}
    with refused("training.no-chat-template", bare):
        cpt.make(recipe.cpt, sources, tmp_path / "out")
    auto = recipe.cpt.model_copy(update={"format": "auto"})
    cpt.make(auto, sources, tmp_path / "auto")
    assert json.loads((tmp_path / "auto" / "facts.json").read_text("utf-8"))["conversations"] is None
