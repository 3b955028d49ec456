"""A mirror brings a model or dataset into a Hub of one's own, whole or not at all, under the commit of its source."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.numpy import load_file, save_file

from medllm.errors import HubError
from medllm.hub import Artifact, Hub, Input, connect
from medllm.hub.mirror import bundle, mirror, source_of
from medllm.localhub import ServerLimits, serve
from medllm.localhub.store.blobs import Files
from medllm.localhub.validation import disk_full
from tests.refusals import refused

# huggingface_hub sends large files by a name of httpx's older versions.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CARD = "---\nlicense: gemma\n---\n# A model\n"


def quiet(text: str) -> None:
    """Print nothing."""


def weights(number: int) -> np.ndarray:
    """Random numbers, which no client can make smaller on the way."""
    return np.random.default_rng(number).random(1_000_000, np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder as its authors push it: safetensors in two shards, pickles and code beside them."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    for number in (1, 2):
        save_file({f"w{number}": weights(number)}, folder / f"model-{number}.safetensors")
    index = {"weight_map": {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04pickle" * 100)
    (folder / "modeling_own.py").write_text("raise SystemExit('code of a stranger')\n")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Hub]:
    """Another Hub, with nothing in it."""
    with connect(str(tmp_path / "source"), "maker", bars=False) as hub:
        yield replace(hub, waits=())


@pytest.fixture
def into(tmp_path: Path) -> Iterator[Hub]:
    """The hospital's own Hub."""
    with connect(str(tmp_path / "own"), "ward", bars=False) as hub:
        yield replace(hub, waits=())


@pytest.fixture
def commit(source: Hub, model: Path) -> str:
    """The model on the other Hub, as a commit with the tag v1."""
    source.api.create_repo("maker/model")
    made = source.api.upload_folder(repo_id="maker/model", folder_path=model).oid
    source.api.create_tag("maker/model", tag="v1", revision=made)
    return made


@pytest.fixture
def carried(source: Hub, commit: str, tmp_path: Path) -> Path:
    """The folder that `hf download --local-dir` leaves."""
    folder = tmp_path / "carried"
    source.api.snapshot_download("maker/model", revision=commit, local_dir=folder)
    return folder


@pytest.fixture(params=["folder", "address", "hub"])
def place(request: pytest.FixtureRequest, source: Hub, carried: Path) -> str:
    """Where the mirror reads the model: a downloaded folder, the other Hub's address, or its folder."""
    return {"folder": str(carried), "address": source.endpoint, "hub": source.name}[request.param]


def test_a_mirror_has_the_files_the_card_and_the_names_of_its_source(place, into, commit, model):
    made = mirror(source_of(place, "maker/model", "model", "v1", quiet), into)
    for revision in ("main", "v1", commit):
        folder = Path(into.api.snapshot_download("maker/model", revision=revision, cache_dir=into.cache))
        assert (folder / "README.md").read_text() == CARD
        assert np.array_equal(load_file(folder / "model-2.safetensors")["w2"], weights(2))
        assert not (folder / "pytorch_model.bin").exists() and not (folder / "modeling_own.py").exists()
    record = json.loads(into.file(made, "mirror.json").read_text())
    assert (record["commit"], record["revision"]) == (commit, "v1")
    assert record["left_out"] in (["modeling_own.py", "pytorch_model.bin"], [])
    assert into.resolve_source("maker/model", "model", "v1") == (made, commit)
    assert into.resolve_source("maker/model", "model", commit) == (replace(made, revision=commit), commit)


def test_a_dataset_is_mirrored_too(source, into, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "a"}\n')
    source.api.create_repo("maker/set", repo_type="dataset")
    source.api.upload_folder(repo_id="maker/set", folder_path=tmp_path / "set", repo_type="dataset")
    made = mirror(source_of(source.endpoint, "maker/set", "dataset", "main", quiet), into)
    assert into.file(made, "train.jsonl").read_text() == '{"text": "a"}\n'


def test_what_is_mirrored_already_is_not_sent_again(into, commit, carried):
    first = mirror(source_of(str(carried), "maker/model", "model", "main", quiet), into)
    assert mirror(source_of(str(carried), "maker/model", "model", "v1", quiet), into) == first
    assert len(into.api.list_repo_commits("maker/model")) == 2  # the repository's first commit and the mirror
    assert into.resolve("maker/model", "model", "v1") == first


