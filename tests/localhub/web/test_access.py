"""Who may see and change what: private, gated, roles, organisations, and other people's content."""

import hashlib
import json
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from medllm.localhub import LocalHub, serve
from medllm.localhub.store import accounts


@pytest.fixture
def bob(api: HfApi, hub: LocalHub) -> HfApi:
    assert api.whoami()["name"] == "alice"  # the first user, who owns the hub
    return HfApi(endpoint=hub.url, token=token_of(hub, "bob"))


def token_of(hub: LocalHub, name: str, role: accounts.Role = "write", org: str | None = None) -> str:
    with hub.store.database.write() as connection:
        user = accounts.add_user(connection, name)
        if org:
            accounts.join(connection, org, user, role)
        return accounts.issue(connection, user, role=role, label="test")


def raw(
    url: str, *, method: str = "GET", token: str | None = None, body: bytes | None = None
) -> tuple[int, bytes, Message]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method)) as response:
            return response.status, response.read(), response.headers
    except urllib.error.HTTPError as fault:
        with fault:
            return fault.code, fault.read(), fault.headers


def test_a_private_repo_looks_like_one_that_is_not_there(api: HfApi, bob: HfApi, hub: LocalHub):
    api.create_repo("alice/secret", private=True)
    for path in ("api/models/alice/{}", "api/models/alice/{}/tree/main", "alice/{}/resolve/main/README.md", "alice/{}"):
        for token, status in ((bob.token, 404), (None, 401)):
            secret, missing = (raw(f"{hub.url}/{path.format(name)}", token=token) for name in ("secret", "nothing"))
            assert secret[0] == missing[0] == status
            assert secret[1].replace(b"secret", b"") == missing[1].replace(b"nothing", b"")
    with pytest.raises(RepositoryNotFoundError):
        bob.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="alice/secret")
    assert [repo.id for repo in bob.list_models()] == []
    assert [repo.id for repo in api.list_models()] == ["alice/secret"]


def test_somebody_elses_repo_can_be_read_but_not_changed(api: HfApi, bob: HfApi):
    api.create_repo("alice/open")
    assert bob.model_info("alice/open").private is False
    for change in (
        lambda: bob.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="alice/open"),
        lambda: bob.delete_repo("alice/open"),
        lambda: bob.create_tag("alice/open", tag="v1"),
        lambda: bob.update_repo_settings("alice/open", private=True),
        lambda: bob.create_repo("alice/another"),
        lambda: bob.move_repo("alice/open", "bob/open"),
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            change()


def test_a_token_that_may_only_read_cannot_write_at_home(api: HfApi, hub: LocalHub):
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    reader = HfApi(endpoint=hub.url, token=token_of(hub, "bob", "read"))
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_repo("bob/model")


def test_members_of_an_organisation_share_its_private_repos(api: HfApi, bob: HfApi, hub: LocalHub):
    writer = HfApi(endpoint=hub.url, token=token_of(hub, "carol", "write", "ward"))
    reader = HfApi(endpoint=hub.url, token=token_of(hub, "dan", "read", "ward"))
    writer.create_repo("ward/model", private=True)
    assert reader.model_info("ward/model").private is True
    assert [org["name"] for org in reader.whoami()["orgs"]] == ["ward"]
    with pytest.raises(RepositoryNotFoundError):
        bob.model_info("ward/model")


def test_a_gated_repo_opens_when_its_owner_says_so(api: HfApi, bob: HfApi, hub: LocalHub, tmp_path: Path):
    api.create_repo("alice/gated")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="alice/gated")
    api.update_repo_settings("alice/gated", gated="manual")
    assert bob.model_info("alice/gated").gated == "manual"
    with pytest.raises(GatedRepoError):
        bob.hf_hub_download("alice/gated", "x.txt", cache_dir=tmp_path / "1")
    assert raw(f"{hub.url}/alice/gated/ask-access", method="POST", token=bob.token)[1] == b'{"status":"pending"}'
    assert [one.username for one in api.list_pending_access_requests("alice/gated")] == ["bob"]
    with pytest.raises(GatedRepoError):
        bob.auth_check("alice/gated")
    api.accept_access_request("alice/gated", "bob")
    assert Path(bob.hf_hub_download("alice/gated", "x.txt", cache_dir=tmp_path / "2")).read_bytes() == b"x"
    api.reject_access_request("alice/gated", "bob", rejection_reason=None)
    with pytest.raises(GatedRepoError):
        bob.auth_check("alice/gated")
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.grant_access("alice/gated", "bob")


def test_knowing_a_sha256_does_not_give_the_content(api: HfApi, bob: HfApi, hub: LocalHub):
    content = b"\0secret" * 1000
    api.create_repo("alice/secret", private=True)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id="alice/secret")
    bob.create_repo("bob/model")
    sha256 = hashlib.sha256(content).hexdigest()
    lines = [
        {"key": "header", "value": {"summary": "steal"}},
        {"key": "lfsFile", "value": {"path": "a.bin", "algo": "sha256", "oid": sha256, "size": len(content)}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    status, reply, _ = raw(f"{hub.url}/api/models/bob/model/commit/main", method="POST", token=bob.token, body=body)
    assert status == 400
    unknown = raw(
        f"{hub.url}/api/models/bob/model/commit/main",
        method="POST",
        token=bob.token,
        body=body.replace(sha256.encode(), b"0" * 64),
    )
    assert reply.replace(sha256.encode(), b"0" * 64) == unknown[1], "the hub tells what others have stored"
    batch = json.dumps({"operation": "upload", "objects": [{"oid": sha256, "size": len(content)}]}).encode()
    status, reply, _ = raw(
        f"{hub.url}/bob/model.git/info/lfs/objects/batch", method="POST", token=bob.token, body=batch
    )
    assert (status, "actions" in json.loads(reply)["objects"][0]) == (200, True)


def test_a_wrong_token_is_named_as_one(hub: LocalHub):
    status, _, headers = raw(f"{hub.url}/api/whoami-v2", token="hf_wrong")
    assert (status, headers["X-Error-Message"]) == (401, "Invalid credentials in Authorization header")


def test_another_name_for_this_machine_is_not_served(hub: LocalHub):
    request = urllib.request.Request(f"{hub.url}/api/models", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="421") as caught:
        urllib.request.urlopen(request)
    caught.value.close()


def test_every_loopback_name_is_served(hub: LocalHub):
    port = hub.url.rsplit(":", 1)[1]
    for name in (f"localhost:{port}", "localhost", f"[::1]:{port}", "127.0.0.2"):
        request = urllib.request.Request(f"{hub.url}/api/models", headers={"Host": name})
        with urllib.request.urlopen(request) as reply:
            assert reply.status == 200


def test_beyond_loopback_nothing_is_answered_without_a_token(tmp_path: Path):
    with serve(tmp_path / "hub", host="0.0.0.0", user="alice") as hub:
        url = hub.url.replace("0.0.0.0", "127.0.0.1")
        assert [raw(f"{url}/{path}")[0] for path in ("", "api/models", "alice/m/resolve/main/x")] == [401, 401, 401]
        assert raw(f"{url}/api/models", token=hub.token)[0] == 200


def test_tokens_are_kept_as_hashes_only(hub: LocalHub, api: HfApi):
    token = token_of(hub, "bob")
    assert raw(f"{hub.url}/api/whoami-v2", token=token)[0] == 200
    stored = b"".join(path.read_bytes() for path in hub.store.folder.rglob("*") if path.is_file())
    assert token.encode() not in stored
    assert hashlib.sha256(token.encode()).hexdigest().encode() in stored
