"""The corpus counts tokens where the recipe names a tokenizer, and fetches nothing of the model but that."""

from pathlib import Path

import pyarrow.parquet as pq

from medllm.hub import Artifact, connect
from medllm.launch.local import launch
from medllm.pipeline import BuildContext, make_plan, run
from medllm.recipe import read_recipe, with_overrides
from medllm.stages.corpus import make as make_corpus
from tests.corpus.spread import lay_out, settings
from tests.launch.test_jobs import lay_out_real_corpus
from tests.refusals import refused

BASE = Path(__file__).parents[2] / "medllm" / "miniature" / "base"


def test_only_the_tokenizer_of_a_base_on_the_hub_is_fetched_and_the_card_tells_the_tokens(tmp_path):
    from tokenizers import Tokenizer

    lay_out_real_corpus(tmp_path)
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        hub.api.create_repo("clinic/base")
        hub.api.upload_folder(repo_id="clinic/base", folder_path=BASE)
        recipe = with_overrides(
            read_recipe(tmp_path / "toy.yaml"), {"base": "clinic/base@main", "corpus.tokenizer": "base"}
        )
        plan = make_plan(recipe, hub, ("corpus",))
        corpus = hub.pull(
            run(plan, BuildContext(hub, tmp_path / "runs", lambda text: None), launch, lambda plan: None)["corpus"]
        )
        commit = hub.resolve("clinic/base", "model", "main").revision
        fetched = {path.name for path in (hub.cache / "models--clinic--base" / "snapshots" / commit).iterdir()}
        assert fetched == {"tokenizer.json"}
        whole = hub.pull(Artifact("clinic/base", "model", commit))
        assert (whole / "model.safetensors").is_file(), "who wants the model afterwards gets all of it"
    rows = pq.read_table(corpus / "corpus").to_pylist()
    count = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    expected = [len(count.encode(row["text"], add_special_tokens=False).ids) for row in rows]
    assert [row["tokens"] for row in rows] == expected and min(expected) > 0
    card = (corpus / "README.md").read_text("utf-8")
    assert f"| {sum(expected):,} |" in card and "Tokens are those of `base`." in card


def test_a_model_without_a_tokenizer_json_is_named(tmp_path):
    (tmp_path / "base").mkdir()
    changed = settings("local").model_copy(update={"tokenizer": "./base"})
    with refused("corpus.no-tokenizer-file", "corpus.tokenizer", "./base"):
        make_corpus(changed, {**lay_out(tmp_path), "./base": tmp_path / "base"}, tmp_path / "out")
