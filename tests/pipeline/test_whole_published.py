"""What a real run leaves on the Hub: cards with the numbers of its records, folders for any client, no token."""

import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard, HfApi, ModelCard, metadata_load, snapshot_download

from medllm.exam.record import read_records
from tests.hub.weather import Storm, weather
from tests.localhub.clients.installed import python_client, run

pytestmark = pytest.mark.slow

KINDS = {"corpus": "dataset", "cpt": "model", "preferences": "dataset", "rpo": "model", "merge": "model",
         "evaluate": "dataset"}  # fmt: skip


@pytest.fixture
def pulled(finished):
    """A file of a repository as anybody would fetch it."""
    api = HfApi(endpoint=finished.hub.url, token=finished.hub.token)

    def pull(repo_id: str, name: str = "README.md") -> str:
        return Path(api.hf_hub_download(repo_id, name, cache_dir=finished.folder / "cache")).read_text("utf-8")

    return pull


@pytest.fixture
def scores(finished):
    """Right answers in the records, by model and prompt."""
    api = HfApi(endpoint=finished.hub.url, token=finished.hub.token)
    folder = api.snapshot_download("clinic/tiny-evaluate", repo_type="dataset", cache_dir=finished.folder / "cache")
    found: dict[tuple[str, str], list[bool]] = {}
    for one in read_records(Path(folder)):
        found.setdefault((one.model, one.prompt), []).append(bool(one.correct))
    assert len(found) == 6
    assert {len(answers) for answers in found.values()} == {10}
    return {key: sum(answers) / len(answers) for key, answers in found.items()}


def test_the_cards_tell_certificate_results_audit_and_conflicts(pulled):
    card = pulled("clinic/tiny")
    for heading in ("Plain against explained", "Leakage audit", "The merge", "Training", "Limits", "How to cite"):
        assert re.search(rf"^## {heading}\n\n\S|^### {heading}\n\n\S", card, re.MULTILINE), heading
    assert not re.search(r"^(#+) .*\n+(?=\1 |\Z)", card, re.MULTILINE), "a heading with nothing under it"
    assert "./past states no licence" in card