def test_a_later_revision_follows_and_the_earlier_one_stays(source, into, commit, carried, model):
    first = mirror(source_of(str(carried), "maker/model", "model", "main", quiet), into)
    (model / "config.json").write_text('{"model_type": "qwen2"}')
    source.api.delete_file("model-2.safetensors", "maker/model")
    source.api.delete_file("model.safetensors.index.json", "maker/model")
    later = source.api.upload_file(
        repo_id="maker/model", path_or_fileobj=model / "config.json", path_in_repo="config.json"
    ).oid
    second = mirror(source_of(source.endpoint, "maker/model", "model", "main", quiet), into)
    assert into.resolve_source("maker/model", "model") == (second, later)
    assert "model-2.safetensors" not in into.state_at("maker/model", "model").files
    assert into.resolve_source("maker/model", "model", commit) == (replace(first, revision=commit), commit)


def test_somebody_else_s_repository_is_never_overwritten(into, commit, carried, model):
    into.api.create_repo("maker/model")
    into.api.upload_file(repo_id="maker/model", path_or_fileobj=b"mine", path_in_repo="mine.txt")
    with refused("hub.mirror-foreign", "maker/model"):
        mirror(source_of(str(carried), "maker/model", "model", "main", quiet), into)
    assert "mine.txt" in into.state_at("maker/model", "model").files


@pytest.mark.parametrize("room", [0, 1_000_000])
def test_a_full_disk_is_one_error_and_nothing_of_the_mirror_is_visible(tmp_path, carried, monkeypatch, room):
    found = source_of(str(carried), "maker/model", "model", "main", quiet)
    spool = Files.spool

    def spool_in_a_small_room(self, limit, what, *, expected=0):
        if expected > room:
            raise disk_full()
        return spool(self, limit, what, expected=expected)

    if room:
        monkeypatch.setattr(Files, "spool", spool_in_a_small_room)
    with serve(tmp_path / "full", user="ward", limits=None if room else ServerLimits(free_bytes=2**60)) as served:
        hub = Hub(served.url, served.token, tmp_path / "cache", "./full", waits=())
        with refused("hub.mirror-disk-full", "maker/model", "./full"):
            mirror(found, hub)
        assert hub.state_at("maker/model", "model") is None
    monkeypatch.undo()
    with serve(tmp_path / "full", user="ward") as served:
        hub = Hub(served.url, served.token, tmp_path / "cache", "./full", waits=())
        assert "model-1.safetensors" in hub.state_at("maker/model", "model", mirror(found, hub).revision).files


def test_a_mirror_that_was_interrupted_sends_only_what_is_left(into, carried, monkeypatch):
    sent: list[str] = []
    create_commit = HfApi.create_commit

    def stop_before_the_commit(self, repo_id, operations, **rest):
        self.preupload_lfs_files(repo_id, [one for one in operations if hasattr(one, "upload_info")], **{
            name: value for name, value in rest.items() if name == "repo_type"
        })  # fmt: skip
        raise KeyboardInterrupt

    found = source_of(str(carried), "maker/model", "model", "main", quiet)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(HfApi, "create_commit", stop_before_the_commit)
    with pytest.raises(KeyboardInterrupt):
        mirror(found, into)
    assert into.state_at("maker/model", "model") is None
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr("huggingface_hub.lfs._upload_single_part", lambda *a, **k: sent.append("a file"))
    monkeypatch.setattr("huggingface_hub.lfs._upload_multi_part", lambda *a, **k: sent.append("a file"))
    made = mirror(found, into)
    assert sent == []
    assert np.array_equal(load_file(into.file(made, "model-1.safetensors"))["w1"], weights(1))


def cut(folder: Path) -> None:
    os.truncate(folder / "model-2.safetensors", 1_000_000)


def change(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "other"}')


def flip(folder: Path) -> None:
    content = bytearray((folder / "model-1.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model-1.safetensors").write_bytes(content)


def lose(folder: Path) -> None:
    (folder / "model-2.safetensors").unlink()


def pickle(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()


def break_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (cut, "hub.mirror-cut-off"),
        (change, "hub.mirror-changed"),
        (flip, "hub.mirror-changed"),
        (lose, "hub.mirror-missing-shard"),
        (pickle, "hub.mirror-only-pickles"),
        (break_index, "hub.mirror-bad-index"),
        (shutil.rmtree, "hub.mirror-no-folder"),
    ],
)
def test_a_folder_that_was_damaged_on_its_way_is_refused(
    carried: Path, into: Hub, damage: Callable[[Path], None], code: str
):
    damage(carried)
    with refused(code):
        mirror(source_of(str(carried), "maker/model", "model", "main", quiet), into)
    assert into.state_at("maker/model", "model") is None


def test_a_folder_of_another_commit_or_of_two_or_of_an_unfinished_download_is_refused(source, commit, carried, model):
    with refused("hub.mirror-other-commit", commit, "f" * 40):
        source_of(str(carried), "maker/model", "model", "f" * 40, quiet)
    record = carried / ".cache/huggingface/download/config.json.metadata"
    text = record.read_text()
    record.write_text(text.replace(commit, "e" * 40))
    with refused("hub.mirror-mixed", "eeeeeee"):
        source_of(str(carried), "maker/model", "model", "main", quiet)
    record.write_text(text)
    record.with_name("x.incomplete").write_bytes(b"")
    with refused("hub.mirror-unfinished", "hf download maker/model"):
        source_of(str(carried), "maker/model", "model", "main", quiet)


