"""Cards tell what the facts say, show it literally, and have no empty headings."""

import jinja2
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medllm import cards
from medllm.cards import CardError, escape, render, without_empty_headings
from medllm.hub import Provenance
from tests.refusals import refused

PROVENANCE = Provenance("cpt", "toy", {}, (), {}, "d" * 64)


def written(tmp_path, monkeypatch, template, **facts):
    monkeypatch.setattr(cards, "PACKAGE", tmp_path)
    (tmp_path / "toy.md").write_text(template, encoding="utf-8")
    return render("toy.md", facts=facts, provenance=PROVENANCE, repo_id="o/toy", recipe={"name": "toy"})


def test_a_value_is_shown_literally_and_a_section_without_content_loses_its_heading(tmp_path, monkeypatch):
    header = "---\nlicense: {{ facts.license }}\ntags: {{ facts.tags }}\n---\n"
    template = header + "# T\n{{ facts.text }}\n## Empty\n\n## Full\nx\n"
    card = written(tmp_path, monkeypatch, template, license="a: b\n- c", tags=[], text="<b>|`x`")
    header, body = card.split("---\n")[1:]
    assert yaml.safe_load(header) == {"license": "a: b\n- c"}
    assert body.strip() == "# T\n\\<b\\>\\|\\`x\\`\n## Full\nx"


def test_a_fact_that_is_missing_stops_the_card_and_is_named(tmp_path, monkeypatch):
    with refused("card.missing-fact", "toy.md:", "o/toy", "rows", kind=CardError):
        written(tmp_path, monkeypatch, "---\na: 1\n---\n{{ facts.rows }}\n")
    with refused("card.missing-fact", "toy.md:", "license", kind=CardError):
        written(tmp_path, monkeypatch, "---\na: {{ facts.license }}\n---\nx\n")
    with refused("card.missing-fact", "toy.md:", "none", kind=CardError):
        written(tmp_path, monkeypatch, "---\na: 1\n---\n{{ facts.rows }}\n", rows=None)


def test_a_name_that_could_leave_its_code_block_stops_the_card(tmp_path, monkeypatch):
    with refused("card.missing-fact", "toy.md:", "<script>", kind=CardError):
        written(tmp_path, monkeypatch, "---\na: 1\n---\n{{ facts.name | raw }}\n", name="x\n```\n<script>")


def served(tmp_path, monkeypatch, stage, lora=None, base="o/base", facts=None):
    """The lines of a model's card on how to serve it."""
    text = (cards.PACKAGE.parent / "model_card" / "serving.md").read_text("utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(cards, "PACKAGE", tmp_path)
        (tmp_path / "toy.md").write_text("---\na: 1\n---\n" + text, encoding="utf-8")
        provenance = Provenance(stage, "toy", {"lora": lora} if lora else {}, (), {}, "d" * 64)
        known = {"recipe": {"name": "toy"}, "lineage": {"base": {"repo_id": base}}, "facts": facts or {}}
        return render("toy.md", provenance=provenance, repo_id="o/toy", **known)


def test_a_whole_model_is_served_by_its_name_and_by_ollama_through_gguf(tmp_path, monkeypatch):
    for card in (
        served(tmp_path, monkeypatch, "merge"),
        served(tmp_path, monkeypatch, "cpt", facts={"method": "full fine-tuning"}),
    ):
        assert "$ vllm serve o/toy\n" in card and "$ ollama create toy -f Modelfile" in card
        assert "convert_hf_to_gguf.py model --outtype q8_0 --outfile model.gguf" in card
    card = served(tmp_path, monkeypatch, "merge", facts={"gguf": {"file": "model.gguf"}})
    assert "$ hf download o/toy model.gguf --local-dir .\n" in card and "convert_hf_to_gguf" not in card
    assert "$ ollama create toy -f Modelfile" in card


def test_an_adapter_is_served_beside_its_base_and_one_that_vllm_refuses_is_merged_first(tmp_path, monkeypatch):
    plain = served(tmp_path, monkeypatch, "cpt", {"r": 16, "use_dora": False, "modules_to_save": []})
    assert "vllm serve o/base --enable-lora --max-lora-rank 64 --lora-modules toy=o/toy\n" in plain
    for lora in ({"use_dora": True}, {"modules_to_save": ["norm"]}):
        card = served(tmp_path, monkeypatch, "rpo", lora)
        assert "vllm serve" not in card and "merge it into its base first" in card
    assert "vllm serve" not in served(tmp_path, monkeypatch, "cpt", {"r": 16}, base=None)


def test_headings_over_filled_headings_stay_and_hashes_in_code_are_no_headings():
    text = "# A\n## B\n### C\nx\n## D\n```\n# no heading\n```\n# E\n## F\n"
    assert without_empty_headings(text) == "# A\n## B\n### C\nx\n## D\n```\n# no heading\n```"


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",)), min_size=1))
def test_whatever_a_value_holds_it_opens_no_markup(value):
    shown = escape(value)
    bare = jinja2.utils.markupsafe.Markup(shown).replace("\\\\", "")
    for sign in "`*_[]<>|~#$&":
        assert bare.count(sign) == bare.count(f"\\{sign}")


def test_a_fact_may_have_the_name_of_a_dicts_method(tmp_path, monkeypatch):
    card = written(tmp_path, monkeypatch, "---\na: 1\n---\n{{ facts.audit.items | count }}\n", audit={"items": 2000})
    assert card.endswith("2,000\n")
