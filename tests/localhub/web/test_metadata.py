"""Cards are refused here as on the Hub, and one that came in earlier never breaks a listing."""

import pytest
from huggingface_hub import HfApi, ModelCard

from medllm.localhub import LocalHub
from medllm.localhub.web import metadata
from tests.localhub.wire import Wire, small

REFUSED = [
    "tags: 12",
    "tags: [a, 12]",
    "tags: {a: b}",
    "language: no",
    "datasets:\n- null",
    "base_model: 7",
    "metrics: 0.5",
    "pipeline_tag: [a]",
    "library_name: 3",
    "license: qwen",
    "license: MIT",
    "license: [mit, house]",
    "license: 2",
    "license_name: {a: b}",
    "model-index: foo",
    "model-index: [foo]",
    "model-index:\n- name: m",
    "model-index:\n- name: m\n  results: [{}]",
    "model-index:\n- name: m\n  results: [{task: {type: t}, dataset: {name: d, type: d}, metrics: [{type: a}]}]",
    "configs: all",
    "a: [",
    "- a\n- b",
    "just words",
    "a: *b",
    "\tlicense: mit",
]
TAKEN = [
    "license: mit",
    "license: [mit, cc-by-4.0]",
    "license: other\nlicense_name: qwen\nlicense_link: https://example.org/terms",
    "tags: one",
    "tags: [a, b]\nlanguage: ja\ndatasets: clinic/texts",
    "model-index:\n- name: m\n  results:\n"
    "  - task: {type: t}\n    dataset: {name: d, type: d}\n    metrics: [{type: a, value: 1}]",
    "tags: null\nmodel-index: []",
    "date: 2024-01-01\nnumber: .nan",
]


@pytest.fixture
def line(hub: LocalHub) -> Wire:
    line = Wire(hub.url, hub.token)
    line.create("alice/model")
    return line


def card(head: str) -> str:
    return f"---\n{head}\n---\n# Model\n"


def test_a_card_that_the_hub_refuses_is_refused_by_validation_and_by_the_commit(line: Wire):
    for head in REFUSED:
        assert line.post("/api/validate-yaml", {"content": card(head), "repoType": "model"}).status == 400, head
        assert line.commit("alice/model", small("README.md", card(head).encode())).status == 400, head
        assert line.commit("alice/model", small("docs/README.md", card(head).encode())).status == 200, head


def test_a_card_that_the_hub_takes_is_taken(line: Wire):
    for head in TAKEN:
        assert line.post("/api/validate-yaml", {"content": card(head), "repoType": "model"}).json["errors"] == [], head
        assert line.commit("alice/model", small("README.md", card(head).encode())).status == 200, head


@pytest.mark.parametrize("text", ["# Only text\n", "", "----\nno head\n----\n", "\ufeff---\nlicense: mit\n---\n"])
def test_a_card_without_metadata_or_with_a_byte_order_mark_is_taken(text: str):
    assert metadata.check(text)[0] == []


def test_a_head_that_is_never_closed_is_refused():
    assert metadata.check("---\nlicense: mit\n# Model\n")[0] != []


def test_a_card_that_came_in_earlier_breaks_no_listing(hub: LocalHub, api: HfApi, line: Wire, monkeypatch):
    more = ["self: 1", "ignore_metadata_errors: 2", "eval_results: 3", "1: a\ntrue: b", "a: " + "[" * 3000]
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "check", lambda text: ([], []))
        for number, head in enumerate([*REFUSED, *more]):
            for kind in ("model", "dataset", "space"):
                api.create_repo(f"alice/r{number}", repo_type=kind, space_sdk="static" if kind == "space" else None)
                body = card(head).encode()
                api.upload_file(
                    path_or_fileobj=body, path_in_repo="README.md", repo_id=f"alice/r{number}", repo_type=kind
                )
    many = len(REFUSED) + len(more)
    assert len(list(api.list_models(author="alice", full=True, cardData=True))) == many + 1
    assert len(list(api.list_datasets(author="alice", full=True))) == many
    assert len(list(api.list_spaces(author="alice", full=True))) == many
    for number in range(many):
        assert api.model_info(f"alice/r{number}").id == f"alice/r{number}"


def test_a_card_that_hub_made_from_its_own_classes_passes(api: HfApi, line: Wire):
    text = "---\nlicense: apache-2.0\nlanguage:\n- ja\n---\n# Model\n"
    api.upload_file(path_or_fileobj=str(ModelCard(text)).encode(), path_in_repo="README.md", repo_id="alice/model")
    assert api.model_info("alice/model").card_data.license == "apache-2.0"
