"""The local maker: what plain generation would say, whatever is asked together, and ended where it should be."""

from collections import OrderedDict

import pytest

from medllm.generation.engine.local import LocalGenerator
from medllm.generation.engine.transformers import TransformersGenerator
from medllm.generation.types import Request
from tests import tiny
from tests.refusals import refused

MODELS = ("base", "cpt", "final")
EXAMPLES = "".join(tiny.sentences(3, seed=9))
QUESTIONS = [f"\n問題: {sentence}" for sentence in tiny.sentences(7, seed=11)]


LINEAR, WORDS, HEAD = ["q_proj", "o_proj", "gate_proj"], ["q_proj", "embed_tokens"], ["v_proj", "lm_head"]


def make_folders(folder, family="qwen2", changed=WORDS):
    base = tiny.make_base(folder / "base", family=family)
    cpt = tiny.make_adapter(folder / "cpt", base, seed=1)
    final = tiny.make_adapter(folder / "final", base, seed=2, r=8, target_modules=changed)
    return base, {"cpt": cpt, "final": final}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def generator(folders):
    return LocalGenerator(*folders, dtype="float32", batch_size=4)


def requests(**changed):
    return [
        Request(
            key=f"{model}-{number}",
            model=model,
            text=EXAMPLES + question,
            shared=len(EXAMPLES),
            **{"max_new_tokens": 20, "seed": number, **changed},
        )
        for number, question in enumerate(QUESTIONS)
        for model in MODELS
    ]


def replies_by_transformers(base, adapters, asked, ends):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapters["cpt"])
    model.load_adapter(adapters["final"], adapter_name="final")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    replies = {}
    for request in asked:
        encoded = tokenizer(request.text, return_tensors="pt")
        model.set_adapter("final" if request.model == "final" else "default")
        options = {"max_new_tokens": request.max_new_tokens, "do_sample": False, "eos_token_id": list(ends)}
        if request.model == "base":
            with model.disable_adapter():
                out = model.eval().generate(**encoded, **options, pad_token_id=0)
        else:
            out = model.eval().generate(**encoded, **options, pad_token_id=0)
        tokens = out[0, encoded["input_ids"].shape[1] :].tolist()
        replies[request.key] = tuple(token for token in tokens if token not in ends)
    return replies


@pytest.mark.parametrize("changed", [LINEAR, WORDS, HEAD], ids=["linear layers", "the embedding too", "the head too"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "gemma3_text"])
def test_answers_are_those_of_plain_generation_for_every_family(tmp_path, family, changed):
    base, adapters = make_folders(tmp_path, family, changed)
    generator = LocalGenerator(base, adapters, dtype="float32", batch_size=4)
    asked = requests()
    replies = {reply.key: reply.tokens for reply in generator.generate(asked)}
    assert replies == replies_by_transformers(base, adapters, asked, generator.ends)
    assert len({replies[f"{model}-0"] for model in MODELS}) == 3, "the three models must differ, or nothing is shown"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_what_is_asked_with_it(generator, temperature):
    asked = requests(temperature=temperature, top_p=0.9 if temperature else 1.0)
    together = {reply.key: reply.text for reply in generator.generate(asked)}
    alone = {reply.key: reply.text for request in asked for reply in generator.generate([request])}
    reordered = {reply.key: reply.text for reply in generator.generate(asked[::-1])}
    assert together == alone == reordered
    assert len(together) == len(asked)


def watched(generator, monkeypatch):
    """The rows and tokens of every pass through the model from now on, as a list that grows."""
    shapes, forward = [], generator._forward

    def noted(ids, *rest, **options):
        shapes.append(tuple(ids.shape))
        return forward(ids, *rest, **options)

    monkeypatch.setattr(generator, "_forward", noted)
    return shapes