@pytest.mark.parametrize(("repo_id", "model"), [("clinic/tiny", "final"), ("clinic/tiny-cpt", "cpt")])
def test_plain_against_explained_is_in_table_index_and_eval_results_as_in_the_records(pulled, scores, repo_id, model):
    card = pulled(repo_id)
    plain, explain = scores[model, "plain"], scores[model, "explain"]
    (row,) = [line for line in card.splitlines() if line.startswith(f"| {model} | world |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "10"
    assert cells[3].startswith(f"{100 * plain:.1f} (")
    assert cells[4].startswith(f"{100 * explain:.1f} (")
    assert float(cells[5].split()[0].replace("−", "-")) == pytest.approx(100 * (explain - plain), abs=0.06)
    (result,) = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    metrics = {one["name"]: one["value"] for one in result["metrics"]}
    assert metrics["score, plain"] == pytest.approx(plain, abs=1e-4)
    assert metrics["score, explained minus plain"] == pytest.approx(explain - plain, abs=1e-4)
    entries = {one["dataset"]["task_id"]: one for one in yaml.safe_load(pulled(repo_id, ".eval_results/medllm.yaml"))}
    assert entries["world-plain"]["value"] == pytest.approx(plain, abs=1e-4)
    assert entries["world-explain"]["value"] == pytest.approx(explain, abs=1e-4)
    assert entries["world-plain"]["dataset"]["revision"] in card


@pytest.mark.parametrize("stage", KINDS)
def test_the_hubs_own_client_reads_every_header_and_every_result(finished, pulled, scores, stage):
    repo_id = "clinic/tiny" if stage == "merge" else f"clinic/tiny-{stage}"
    text = HfApi(endpoint=finished.hub.url, token=finished.hub.token).hf_hub_download(
        repo_id, "README.md", repo_type=KINDS[stage], cache_dir=finished.folder / "cache"
    )
    card = (ModelCard if KINDS[stage] == "model" else DatasetCard).load(text)
    assert card.data.license
    assert {"medical", "medllm"} <= set(card.data.tags)
    assert not re.search(r"^(#+) .*\n+(?=\1 |\Z)|\n\|[-|]+\|\n(?!\|)", card.text, re.MULTILINE), (
        "an empty section or table"
    )
    if KINDS[stage] == "model":
        assert card.data.base_model_relation == ("finetune" if stage == "merge" else "adapter")
        assert re.search(r"^- \w+: .+ core.*, no GPU, \d+ s$", card.text, re.MULTILINE), "no hardware"
        found = {one.metric_name: one.metric_value for one in card.data.eval_results}
        assert found["score, plain"] == pytest.approx(scores["cpt" if stage == "cpt" else "final", "plain"], abs=1e-4)
        assert set(metadata_load(text)) >= {"datasets", "language", "library_name", "pipeline_tag", "model-index"}
    if stage in ("preferences", "evaluate"):
        assert "## Licence" in card.text and "not stated" in card.text


@pytest.mark.long
def test_how_to_load_is_runnable_as_it_is_in_the_cards(finished, pulled):
    blocks = [
        re.search(r"```python\n(.*?)```", pulled(one), re.DOTALL)[1] for one in ("clinic/tiny", "clinic/tiny-rpo")
    ]
    program = f"{blocks[0]}\nmerged = model\n{blocks[1]}\nassert model.config.vocab_size == merged.config.vocab_size\n"
    done = finished.call("-c", program, home="a-reader")
    assert done.returncode == 0, done.stderr


def made_folder(finished, stage: str) -> Path:
    """A plain folder of what the run pushed."""
    folder = finished.folder / "pushed" / stage
    repo_id = "clinic/tiny" if stage == "merge" else f"clinic/tiny-{stage}"
    at = {"endpoint": finished.hub.url, "token": finished.hub.token, "local_dir": folder}
    snapshot_download(repo_id, repo_type=KINDS[stage], **at)
    shutil.rmtree(folder / ".cache")
    return folder


@pytest.mark.parametrize("stage", KINDS)
def test_what_was_pushed_is_a_folder_that_hf_upload_takes_as_it_is(finished, stage):
    upload = "import sys; from huggingface_hub.cli.hf import main; sys.argv[0] = 'hf'; main()"
    words = ("upload", f"clinic/copy-{stage}", str(made_folder(finished, stage)), "--repo-type", KINDS[stage])
    done = finished.call("-c", upload, *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.matrix
@pytest.mark.long
@pytest.mark.parametrize("stage", KINDS)
def test_the_command_line_of_0_36_uploads_every_folder_byte_for_byte(finished, stage):
    folder, repo_id, kind = made_folder(finished, stage), f"clinic/old-{stage}", KINDS[stage]
    environment = finished.environment(home=f"old-home-{stage}") | {"HF_HUB_DISABLE_TELEMETRY": "1"}
    program = python_client("0.36.2") / "huggingface-cli"
    run(program, "upload", repo_id, folder, "--repo-type", kind, "--private", env=environment)
    api = HfApi(endpoint=finished.hub.url, token=finished.hub.token)
    back = Path(api.snapshot_download(repo_id, repo_type=kind, local_dir=finished.folder / f"back-{stage}"))
    for path in folder.rglob("*"):
        if path.is_file():
            assert (back / path.relative_to(folder)).read_bytes() == path.read_bytes()


@pytest.mark.long
def test_the_token_is_nowhere_after_a_whole_run_and_after_failures(finished):
    store = finished.hub.store
    reader = HfApi(endpoint=finished.hub.url, token=finished.hub.token)
    failures = [
        finished.medllm("run", "tiny.yaml", "--set", "namespace=other", "--yes"),
        finished.medllm("run", "tiny.yaml", "--set", "base=clinic/none@main", "--yes"),
        finished.medllm("run", "tiny.yaml", token="hf_" + "x" * 34),
        finished.medllm("run", "tiny.yaml", "--set", "corpus.data=./nowhere", "--yes"),
    ]
    proxy, end = weather(finished.hub.url)
    proxy.storms = [Storm("POST .*/commit/", 99, 403)]
    another = ("run", "tiny.yaml", "corpus", "--set", "name=again")
    failures.append(finished.medllm(*another, url=proxy.url))
    end()
    assert all(one.returncode == 1 and one.stderr.splitlines()[-1] for one in failures)
    assert "may not do that" in failures[-1].stderr
    assert reader.whoami()["name"] == "clinic"

    token = finished.hub.token
    assert store.identify(token) is not None
    assert len(finished.seen_processes) > 3
    assert not any(token in line for line in finished.seen_processes)
    assert not any(token in text for text in finished.tokens)
    files = [path for path in finished.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    assert {"README.md", "provenance.json"} <= {path.name for path in files}
    assert [path for path in files if token.encode() in path.read_bytes()] == []
    tables = [path for path in files if path.suffix == ".parquet"]
    assert len(tables) > 5
    assert not any(token in str(pq.read_table(path).to_pylist()) for path in tables)  # its pages are compressed
