"""What is published: cards that carry the results, visibility through the gate, and nothing touched twice."""

import json

import pytest
import yaml

from medllm.errors import HubError
from medllm.pipeline.gate import conflicts, front_matter, license_of, link_of, terms_for
from tests.refusals import refused

CLEAN = {"corpus": {"audit": {"documents": 3, "items": 2, "documents_to_drop": 1, "unreviewed": 0},
                    "personal_data": {"standing": 0}},
         "preferences": {"audit": {"items": 2, "dropped": {"teacher": 1}, "unreviewed": 0}}}  # fmt: skip
PUBLIC = ("publish.private=false", "evaluate.models={base: base, cpt: cpt, final: rpo}")


def main_of(workshop, repo_id, name):
    path = workshop.hub.file(workshop.hub.resolve(repo_id, "model"), name)
    return path.read_text(encoding="utf-8") if path else None


def test_the_models_cards_carry_plain_against_explained_with_intervals_from_the_records(workshop):
    made = workshop.publish()
    card = main_of(workshop, "clinic/toy", "README.md")
    (row,) = [line for line in card.splitlines() if line.startswith("| final | world |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "40"
    assert all(cell.count("(") == 1 and " to " in cell for cell in cells[3:])
    assert made["evaluate"].revision in card
    assert "| base | world |" in card  # the base stands beside it, to compare with


def test_the_results_stand_in_both_forms_that_the_hub_reads(workshop):
    made = workshop.publish()
    header = yaml.safe_load(main_of(workshop, "clinic/toy", "README.md").split("---\n")[1])
    (result,) = header["model-index"][0]["results"]
    metrics = {one["name"]: one["value"] for one in result["metrics"]}
    assert metrics["score, explained minus plain"] == pytest.approx(
        metrics["score, explain"] - metrics["score, plain"], abs=1e-3
    )
    entries = yaml.safe_load(main_of(workshop, "clinic/toy", ".eval_results/medllm.yaml"))
    assert [one["dataset"]["task_id"] for one in entries] == ["world-plain", "world-explain"]
    assert {one["dataset"]["revision"] for one in entries} == {made["evaluate"].revision}


def test_publishing_twice_commits_once(workshop):
    workshop.publish()
    before = {repo: workshop.hub.resolve(repo, kind) for repo, kind in workshop.hub.repositories("clinic")}
    workshop.publish()
    assert before == {repo: workshop.hub.resolve(repo, kind) for repo, kind in workshop.hub.repositories("clinic")}


def test_a_new_card_does_not_make_the_model_another_one(workshop):
    made = workshop.publish()
    assert workshop.plan().missing == ()
    assert workshop.run() == made


def test_everything_is_private_until_the_gate_is_open(workshop):
    with refused("stage.gate-closed", "gate.audit:", "gate.personal_data:", "gate.max_drop:", kind=HubError):
        workshop.publish(*PUBLIC, "gate.max_drop=0.0001")
    infos = [workshop.hub.api.repo_info(repo, repo_type=kind) for repo, kind in workshop.hub.repositories("clinic")]
    assert len(infos) == 6
    assert all(info.private for info in infos)


def test_findings_that_no_person_reviewed_and_patients_close_the_gate(workshop):
    workshop.facts = {
        "corpus": {"audit": {**CLEAN["corpus"]["audit"], "unreviewed": 4}, "personal_data": {"standing": 2}},
        "preferences": {"audit": {"unreviewed": 7}},
    }
    found = ("gate.audit: 4 matches", "gate.audit: 7 matches", "pairs", "gate.personal_data: 2 places")
    with refused("stage.gate-closed", *found, kind=HubError):
        workshop.publish(*PUBLIC)


def test_through_the_open_gate_all_of_it_becomes_public_and_gated(workshop):
    workshop.facts = CLEAN
    workshop.publish(*PUBLIC, "publish.gated=manual", "gate.max_drop=0.9")
    infos = [workshop.hub.api.repo_info(repo, repo_type=kind) for repo, kind in workshop.hub.repositories("clinic")]
    assert len(infos) == 6
    assert not any(info.private for info in infos)
    assert {info.gated for info in infos} == {"manual"}
    assert "3 documents were searched for 2 exam items: 1 documents were dropped" in main_of(
        workshop, "clinic/toy", "README.md"
    )


def test_all_of_it_is_gathered_once_in_a_collection_that_is_seen_by_those_who_see_the_models(workshop):
    workshop.facts = CLEAN
    made = workshop.publish("publish.collection=Medical models")
    workshop.publish("publish.collection=Medical models")
    (one,) = workshop.hub.api.list_collections(owner="clinic")
    there = workshop.hub.api.get_collection(one.slug)
    assert [(item.item_id, item.item_type) for item in there.items] == [(a.repo_id, a.kind) for a in made.values()]
    assert there.private
    assert sum("collection Medical models: 6 added" in line for line in workshop.messages) == 1
    workshop.publish(*PUBLIC, "publish.collection=Medical models")
    assert not workshop.hub.api.get_collection(one.slug).private


def test_a_license_conflict_is_named_in_the_card(workshop):
    (workshop.folder / "base" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Base\n")
    workshop.publish("publish.license=apache-2.0")
    card = main_of(workshop, "clinic/toy", "README.md")
    assert "the base is cc-by-nc-4.0, which forbids commercial use; apache-2.0 allows it" in card
    assert "./texts states no licence" in card


@pytest.mark.parametrize(
    ("license", "base", "data", "named"),
    [
        ("apache-2.0", "apache-2.0", {"t": "cc-by-4.0"}, []),
        ("apache-2.0", "apache-2.0", {"t": "cc-by-sa-4.0"}, ["laxer"]),
        ("cc-by-sa-4.0", "apache-2.0", {"t": "cc-by-sa-4.0"}, []),
        ("apache-2.0", "llama3.1", {}, ["terms reach"]),
        ("apache-2.0", "mit", {"t": "cc-by-nd-4.0"}, ["derived"]),
        ("mit", None, {"t": None}, ["base states no licence", "t states no licence"]),
    ],
)
def test_conflicts_between_licenses(license, base, data, named):
    found = conflicts(license, base, data)
    assert len(found) == len(named)
    assert all(word in line for word, line in zip(named, found, strict=True))


def test_a_training_without_the_likelihood_term_is_not_called_rpo(workshop):
    workshop.run()
    assert "by Reasoning Preference Optimization. It holds" in main_of(workshop, "clinic/toy-rpo", "README.md")
    workshop.run("rpo.rpo_alpha=0")
    card = main_of(workshop, "clinic/toy-rpo", "README.md")
    assert "by Direct Preference Optimization (`rpo_alpha` is 0: no likelihood term). It holds" in card
    assert "- dpo\n" in card and "- rpo\n" not in card


def test_a_card_without_a_readable_header_states_nothing(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    assert front_matter(tmp_path / "README.md") == {}
    assert front_matter(tmp_path / "none.md") == {}


def test_no_place_on_this_machine_is_named_in_what_is_pushed(workshop):
    made = workshop.publish()
    for artifact in made.values():
        for path in workshop.hub.pull(artifact).rglob("*"):
            if path.is_file() and path.suffix in (".json", ".md", ".yaml"):
                assert str(workshop.folder) not in path.read_text(encoding="utf-8"), path
    assert json.loads((workshop.hub.pull(made["rpo"]) / "provenance.json").read_text())["digest"]


def test_main_holds_what_the_recipe_says_even_after_another_value_was_tried(workshop):
    first = workshop.publish()
    tried = workshop.publish("rpo.rpo_alpha=0")
    assert tried["merge"] != first["merge"]
    workshop.worked.clear()
    assert workshop.publish() == first
    assert workshop.worked == []
    for stage in ("rpo", "merge", "evaluate"):
        repo_id, kind = first[stage].repo_id, first[stage].kind
        main = workshop.hub.state_at(repo_id, kind)
        assert main.provenance.digest == workshop.hub.provenance(first[stage]).digest
        assert workshop.hub.state_at(repo_id, kind, first[stage].revision).files <= main.files
    assert first["evaluate"].revision in main_of(workshop, "clinic/toy", "README.md")


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        ("license: apache-2.0", {"license": "apache-2.0"}),
        ("license: Apache-2.0", {"license": "apache-2.0"}),
        ("license: gemma", {"license": "gemma"}),
        ("license: qwen", {"license": "other", "license_name": "qwen"}),
        ("license: [mit, cc-by-4.0]", {"license": "other", "license_name": "mit-cc-by-4.0"}),
        ("license: other", {"license": "other"}),
        ("language: ja", {"license": "other"}),
        ("license: 3", {"license": "other", "license_name": "3"}),
        (
            "license: other\nlicense_name: Qwen Research\nlicense_link: https://example.org/terms",
            {"license": "other", "license_name": "qwen-research", "license_link": "https://example.org/terms"},
        ),
    ],
)
def test_a_card_says_its_bases_license_in_words_that_the_hub_takes(tmp_path, header, fields):
    readme = tmp_path / "README.md"
    readme.write_text(f"---\n{header}\n---\n# Base\n")
    terms = terms_for(None, license_of(readme), link_of(readme, None))
    names = {"license": "license", "license_name": "license_name", "license_link": "license_link"}
    assert {names[key]: value for key, value in terms.items() if value is not None} == fields


def test_a_relative_link_to_the_bases_terms_leads_to_the_base(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("---\nlicense: other\nlicense_name: qwen\nlicense_link: LICENSE\n---\n")
    assert link_of(readme, "org/base") == "https://huggingface.co/org/base/blob/main/LICENSE"
    assert terms_for("house-rules", "qwen", "https://x.example")["license_link"] is None
    assert terms_for("CC-BY-4.0", "qwen", None)["license"] == "cc-by-4.0"


def test_a_model_of_a_base_with_its_own_terms_is_pushed_with_their_name(workshop):
    own = "license: other\nlicense_name: qwen\nlicense_link: https://example.org/terms"
    (workshop.folder / "base" / "README.md").write_text(f"---\n{own}\n---\n# Base\n")
    workshop.publish()
    for repo in ("clinic/toy", "clinic/toy-rpo"):
        assert own in main_of(workshop, repo, "README.md")
        assert "whose terms reach every model" not in main_of(workshop, repo, "README.md")