def test_a_prompt_is_followed_once_however_many_answers_it_gets(generator, monkeypatch):
    asked = [
        Request(key=f"{model} {number} {seed}", model=model, text=EXAMPLES + QUESTIONS[number], seed=seed,
                shared=len(EXAMPLES), temperature=1.0, max_new_tokens=6)
        for number in range(2) for seed in range(3) for model in MODELS
    ]  # fmt: skip
    alone = {reply.key: reply.text for request in asked for reply in generator.generate([request])}
    widths = watched(generator, monkeypatch)
    together = {reply.key: reply.text for reply in generator.generate(asked)}
    assert together == alone
    assert len(set(together.values())) > len(MODELS), "the draws must differ, or nothing is shown"
    examples = max(tokens for _, tokens in widths)
    assert sum(rows for rows, tokens in widths if 1 < tokens < examples) == 2 * len(MODELS)
    assert max(rows for rows, tokens in widths) == len(asked)


def test_worked_examples_are_read_once_for_each_model_however_many_batches_follow(folders, monkeypatch):
    generator = LocalGenerator(*folders, dtype="float32", batch_size=4)
    read = watched(generator, monkeypatch)
    asked = requests(max_new_tokens=1)
    assert len(list(generator.generate(asked))) == len(asked)
    tokens = [len(generator.tokenizer(request.text)["input_ids"]) for request in asked]
    prefix = max(width for _, width in read)
    assert prefix > max(tokens) / 2
    assert [rows for rows, width in read if width == prefix] == [1] * len(MODELS)
    batches = [(rows, width) for rows, width in read if width < prefix]
    assert [rows for rows, _ in batches] == [4] * len(MODELS) + [3] * len(MODELS)
    assert all(width <= max(tokens) - prefix for _, width in batches), "no batch reads the examples again"


def test_the_head_is_given_tokens_side_by_side_for_torch_would_copy_it_for_each_row_of_a_strided_slice(generator):
    given = []
    head = generator.model.get_output_embeddings()
    watching = head.register_forward_pre_hook(lambda module, hidden: given.append(hidden[0]))
    try:
        list(generator.generate(requests(max_new_tokens=2)))
    finally:
        watching.remove()
    assert any(len(hidden) > 1 for hidden in given)
    assert all(hidden.stride() == hidden.new_empty(hidden.shape).stride() for hidden in given)


@pytest.mark.parametrize("examples", [True, False], ids=["after worked examples", "alone"])
def test_prompts_read_in_pieces_of_many_widths_get_the_answers_they_get_when_read_together(
    generator, monkeypatch, examples
):
    asked = [
        Request(key=f"{model} {count}", model=model, text=EXAMPLES * examples + "".join(QUESTIONS[:count]),
                shared=len(EXAMPLES) * examples, max_new_tokens=12)
        for model in MODELS for count in (4, 3, 2, 1)
    ]  # fmt: skip
    replies = []
    for most in (65_536, 1):
        monkeypatch.setattr(generator, "piece", most)
        monkeypatch.setattr(generator, "_prefixes", OrderedDict())
        widths = watched(generator, monkeypatch)
        replies.append({reply.key: reply.tokens for reply in generator.generate(asked)})
    assert {rows for rows, tokens in widths if tokens > 1} == {1}, "each prompt by itself"
    assert replies[0] == replies[1] and len(set(replies[0].values())) == len(asked)


def test_another_seed_draws_another_answer_and_the_same_seed_the_same(generator):
    def draw(seed):
        asked = Request(key="a", text=QUESTIONS[0], temperature=1.0, seed=seed, max_new_tokens=20)
        return next(generator.generate([asked])).text

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_the_stream_says_piece_by_piece_what_generate_says_at_once(generator):
    asked = requests(stop=("a",))
    whole = {reply.key: reply.text for reply in generator.generate(asked)}
    pieces = dict.fromkeys(whole, "")
    done = {}
    for delta in generator.stream(asked):
        assert delta.key not in done
        pieces[delta.key] += delta.text
        if delta.reply is not None:
            done[delta.key] = delta.reply.text
    assert pieces == whole == done
    assert not any("a" in text for text in whole.values())


