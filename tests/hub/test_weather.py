"""Bad weather between us and the Hub: waited out where it passes, worded where it does not, and nothing is doubled."""

import errno
import socket
from dataclasses import replace
from types import SimpleNamespace

import pytest

from medllm.errors import HubError
from medllm.hub import Hub, Provenance, client, connect, digest_of, push
from medllm.hub.errors import to_hub_error
from medllm.hub.push import writable_head
from tests.hub.weather import Storm, weather
from tests.refusals import refused

REPO = "clinic/toy-cpt"


@pytest.fixture
def calm(tmp_path):
    with connect(str(tmp_path / "hub"), "clinic") as hub:
        yield hub


@pytest.fixture
def stormy(calm, tmp_path):
    proxy, end = weather(calm.endpoint)
    yield replace(calm, endpoint=proxy.url, waits=(0.01, 0.01, 0.01), cache=tmp_path / "cache"), proxy
    end()


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"w" * 100_000)
    Provenance("cpt", "toy", {}, (), {}, digest_of("cpt", {}, ())).write(folder)
    return folder


def pushed(hub: Hub, out):
    return push(hub, out, REPO, "model", head=writable_head(hub, REPO, "model", "cpt"))


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_an_answer_that_says_later_is_waited_out(stormy, calm, out, status):
    hub, proxy = stormy
    proxy.storms = [Storm(path, 1, status, {"Retry-After": "0"}) for path in ("/api/repos/create", "/commit/", "/tag/")]
    artifact = pushed(hub, out)
    assert [storm.met for storm in proxy.storms] == [1, 1, 1]
    assert calm.find(REPO, "model", digest_of("cpt", {}, ())).artifact == artifact
    assert len(calm.api.list_repo_commits(REPO)) == 2


def test_the_pause_the_hub_asks_for_is_kept(stormy, out, monkeypatch):
    hub, proxy = stormy
    slept = []
    monkeypatch.setattr("medllm.hub.errors.time", SimpleNamespace(sleep=slept.append))
    proxy.storms = [Storm("/commit/", 1, 429, {"Retry-After": "17"})]
    pushed(hub, out)
    assert slept == [17]


def test_a_hub_that_nobody_serves_is_reported_at_once_and_one_that_went_away_is_waited_for_with_a_message(
    stormy, tmp_path
):
    hub, proxy = stormy
    messages = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = replace(hub, endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", waits=(9999.0,))
    with refused("hub.no-server", nobody.endpoint):
        nobody.refs(REPO, "model")
    gone = replace(nobody, waits=(0.01, 0.01), say=messages.append)
    gone._heard.append(True)
    with refused("hub.unreachable", REPO, "ConnectError"):
        gone.refs(REPO, "model")
    assert messages == [f"{REPO}: the Hub does not answer (ConnectError); trying again in 0 s"] * 2
    messages.clear()
    aloud = replace(hub, say=messages.append)
    aloud.refs(REPO, "model")
    proxy.storms = [Storm("/refs", 1), Storm("/refs", 1, 429), Storm("/refs", 1, 503)]
    aloud.refs(REPO, "model")
    assert [line.split("; ")[0] for line in messages] == [
        f"{REPO}: the Hub does not answer (RemoteProtocolError)",
        f"{REPO}: the Hub asks for fewer requests",
        f"{REPO}: the Hub answers 503",
    ]
    assert all(line.endswith("; trying again in 0 s") for line in messages)


def test_a_hub_that_takes_the_call_and_never_answers_is_not_waited_for_for_ever(stormy, monkeypatch):
    hub, _ = stormy
    monkeypatch.setattr(client, "READ", 0.1)
    messages = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = replace(hub, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", waits=(0.01,), say=messages.append)
        with refused("hub.unreachable", REPO, "ReadTimeout"):
            dead.state_at(REPO, "model")
        with refused("hub.unreachable", REPO, "ReadTimeout"):
            dead.refs(REPO, "model")
    assert messages == [f"{REPO}: the Hub does not answer (ReadTimeout); trying again in 0 s"] * 2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(stormy, calm, out):
    hub, proxy = stormy
    proxy.storms = [Storm("POST .*/commit/", 1, after=True)]
    pushed(hub, out)
    assert proxy.storms[0].met == 1
    assert len(calm.api.list_repo_commits(REPO)) == 2


def test_a_line_that_is_cut_in_mid_push_and_stays_cut_leaves_nothing_and_the_next_run_goes_on(stormy, calm, out):
    hub, proxy = stormy
    proxy.storms = [Storm("POST .*/commit/", 99)]
    with refused("hub.unreachable", REPO):
        pushed(hub, out)
    assert calm.refs(REPO, "model").tags == []
    proxy.storms = []
    assert pushed(hub, out) == calm.find(REPO, "model", digest_of("cpt", {}, ())).artifact
    assert len(calm.api.list_repo_commits(REPO)) == 2


def test_an_answer_that_says_no_is_not_asked_again(stormy, out):
    hub, proxy = stormy
    proxy.storms = [Storm("/api/repos/create", 99, 403)]
    with refused("hub.forbidden", "clinic/toy-cpt", "--set namespace=NAME"):
        pushed(hub, out)
    assert proxy.storms[0].met == 1


def test_a_full_hub_and_a_full_disk_say_what_is_full(stormy, out):
    hub, proxy = stormy
    proxy.storms = [Storm("POST .*/commit/", 99, 507)]
    with refused("hub.full", REPO):
        pushed(hub, out)
    full = to_hub_error("clinic/toy", OSError(errno.ENOSPC, "No space left on device"))
    assert full is not None and full.code == "stage.disk-full"


@pytest.mark.parametrize("date", ["Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_hub_whose_clock_is_wrong_changes_nothing(stormy, calm, out, date):
    hub, proxy = stormy
    proxy.headers = {"Date": date, "Last-Modified": date}
    artifact = pushed(hub, out)
    assert (hub.pull(artifact) / "weights.safetensors").read_bytes() == b"w" * 100_000


def test_a_token_that_is_missing_or_wrong_is_refused_before_anything_is_made(calm):
    with refused("hub.no-token", "hf auth login"):
        replace(calm, token=None).check_writable("clinic")
    with refused("hub.unknown-token", "hf auth login"):
        replace(calm, token="hf_unknown", waits=()).check_writable("clinic")


def test_no_token_is_in_an_error_or_in_what_caused_it(stormy, out):
    hub, proxy = stormy
    proxy.storms = [Storm("POST .*/commit/", 99, 403)]
    with pytest.raises(HubError) as fault:
        pushed(hub, out)
    chain = [fault.value]
    while below := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(below)
    assert len(chain) >= 2
    for one in chain:
        assert not {"request", "_request", "response"} & set(vars(one))
        assert hub.token not in f"{one!r} {one}"
