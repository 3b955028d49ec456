"""Results from the Hub: a revision that is there is shown and named, one that is not is a panel, not a traceback."""

import os
import shutil

import pytest

from medllm.hub import Hub
from medllm.localhub import serve
from medllm.page.context import PageContext, Shelf
from medllm.page.html import ResultsError, fault_panel
from medllm.page.loading import load
from tests.page.simulated import write
from tests.refusals import refused

REPO = "clinic/m-evaluate"


def test_a_folder_that_changes_while_it_is_shown_is_noticed_and_what_was_read_stays(tmp_path):
    folder = write(tmp_path / "shown", per_section=2)
    results = load(str(folder))
    page = PageContext(results, Shelf(results))
    assert page.staleness() == ""
    before = results.record(results.keys[0], "base", "plain")
    for change in (
        lambda: os.utime(folder / "facts.json", (1, 1)),
        lambda: (folder / "records" / "more.parquet").write_bytes(b"half a file"),
        lambda: shutil.rmtree(folder),
    ):
        fresh = load(str(folder))
        assert not fresh.changed()
        change()
        assert fresh.changed()
        if folder.exists():
            (folder / "records" / "more.parquet").unlink(missing_ok=True)
    assert 'role="status"' in page.staleness()
    assert results.record(results.keys[0], "base", "plain") == before


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """An embedded Hub that holds one evaluation."""
    folder = tmp_path_factory.mktemp("hub")
    with serve(folder / "store") as served:
        hub = Hub(served.url, served.token, folder / "cache", "test", waits=())
        write(folder / "evaluation", per_section=3)
        hub.api.create_repo(REPO, repo_type="dataset")
        hub.api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=folder / "evaluation")
        hub.api.create_tag(REPO, tag="v1", repo_type="dataset")
        yield hub


@pytest.fixture(autouse=True)
def at_home(hub, monkeypatch):
    """The page reaches this Hub as it would reach the public one."""
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)


def test_a_dataset_at_a_revision_is_shown_with_its_commit(hub):
    results = load(f"{REPO}@v1")
    assert len(results.keys) == 12
    assert results.origin.name == REPO
    assert results.origin.revision == hub.resolve(REPO, "dataset").revision


def test_the_variable_names_it_as_well(hub, monkeypatch):
    monkeypatch.setenv("MEDLLM_RESULTS", REPO)
    assert load().origin.name == REPO


@pytest.mark.parametrize("wanted", [f"{REPO}@no-such-revision", "clinic/no-such-dataset", "no-such-org/x@main"])
def test_what_the_hub_does_not_have_is_a_panel_with_the_mend(wanted):
    with refused("page.not-fetched", wanted.split("@")[0], kind=ResultsError) as caught:
        load(wanted)
    assert wanted.split("@")[0] in fault_panel(caught.value)
    assert "リビジョン" in fault_panel(caught.value)
