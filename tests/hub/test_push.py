"""A push is one commit: whole or not at all, never over other people's work, and repeated without harm."""

import os
import sys
from pathlib import Path

import pytest

from medllm.hub import Provenance, connect, digest_of, push
from medllm.hub.errors import MovedError
from medllm.hub.push import branch_of, fetch_wip, push_wip, writable_head
from tests.refusals import refused

REPO = "clinic/toy-cpt"


@pytest.fixture
def hub(tmp_path):
    with connect(str(tmp_path / "hub"), "clinic") as there:
        yield there


def output(folder: Path, value: int, **files: bytes) -> str:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digest = digest_of("cpt", {"value": value}, ())
    Provenance("cpt", "toy", {"value": value}, (), {}, digest).write(folder)
    return digest


def pushed(hub, folder, **more):
    return push(hub, folder, REPO, "model", head=writable_head(hub, REPO, "model", "cpt"), **more)


def test_a_push_is_found_by_its_digest_and_pulls_back_byte_for_byte(hub, tmp_path):
    weights = os.urandom(2_000_000)
    digest = output(tmp_path / "out", 1, weights=weights, facts=b"{}")
    artifact = pushed(hub, tmp_path / "out")
    assert hub.find(REPO, "model", digest).artifact == artifact
    assert (hub.pull(artifact) / "weights").read_bytes() == weights
    assert hub.find(REPO, "model", digest_of("cpt", {"value": 2}, ())) is None


def test_the_same_push_again_changes_nothing(hub, tmp_path):
    output(tmp_path / "out", 1, facts=b"{}")
    first = pushed(hub, tmp_path / "out")
    assert pushed(hub, tmp_path / "out") == first
    assert len(hub.api.list_repo_commits(REPO)) == 2  # the Hub's own first one, and ours


def test_what_no_longer_belongs_is_gone_and_the_old_version_is_still_under_its_tag(hub, tmp_path):
    before = output(tmp_path / "out", 1, old=b"1")
    first = pushed(hub, tmp_path / "out")
    output(tmp_path / "out", 2, new=b"2")
    second = pushed(hub, tmp_path / "out")
    assert {path.name for path in hub.pull(second).iterdir()} == {".gitattributes", "new", "provenance.json"}
    assert hub.find(REPO, "model", before).artifact == first


def test_another_run_that_pushed_meanwhile_is_not_overwritten(hub, tmp_path):
    head = writable_head(hub, REPO, "model", "cpt")
    output(tmp_path / "theirs", 1, w=b"theirs")
    theirs = pushed(hub, tmp_path / "theirs")
    output(tmp_path / "ours", 2, w=b"ours")
    with refused("hub.moved", REPO, kind=MovedError):
        push(hub, tmp_path / "ours", REPO, "model", head=head)
    assert hub.resolve(REPO, "model") == theirs


def test_two_runs_of_the_same_end_in_one_commit(hub, tmp_path):
    head = writable_head(hub, REPO, "model", "cpt")
    output(tmp_path / "one", 1, w=b"same")
    output(tmp_path / "two", 1, w=b"same")
    first = push(hub, tmp_path / "one", REPO, "model", head=head)
    assert push(hub, tmp_path / "two", REPO, "model", head=head) == first


def test_large_weights_are_staged_on_a_branch_and_become_visible_by_one_commit(hub, tmp_path):
    weights = {f"shard-{number}": os.urandom(300_000) for number in range(4)}
    output(tmp_path / "out", 1, **weights)
    artifact = pushed(hub, tmp_path / "out", staged_above=1_000_000)
    assert len(hub.api.list_repo_commits(REPO)) == 2
    assert [branch.name for branch in hub.refs(REPO, "model").branches] == ["main"]
    pulled = hub.pull(artifact)
    assert {name: (pulled / name).read_bytes() for name in weights} == weights


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # git-lfs, by a name of httpx's older versions
@pytest.mark.parametrize("lfs_alone", [False, True])
@pytest.mark.parametrize("staged_above", [10**9, 1_000_000])
def test_a_push_reports_how_many_of_its_bytes_are_sent(hub, tmp_path, monkeypatch, lfs_alone, staged_above):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", lfs_alone)
    seen = []
    monkeypatch.setattr(sys.modules["medllm.hub.push"], "report_progress", lambda one, now=False: seen.append(one))
    weight = 9_000_000 if lfs_alone else 40_000_000  # xet reports several times a second only
    output(tmp_path / "out", 1, **{f"shard-{number}": os.urandom(weight) for number in range(3)}, facts=b"{}")
    pushed(hub, tmp_path / "out", staged_above=staged_above)
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert {(one.total, one.unit) for one in seen} == {(size, "bytes")}
    sending = [one.done for one in seen if one.what == ""]
    assert sending == sorted(sending) and sending[0] == 0 and sending[-1] >= 3 * weight
    assert any(1_000_000 < done < 3 * weight - 1_000_000 for done in sending), "also within one commit"
    assert seen[-1].done == size


def test_a_tag_of_ours_on_foreign_content_is_an_error_not_a_result(hub, tmp_path):
    digest = digest_of("cpt", {"value": 1}, ())
    hub.api.create_repo(REPO)
    hub.api.create_tag(REPO, tag=f"made-{digest[:12]}")
    with refused("hub.foreign-tag", REPO, f"made-{digest[:12]}"):
        hub.find(REPO, "model", digest)


def test_work_in_progress_comes_back_from_its_branch_and_ends_with_the_push(hub, tmp_path):
    digest = output(tmp_path / "out", 1, w=b"done")
    part = tmp_path / "part"
    (part / "checkpoint-2").mkdir(parents=True)
    (part / "checkpoint-2" / "state").write_bytes(b"2")
    push_wip(hub, part, REPO, "model", branch_of(digest))
    (part / "checkpoint-2" / "state").write_bytes(b"22")
    push_wip(hub, part, REPO, "model", branch_of(digest))
    assert fetch_wip(hub, tmp_path / "elsewhere", REPO, "model", branch_of(digest))
    assert (tmp_path / "elsewhere" / "checkpoint-2" / "state").read_bytes() == b"22"
    assert not (tmp_path / "elsewhere" / ".gitattributes").exists()
    pushed(hub, tmp_path / "out")
    assert not fetch_wip(hub, tmp_path / "again", REPO, "model", branch_of(digest))


def test_two_hubs_do_not_share_a_cache(hub, tmp_path):
    with connect(str(tmp_path / "other"), "clinic") as other:
        assert other.cache != hub.cache
