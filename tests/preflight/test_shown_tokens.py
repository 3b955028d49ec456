"""Rows as the model reads them, before a training begins: what is shown is what is trained and asked."""

import json

import pytest

from medllm.preflight.shown_tokens import shown_rows
from medllm.recipe import local_sources, read_recipe, stages_of
from medllm.training.pair_batches import encode_pairs, read_pairs
from medllm.weights.load import load_tokenizer
from tests import tiny
from tests.pipeline.whole import question
from tests.refusals import refused
from tests.stages.test_chat_to_the_end import RECIPE, lines

PAIR = {
    "prompt": "患者の発熱はどれか。",
    "prompt_without_shots": "どれか。",
    "chosen": "正解",
    "rejected": "誤り\x1b[2J",
}


@pytest.fixture(scope="module")
def laid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    tiny.make_scripted(folder / "base")
    lines(folder / "texts", [{"text": "患者の肝治", "license": "cc-by-4.0", "published": "2015-01-01"}])
    lines(folder / "past", [question(f"p{number}", 2015) for number in range(9)])
    lines(folder / "world", [question(f"w{number}", 2020) for number in range(6)])
    lines(folder / "pairs", [PAIR])
    (folder / "chat.yaml").write_text(
        RECIPE.replace("  {model: cpt, rpo", "  {model: cpt, data: ./pairs, rpo"), "utf-8"
    )
    return folder


def shown(folder, **replaced):
    recipe = read_recipe(folder / "chat.yaml", replaced)
    return list(shown_rows(recipe, local_sources(recipe, stages_of(recipe))))


def of(rows, start):
    return [row for row in rows if not isinstance(row, str) and row.title.startswith(start)]


@pytest.mark.slow
def test_exam_items_of_a_coming_corpus_are_conversations_of_which_all_but_the_first_token_is_learnt(laid):
    rows = of(shown(laid), "cpt")
    assert [row.title for row in rows] == ["cpt, exam item 1", "cpt, exam item 2"]
    for row in rows:
        assert row.parts[0] == ("<|im_start|>", False)
        assert [learnt for _, learnt in row.parts] == [False, True]
        assert row.parts[1][0].startswith("system\n医師国家試験を解きます。<|im_end|>\n<|im_start|>user\n問題: ")
        assert row.parts[1][0].endswith("<|im_end|>")


@pytest.mark.slow
def test_of_a_pair_the_answers_alone_are_learnt_as_training_encodes_them(laid, tmp_path):
    rows = of(shown(laid), "rpo")
    tokenizer = load_tokenizer(laid / "base")
    pair = encode_pairs(read_pairs(laid / "pairs", tmp_path), tokenizer, 1024)[0][0]
    assert [row.title for row in rows] == ["rpo, pair 1, chosen", "rpo, pair 1, rejected"]
    for row, side in zip(rows, ("chosen", "rejected"), strict=True):
        assert row.tokens == len(pair["prompt_ids"]) + len(pair[f"{side}_ids"])
        assert row.parts == (
            (PAIR["prompt"], False),
            (f"{PAIR[side]}{tokenizer.eos_token}", True),
        )


@pytest.mark.slow
def test_a_question_is_shown_in_each_prompt_and_once_for_models_that_get_the_same_tokens(laid):
    rows = of(shown(laid), "evaluate")
    assert [row.title.rpartition("(")[2] for row in rows] == ["plain)", "explain)", "think)"]
    assert all(row.title.startswith("evaluate, base") for row in rows)
    written = [row.parts[0][0] for row in rows]
    assert [text.endswith("<think>\n\n</think>\n\n") for text in written] == [True, True, False]
    assert not any(learnt for row in rows for _, learnt in row.parts)


@pytest.mark.slow
def test_what_is_not_within_reach_is_one_sentence(laid):
    rows = shown(laid, **{"rpo.data": "preferences"})
    assert [row for row in rows if isinstance(row, str)] == [
        "rpo: `preferences` does not exist yet, so no pair is shown."
    ]


def test_chat_without_a_template_is_refused_before_any_row(laid, tmp_path):
    bare = tmp_path / "bare"
    tiny.make_base(bare)
    with refused("training.no-chat-template", bare):
        shown(laid, base=str(bare))


@pytest.mark.slow
def test_the_command_marks_what_is_learnt_without_colour_and_colours_it_with(laid, monkeypatch):
    from typer.testing import CliRunner

    from medllm.cli.app import app
    from medllm.cli.check import check

    assert check
    asked = ["check", str(laid / "chat.yaml"), "--show-tokens"]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = CliRunner().invoke(app, asked).stdout
    assert "患者の発熱はどれか。⟦正解" in plain
    assert "誤り\\u001b[2J" in plain and "\x1b" not in plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = CliRunner().invoke(app, asked).stdout
    assert "患者の発熱はどれか。\x1b[32m正解" in coloured and "⟦" not in coloured
    rows = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["rows"]
    assert {"rpo, pair 1, chosen", "cpt, exam item 1"} <= {row["title"] for row in rows}


def test_a_teacher_here_is_shown_its_prompts_and_one_behind_an_address_a_sentence(laid):
    teach = {"teach.model": "base", "teach.data": {"source": "./past", "exam": "own"}, "teach.view_explanation": True}
    first, second = of(shown(laid, **teach), "teach")
    assert first.title.startswith("teach, base, p") and first.title.endswith("(explain)") and first != second
    text = first.parts[0][0]
    assert "検証済みの解説" in text and text.index("検証済みの解説") < text.index("問題: ")
    assert not any(learnt for _, learnt in first.parts)
    away = {**teach, "teach.model": "big", "teach.engine": "http://127.0.0.1:1/v1"}
    assert "teach, big: its server makes the tokens." in shown(laid, **away)


def test_conversations_are_shown_with_the_assistants_tokens_alone_as_learnt(laid):
    talk = [{"role": "user", "content": "患者"}, {"role": "assistant", "content": "正解"}]
    lines(laid / "talks", [{"messages": talk}])
    data = {"source": "./talks", "license": "cc-by-4.0", "published": "2015-01-01"}
    rows = shown(laid, sft={"model": "base", "data": [data], "max_steps": 4, "lora": {"r": 2, "lora_alpha": 2}})
    [row] = [row for row in rows if not isinstance(row, str) and row.title.startswith("sft")]
    learnt = "".join(text for text, now in row.parts if now)
    assert learnt == "正解<|im_end|>" and "患者" in row.parts[0][0]