def make_forgetful(folder):
    """A model whose next token depends on the last one alone, so that every greedy reply ends in a loop."""
    from safetensors.torch import load_file, save_file

    base = tiny.make_base(folder / "base")
    file = base / "model.safetensors"
    weights = {
        name: weight * (0 if "o_proj" in name or "down_proj" in name else 1) for name, weight in load_file(file).items()
    }
    save_file(weights, file, {"format": "pt"})
    return base


@pytest.mark.parametrize("engine", [LocalGenerator, TransformersGenerator])
def test_a_loop_ends_a_reply_early_and_plain_generation_would_only_have_repeated_its_pattern(tmp_path, engine):
    base = make_forgetful(tmp_path)
    replies = engine(base, dtype="float32", batch_size=4).generate(
        [Request(key=question, text=question, max_new_tokens=420) for question in QUESTIONS]
    )
    looped = {reply.key: reply.tokens for reply in replies if reply.finish_reason == "repetition"}
    assert looped
    whole = replies_of_base(base, looped, 420)
    for key, tokens in looped.items():
        assert len(tokens) < len(whole[key]) == 420
        size = next(size for size in range(1, 65) if tokens[-256 + size :] == tokens[-256:-size])
        assert (
            whole[key][: len(tokens)] == tokens and whole[key][len(tokens) :] == whole[key][len(tokens) - size : -size]
        )


def replies_of_base(base, texts, room):
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    encoded = {text: tokenizer(text, return_tensors="pt")["input_ids"] for text in texts}
    written = {
        text: model.generate(input_ids=ids, max_new_tokens=room, do_sample=False, eos_token_id=None, pad_token_id=0)
        for text, ids in encoded.items()
    }
    return {text: tuple(out[0, encoded[text].shape[1] :].tolist()) for text, out in written.items()}


def test_a_stop_string_ends_the_answer_before_it_and_an_end_mark_is_not_part_of_it(generator):
    free = next(generator.generate([Request(key="x", text=QUESTIONS[1], max_new_tokens=30)]))
    at = len(free.text) // 2
    stop = free.text[at : at + 2]
    held = next(generator.generate([Request(key="x", text=QUESTIONS[1], max_new_tokens=30, stop=(stop,))]))
    assert held.text == free.text[: free.text.index(stop)] and held.finish_reason == "stop"
    assert held.completion_tokens < free.completion_tokens
    assert not set(free.tokens) & generator.ends


def test_a_prompt_that_does_not_fit_is_reported_and_not_cut(generator):
    long = Request(key="long", text="患者" * 2000, max_new_tokens=8)
    fits = Request(key="fits", text="患者", max_new_tokens=8)
    replies = {reply.key: reply for reply in generator.generate([long, fits])}
    assert replies["long"].finish_reason == "too_long" and replies["long"].text == ""
    assert replies["long"].prompt_tokens > 1000 and replies["fits"].completion_tokens > 0


def test_a_model_that_is_not_there_is_named_with_those_that_are(generator):
    with refused("generation.unknown-model", "`rpo`", "base, cpt, final"):
        list(generator.generate([Request(key="x", model="rpo", text="a")]))


def test_models_that_replace_whole_tensors_are_asked_in_turn_with_the_same_answers(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    adapters = {
        "cpt": tiny.make_adapter(tmp_path / "cpt", base, modules_to_save=["embed_tokens"]),
        "final": tiny.make_adapter(tmp_path / "final", base, seed=3),
    }
    generator = LocalGenerator(base, adapters, dtype="float32")
    asked = requests()
    assert not generator.limits.mixed
    replies = {reply.key: reply.tokens for reply in generator.generate(asked)}
    assert replies == replies_by_transformers(base, adapters, asked, generator.ends)


def test_a_4_bit_base_answers_all_models_in_one_batch_as_one_by_one(folders):
    generator = LocalGenerator(*folders, dtype="float32", quantization="nf4", batch_size=4)
    asked = requests()[:6]
    together = {reply.key: reply.text for reply in generator.generate(asked)}
    alone = {reply.key: reply.text for request in asked for reply in generator.generate([request])}
    assert together == alone
