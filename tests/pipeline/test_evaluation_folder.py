"""An evaluation whose results are a folder: made once, gone on with, extended, and nothing else overwritten."""

import json
import shutil

import pytest

from medllm.corpus.decontaminate import matcher
from medllm.exam.record import read_records
from medllm.generation import factory
from medllm.hub import Provenance, connect
from medllm.launch.local import maker_of
from medllm.pipeline import BuildContext
from medllm.pipeline.evaluation_folder import make_folder, plan_folder
from medllm.recipe.evaluation import evaluation_recipe
from tests import tiny
from tests.refusals import refused


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two bases, an adapter on each, and an exam."""
    folder = tmp_path_factory.mktemp("folder")
    for name, seed in (("one", 0), ("two", 5)):
        base = tiny.make_base(folder / name, seed=seed)
        adapter = tiny.make_adapter(folder / f"{name}-adapter", base, seed=seed)
        config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": name}), "utf-8")
    tiny.make_exam(folder / "ward", 6)
    return folder


@pytest.fixture
def evaluate(world, tmp_path):
    """Evaluate as `medllm evaluate` does; return the folder of the results, and what was reported."""

    def run(*models, out=None, exam=None, **settings):
        changes = {"evaluate.dtype": "float32", "evaluate.max_new_tokens": {"plain": 4, "explain": 8}}
        places = [str(world / model) for model in models]
        recipe = evaluation_recipe(places, [str(exam or world / "ward")], changes=changes, **settings)
        lines: list[str] = []
        with connect(str(tmp_path / "hub"), None) as hub:
            planned = plan_folder(recipe, hub, tmp_path / "runs", out)
            bench = BuildContext(hub, tmp_path / "runs", lines.append)
            return make_folder(planned, bench, maker_of("evaluate")), lines

    return run


def test_adapters_are_asked_on_the_bases_that_they_name_beside_whole_models(evaluate):
    folder, _ = evaluate("one", "one-adapter", "two-adapter")
    replies: dict[str, list[str]] = {}
    for record in read_records(folder):
        replies.setdefault(record.model, []).append(record.completion)
    assert {name: len(texts) for name, texts in replies.items()} == dict.fromkeys(
        ("one", "one-adapter", "two-adapter"), 12
    )
    assert replies["one"] != replies["one-adapter"] != replies["two-adapter"]
    provenance = Provenance.read((folder / Provenance.FILE).read_text("utf-8"), "here")
    assert provenance.stage == "evaluate" and len(provenance.inputs) == 6, "models, bases of the adapters, the exam"


def test_the_same_evaluation_is_made_once_and_another_has_a_folder_of_its_own(evaluate, tmp_path):
    first, _ = evaluate("one", limit=2)
    again, lines = evaluate("one", limit=2)
    assert again == first and lines == [f"evaluate: {first} holds exactly this"]
    other, _ = evaluate("one", limit=3)
    assert other != first and {one.name for one in (tmp_path / "runs").iterdir()} == {first.name, other.name}


def test_a_named_folder_is_extended_and_never_replaced_by_less(evaluate, tmp_path):
    out = tmp_path / "mine"
    evaluate("one", limit=2, out=out)
    evaluate("one", "two", limit=3, out=out)
    assert len(read_records(out)) == 2 * 2 * 3
    with refused("command.other-evaluation", out, "limit 3 -> 1"):
        evaluate("one", "two", limit=1, out=out)
    assert len(read_records(out)) == 2 * 2 * 3


def test_a_folder_with_anything_else_is_left_alone(evaluate, tmp_path):
    out = tmp_path / "letters"
    out.mkdir()
    (out / "to_the_dean.txt").write_text("x", "utf-8")
    with refused("command.folder-taken", out):
        evaluate("one", limit=1, out=out)
    assert [path.name for path in out.iterdir()] == ["to_the_dean.txt"]


def test_an_interrupted_evaluation_goes_on_without_asking_again(evaluate, tmp_path, monkeypatch):
    from medllm.generation.engine.local import LocalGenerator

    monkeypatch.setenv("MEDLLM_ANSWERS", "none")
    generate, asked = LocalGenerator.generate, []

    def stumbling(self, requests):
        asked.append(len(requests))
        for count, reply in enumerate(generate(self, requests)):
            if len(asked) == 1 and count == 5:
                raise KeyboardInterrupt
            yield reply

    monkeypatch.setattr(LocalGenerator, "generate", stumbling)
    with pytest.raises(KeyboardInterrupt):
        evaluate("one")
    folder, _ = evaluate("one")
    assert asked == [12, 7]
    assert len(read_records(folder)) == 12 and [one.name for one in (tmp_path / "runs").iterdir()] == [folder.name]


def test_an_adapter_whose_base_is_not_found_is_refused_with_what_to_give(evaluate, world, tmp_path):
    lonely = tmp_path / "lonely"
    shutil.copytree(world / "one-adapter", lonely)
    with refused("generation.no-base", "lonely", "--base"):
        evaluate(lonely)
    folder, _ = evaluate(lonely, base=str(world / "one"), limit=1)
    assert {record.model for record in read_records(folder)} == {"lonely"}


def test_a_recipe_with_a_namespace_has_no_folder(tmp_path):
    recipe = evaluation_recipe(["me/a"], ["medqa"], changes={"namespace": "me"})
    with connect(str(tmp_path / "hub"), "me") as hub, refused("recipe.not-a-folder"):
        plan_folder(recipe, hub, tmp_path)


def test_what_is_kept_is_shown_again_without_loading_a_model_or_searching_the_examples(
    evaluate, world, tmp_path, monkeypatch
):
    loaded, searched = [], []
    load, search = factory._Here._load, matcher.ExamIndex.__init__
    monkeypatch.setattr(factory._Here, "_load", lambda *given: loaded.append(1) or load(*given))
    monkeypatch.setattr(matcher.ExamIndex, "__init__", lambda *a, **b: searched.append(1) or search(*a, **b))
    ward = shutil.copytree(world / "ward", tmp_path / "ward")
    example = {"question_id": "x", "text": "発熱の原因はどれか。", "choices": list("かきくけこ"), "answer": "b"}
    example |= {"explanation": "感染症が最も多い。", "exam_date": "2010-02-06"}
    (ward / "exemplars.jsonl").write_text(json.dumps(example, ensure_ascii=False) + "\n", "utf-8")

    def asked(name):
        matcher.index_of.cache_clear()
        folder, _ = evaluate("one", exam=ward, out=tmp_path / name)
        counts = len(loaded), len(searched)
        loaded.clear(), searched.clear()
        return folder, counts

    first, before = asked("first")
    again, after = asked("again")
    assert (before, after) == ((1, 1), (0, 0))
    facts = [json.loads((folder / "facts.json").read_text("utf-8")) for folder in (first, again)]
    assert facts[0]["few_shot_audit"] == facts[1]["few_shot_audit"]
    assert facts[0]["few_shot_audit"]["ward"]["documents"] == 1
    replies = [[record.completion for record in read_records(folder)] for folder in (first, again)]
    assert replies[0] == replies[1] and len(replies[0]) == 12
    example["text"] = "頭痛の原因はどれか。"
    (ward / "exemplars.jsonl").write_text(json.dumps(example, ensure_ascii=False) + "\n", "utf-8")
    assert asked("changed")[1] == (1, 1), "another example is searched, and asked with"
