"""Raters who sign in with a Hugging Face account, by Gradio's mocked sign-in: each is that account."""

import time
from urllib.parse import urlsplit

import httpx
import pytest

from medllm.page.html import words
from medllm.page.review import rater_number
from medllm.page.serve import PageSettings, free_port, serve
from medllm.page.vote_box import NAMED, VoteBox
from medllm.votes.journal import Journal
from tests.page.conftest import in_a_loop
from tests.refusals import refused

pytestmark = pytest.mark.filterwarnings("ignore:Gradio does not support OAuth features outside of a Space")

ACCOUNT = {"type": "user", "name": "Sato-H", "fullname": "佐藤", "avatarUrl": "", "isPro": False, "orgs": []}


@pytest.fixture
def account(monkeypatch):
    """This machine's account, which Gradio signs in outside of a Space."""
    monkeypatch.setattr("gradio.oauth.get_token", lambda: "hf_mock")
    monkeypatch.setattr("gradio.oauth.whoami", lambda *_, **__: ACCOUNT)


@pytest.fixture
def signing(account, evaluation, tmp_path):
    """The address of a page whose raters sign in, and its journal."""
    settings = PageSettings(str(evaluation), port=free_port(), votes=tmp_path / "votes", sign_in=True)
    address, close = in_a_loop(lambda: serve(settings, block=False))
    yield address, Journal(tmp_path / "votes")
    close()


def signed_in(client: httpx.Client) -> dict[str, str]:
    """Sign in as a browser does; the cookie is for https alone, so it is handed on by hand."""
    answer = client.get("/login/huggingface?_target_url=/?tab=review")
    while urlsplit(answer.headers["location"]).path.startswith("/login/"):
        answer = client.get(answer.headers["location"])
    assert answer.headers["location"] == "/?tab=review"
    return {"cookie": answer.headers["set-cookie"].split(";")[0]}


def test_a_rater_signs_in_and_votes_as_that_account_whatever_name_is_sent(signing):
    address, journal = signing
    with httpx.Client(base_url=address.rstrip("/"), timeout=60) as client:
        refused = client.get("/medllm/pair?rater=name:Tanaka")
        assert refused.status_code == 401 and words()["sign_in_first"]["ja"] in refused.text
        assert client.post("/medllm/vote", json={"rater": "name:Sato-H"}).status_code == 401
        assert client.get("/medllm/votes.csv?rater=name:Sato-H").status_code == 401
        cookie = signed_in(client)
        shown = client.get("/medllm/pair?rater=name:Tanaka", headers=cookie).text
        at, pair = (shown.split(f'data-{name}="')[1].split('"')[0] for name in ("at", "shown"))
        form = {"rater": "name:Tanaka", "at": int(at), "shown": pair, "choice": "a"}
        assert words()["thanks"]["ja"] in client.post("/medllm/vote", json=form, headers=cookie).text
        left = {"cookie": client.get("/logout", headers=cookie).headers["set-cookie"].split(";")[0]}
        assert client.get("/medllm/pair", headers=left).status_code == 401
    (vote,) = journal.votes()
    box = VoteBox(None, journal, key=journal.secret)
    assert vote.rater == rater_number(box.rater(f"{NAMED}sato-h"))
    assert "Sato" not in vote.line(), "the user name is not stored"


def test_a_session_that_has_expired_is_signed_out(signing, monkeypatch):
    address, _ = signing
    with httpx.Client(base_url=address.rstrip("/"), timeout=60) as client:
        cookie = signed_in(client)
        now = time.time()
        monkeypatch.setattr("medllm.page.review_form.time.time", lambda: now + 9 * 60 * 60)
        assert client.get("/medllm/pair", headers=cookie).status_code == 401


def test_without_it_no_address_signs_anybody_in(evaluation, tmp_path):
    settings = PageSettings(str(evaluation), port=free_port(), votes=tmp_path / "votes")
    address, close = in_a_loop(lambda: serve(settings, block=False))
    try:
        for path in ("login/huggingface", "login/callback", "logout"):
            assert httpx.get(address + path).status_code == 404
        assert "Hugging Face" not in httpx.get(address + "config").text
        assert httpx.get(f"{address}medllm/pair?rater=name:Tanaka").status_code == 200
    finally:
        close()


def test_outside_of_a_space_and_without_an_account_it_is_refused_plainly(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr("gradio.oauth.get_token", lambda: None)
    with refused("page.no-account", "MEDLLM_SIGN_IN"):
        serve(PageSettings(str(evaluation), port=free_port(), votes=tmp_path / "votes", sign_in=True), block=False)
