"""The shipped base, and the two things that make it cheap to train: what the loss hears, and the laid look-up."""

import random
import re

import pytest

from medllm.miniature import exams
from medllm.miniature.corpora import BASE
from medllm.miniature.exams import LETTERS, exemplars, explain, make_item, topics
from medllm.miniature.world import make_world
from tools.miniature_base.lookup import lay_lookup
from tools.miniature_base.pretrain import ASKED, LETTER, _Marks, _new_model

torch = pytest.importorskip("torch")
QUESTIONS = 60


@pytest.fixture(scope="module")
def base():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(BASE).eval(), AutoTokenizer.from_pretrained(BASE)


def answer(base, prompt: str) -> str:
    model, tokenizer = base
    with torch.no_grad():
        logits = model(**tokenizer(prompt, return_tensors="pt")).logits
    return tokenizer.decode(logits[0, -1].argmax())


@pytest.fixture(scope="module")
def asked():
    world, source = make_world(0), random.Random("asked of the base")
    known = topics(world, "known", "fact")
    return [make_item(world, source.choice(known), source, style="new") for _ in range(QUESTIONS)]


def test_it_is_small(base):
    assert sum(parameter.numel() for parameter in base[0].parameters()) < 2_000_000
    assert (BASE / "model.safetensors").stat().st_size <= 6_000_000


def test_it_answers_plainly_what_it_knows(base, asked):
    right = sum(answer(base, f"{exams.question_block(item)}Answer:") == f" {item.answer}" for item in asked)
    assert right >= 0.9 * QUESTIONS


def test_it_is_worse_at_the_same_facts_when_it_explains_first(base, asked):
    """Three-shot, as the exam is sat: the format is rare in what it has read."""
    model, tokenizer = base
    world = make_world(0)
    shots = "".join(exams.explained(one, explain(world, one)) for one in exemplars(world).items)
    prompts = [f"{shots}{exams.question_block(item)}Explanation:" for item in asked]
    read = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    with torch.no_grad():
        written = model.generate(**read, max_new_tokens=60, do_sample=False)
    texts = tokenizer.batch_decode(written[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
    ends = [re.search(r"Answer: (\w)", text.split(exams.END)[0]) for text in texts]
    right = sum(end is not None and end[1] == item.answer for item, end in zip(asked, ends, strict=True))
    assert 0.3 * QUESTIONS < right < 0.85 * QUESTIONS


def test_the_new_diseases_are_unknown_to_it(base):
    world, source = make_world(0), random.Random("new")
    new = [topic for kind in ("exam", "text") for topic in topics(world, kind, "fact")]
    items = [make_item(world, source.choice(new), source) for _ in range(QUESTIONS)]
    right = sum(answer(base, f"{exams.question_block(item)}Answer:") == f" {item.answer}" for item in items)
    assert right < 0.45 * QUESTIONS


def test_the_loss_hears_answers_and_hardly_questions(base):
    _, tokenizer = base
    text = "\n\nQuestion: x\na. y\nAnswer: c\n\nQuestion: z"
    batch = torch.tensor([tokenizer(text)["input_ids"]])
    tokens = tokenizer.convert_ids_to_tokens(batch[0, 1:].tolist())
    weights = dict.fromkeys(tokens) | dict(zip(tokens, _Marks.of(tokenizer).weights(batch)[0].tolist(), strict=True))
    assert weights[tokens[tokens.index("Answer") + 2]] == LETTER
    assert weights["Answer"] == 1.0
    assert weights["x"] == pytest.approx(ASKED)
    assert weights["z"] == pytest.approx(ASKED)


def test_the_laid_look_up_leaves_all_but_the_last_layers_first_head_alone(base):
    _, tokenizer = base
    torch.manual_seed(0)
    model = _new_model(len(tokenizer))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lay_lookup(model, tokenizer, make_world(0))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    last = f"model.layers.{model.config.num_hidden_layers - 1}.self_attn."
    assert changed
    assert all(name.startswith(last) for name in changed)
    width = model.config.hidden_size // model.config.num_attention_heads
    for name in changed - {f"{last}o_proj.weight"}:
        assert torch.equal(model.state_dict()[name][width:], before[name][width:])
    assert torch.equal(model.state_dict()[f"{last}o_proj.weight"][:, width:], before[f"{last}o_proj.weight"][:, width:])
    assert len(LETTERS) <= width