def test_the_public_hub_gets_no_mirror(carried, into):
    with refused("hub.mirror-public"):
        mirror(
            source_of(str(carried), "maker/model", "model", "main", quiet),
            replace(into, endpoint="https://huggingface.co"),
        )


def test_a_bundle_that_the_disk_cannot_hold_is_refused_before_a_file_is_downloaded(
    source, commit, tmp_path, monkeypatch
):
    free = shutil.disk_usage(tmp_path)._replace(free=7_000_000)
    monkeypatch.setattr("medllm.hub.mirror.shutil.disk_usage", lambda place: free)
    with refused("hub.no-room", "0.01 GB", f"{tmp_path / 'disk'}"):
        bundle(source.endpoint, "maker/model", "model", "v1", tmp_path / "disk", quiet)
    assert not (tmp_path / "disk").exists()
    begun = tmp_path / "disk" / ".cache" / "huggingface" / "download" / "x.incomplete"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"0" * 1_100_000)
    with pytest.raises(HubError) as caught:  # the room is enough now; the half file then is a fault of its own
        bundle(source.endpoint, "maker/model", "model", "v1", tmp_path / "disk", quiet)
    assert caught.value.code == "hub.mirror-unfinished"


def test_a_bundle_is_a_folder_that_is_mirrored_elsewhere(source, commit, into, tmp_path):
    found = bundle(source.endpoint, "maker/model", "model", "v1", tmp_path / "disk", quiet)
    assert found.commit == commit
    assert not (tmp_path / "disk" / "pytorch_model.bin").exists()
    made = mirror(source_of(str(tmp_path / "disk"), "maker/model", "model", "main", quiet), into)
    assert into.resolve_source("maker/model", "model") == (made, commit)


def test_a_source_that_the_hub_does_not_hold_is_read_from_the_hub_above_and_is_the_same_source_when_mirrored(
    source, commit, into, carried
):
    reported: list[str] = []
    through = replace(into, upstream=source.endpoint, say=reported.append)
    artifact, at_source = through.resolve_source("maker/model", "model", "v1")
    assert (artifact.revision, at_source) == (commit, None)
    assert source.endpoint in reported[-1]
    assert through.file(artifact, "README.md").read_text() == CARD
    assert (through.pull(artifact, ("config.json",)) / "config.json").is_file()
    read = Input("base", "model", artifact.repo_id, artifact.revision)
    own, at_source = (lambda made: (made, commit))(
        mirror(source_of(str(carried), "maker/model", "model", "v1", quiet), into)
    )
    assert through.resolve_source("maker/model", "model", "v1") == (own, at_source)
    kept = Input("base", "model", own.repo_id, own.revision, f"{own.repo_id}@{at_source}")
    assert kept.identity == read.identity


def test_the_own_namespace_is_never_looked_for_upstream(source, commit, into):
    through = replace(into, upstream=source.endpoint)
    assert through.namespace == "ward"
    assert through.resolve_source("maker/model", "model", "v1")[0].revision == commit
    own = replace(through, namespace="maker")
    with refused("hub.not-mirrored", "maker/model@v1", "no other Hub was asked"):
        own.resolve_source("maker/model", "model", "v1")
    with refused("hub.no-such-repository", "maker/model"):
        own.pull(Artifact("maker/model", "model", commit))


@pytest.mark.parametrize("upstream", [None, "http://127.0.0.1:9"])
def test_a_source_that_no_hub_holds_is_refused_with_the_commands_that_bring_it_in(into, upstream):
    hub = replace(into, upstream=upstream)
    command = "medllm hub mirror maker/set@v1 --kind dataset"
    with refused("hub.not-mirrored", "maker/set@v1", f"{command} --bundle DIR", f"--from DIR --into {into.name}"):
        hub.resolve_source("maker/set", "dataset", "v1")


def test_the_command_mirrors_from_a_folder_into_a_folder(carried, commit, tmp_path):
    command = [str(Path(sys.executable).with_name("medllm")), "hub", "mirror", "maker/model@v1"]
    done = subprocess.run(
        [*command, "--from", carried, "--into", tmp_path / "new"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    with connect(str(tmp_path / "new")) as hub:
        assert str(hub.resolve("maker/model", "model", "v1")) == done.stdout.strip()
        with pytest.raises(RepositoryNotFoundError):
            hub.api.repo_info("maker/model", repo_type="dataset")
    assert "pytorch_model.bin: is left out" in done.stderr
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert wrong.stderr.endswith("[hub.mirror-arguments]\n")
