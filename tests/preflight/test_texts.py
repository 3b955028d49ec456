"""Texts before the work: licence and date are asked for together, with the line to write."""

import json

from tests import tiny
from tests.preflight.conftest import Ward


def test_licence_and_date_are_asked_for_at_once_with_the_line_to_write(ward: Ward):
    (fault,) = ward.find(corpus__data="./texts")
    assert (fault.place, fault.code) == ("corpus.data[0]", "corpus.facts-missing")
    assert "no licence and no date of publication" in fault.text
    assert "{source: ./texts, license: cc-by-4.0, published: 2015-04-01}" in fault.text


def test_only_what_is_missing_is_asked_for_and_what_is_stated_stays_in_the_line(ward: Ward):
    (fault,) = ward.find(corpus__data={"source": "./texts", "license": "cc0-1.0"})
    assert "{source: ./texts, license: cc0-1.0, published: 2015-04-01}" in fault.text
    assert "no licence" not in fault.text


def test_a_source_whose_texts_state_both_needs_no_line(ward: Ward):
    front = "---\ndate: 2014-05-01\nlicense: cc-by-4.0\n---\n"
    (ward.folder / "texts" / "b.md").write_text(front + "胸痛の患者。", "utf-8")
    assert ward.codes(corpus__data="./texts") == []


def test_a_folder_without_a_readable_file_is_a_fault(ward: Ward):
    (ward.folder / "texts" / "a.txt").unlink()
    (ward.folder / "texts" / "scan.tiff").write_bytes(b"II*\0")
    assert [place for place, _ in ward.codes()] == ["corpus.data[0]"]
    (ward.folder / "texts" / "a.pdf").write_bytes(b"%PDF-1.4 cut off")
    assert ward.codes() == [("corpus.data[0]", "corpus.nothing-readable")]


def test_a_tokenizer_folder_without_a_tokenizer_is_a_fault(ward: Ward):
    assert ward.codes(corpus__tokenizer="./texts") == [("corpus.tokenizer", "corpus.no-tokenizer")]
    assert ward.codes(corpus__tokenizer="base") == []


TALKS = {"source": "./talks", "license": "cc-by-4.0", "published": "2015-04-01"}
LEARNING = {
    "model": "base",
    "data": [TALKS],
    "chat_template": tiny.CHAT,
    "max_steps": 4,
    "lora": {"r": 2, "lora_alpha": 2},
}


def sft_of(ward: Ward, rows: list[dict], **changed: object) -> list[tuple[str, str]]:
    """The faults of a recipe whose `sft` learns from these rows."""
    (ward.folder / "talks").mkdir(exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (ward.folder / "talks" / "talks.jsonl").write_text(lines, "utf-8")
    return ward.codes(sft={**LEARNING, **changed})


def test_the_first_conversations_of_a_training_are_opened_and_written_by_its_template(ward: Ward):
    asked, replied = {"role": "user", "content": "発熱"}, {"role": "assistant", "content": "安静に"}
    good = {"messages": [asked, replied]}
    assert sft_of(ward, [good]) == []
    for row, code in (
        ({"messages": [asked]}, "training.no-assistant-turn"),
        ({"messages": [replied, asked]}, "training.wrong-role"),
        ({"messages": [asked, {**replied, "content": ""}]}, "training.empty-message"),
        ({"text": "発熱"}, "training.no-conversation"),
        ({"messages": [asked, {**replied, "reasoning_content": "考える"}]}, "weights.template-drops-thinking"),
        ({"messages": [{**asked, "content": "発熱" * 50}, replied]}, "training.conversation-too-long"),
    ):
        assert sft_of(ward, [good, row], max_length=64) == [("sft.data[0]", code)]
    assert sft_of(ward, []) == [("sft.data[0]", "training.no-rows")]


def test_conversations_without_a_date_or_a_licence_are_asked_for_both_at_once(ward: Ward):
    row = {"prompt": "発熱", "completion": "安静に"}
    assert sft_of(ward, [row], data="./talks") == [("sft.data[0]", "corpus.facts-missing")]


def test_conversations_that_join_pairs_are_opened_too(ward: Ward):
    row = {"prompt": "発熱", "completion": " "}
    assert sft_of(ward, [{**row, "completion": "安静に"}]) == []
    (ward.folder / "talks" / "talks.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    mix = {"data": [TALKS], "share": 0.25}
    rpo = {"model": "base", "rpo_alpha": 1, "max_steps": 4, "lora": {"r": 2, "lora_alpha": 2}, "mix": mix}
    assert ward.codes(rpo=rpo) == [("rpo.mix.data[0]", "training.empty-message")]
