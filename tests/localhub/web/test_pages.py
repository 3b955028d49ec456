"""The pages for people, with stored text that tries to be more than text."""

import base64
import re
import urllib.error
import urllib.request
from html.parser import HTMLParser

import pytest
from huggingface_hub import HfApi

from medllm.localhub import LocalHub
from medllm.localhub.web.pages import card_html

EVIL = """---
tags: ["<script>alert(1)</script>"]
---
# Title <img src=x onerror=alert(2)>

<script>alert(3)</script>
[click](javascript:alert(4)) [data](data:text/html,<script>alert(5)</script>) [good](notes/a.md)
![track](https://tracker.example/x.png) ![own](plot.png)
<iframe src="https://evil.example"></iframe>
"""


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the element."""
        self.found.append((tag, dict(attrs)))


def get(hub: LocalHub, path: str, token: str | None = None) -> tuple[str, dict[str, str]]:
    headers = {"Authorization": "Basic " + base64.b64encode(f"me:{token}".encode()).decode()} if token else {}
    with urllib.request.urlopen(urllib.request.Request(hub.url + path, headers=headers)) as response:
        return response.read().decode(), dict(response.headers)


def assert_harmless(text: str) -> None:
    for tag, attributes in Elements(text).found:
        assert tag not in {"script", "iframe", "object", "embed", "svg", "base", "style"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert (name == "style" and tag in {"th", "td"}) or name != "style"
            assert not re.match(r"\s*(javascript|vbscript|data:text)", value or "", re.IGNORECASE)


def test_a_card_is_shown_and_its_html_is_only_text(api: HfApi, hub: LocalHub):
    api.create_repo("alice/model")
    api.upload_file(path_or_fileobj=EVIL.encode(), path_in_repo="README.md", repo_id="alice/model")
    text, headers = get(hub, "/alice/model")
    assert_harmless(text)
    assert "&lt;script&gt;alert(3)&lt;/script&gt;" in text
    assert 'href="/alice/model/resolve/main/notes/a.md"' in text
    assert 'src="/alice/model/resolve/main/plot.png"' in text
    assert "tracker.example/x.png" not in text
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "script-src" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    "text",
    [
        "[a](jAvAsCrIpT:alert(1))",
        "[a](java\nscript:alert(1))",
        "[a](&#106;avascript:alert(1))",
        "<a href='javascript:alert(1)'>x</a>",
        '![a](x"onerror="alert(1))',
        "[a]: javascript:alert(1)\n\n[a]",
        "<javascript:alert(1)>",
        "`<script>`",
        "|a|\n|-|\n|<img src=x onerror=alert(1)>|",
        "```<script>\nx\n```",
    ],
)
def test_no_spelling_of_a_card_becomes_active(text: str):
    assert_harmless(str(card_html(text, "/a/b")))


def test_names_messages_and_paths_are_only_text(api: HfApi, hub: LocalHub):
    api.create_repo("alice/model")
    name = "<b onclick=x>.txt"
    api.upload_file(path_or_fileobj=b"x", path_in_repo=f"d/{name}", repo_id="alice/model", commit_message=EVIL)
    sha = api.model_info("alice/model").sha
    for path in (
        "/",
        "/alice/model/tree/main/d",
        "/alice/model/commits/main",
        f"/alice/model/commit/{sha}",
        "/?search=<script>",
    ):
        text, _ = get(hub, path)
        assert_harmless(text)
        assert "<b onclick" not in text
    listing, _ = get(hub, "/alice/model/tree/main/d")
    link = next(value["href"] for _, value in Elements(listing).found if "resolve" in (value.get("href") or ""))
    with urllib.request.urlopen(hub.url + link) as response:
        assert response.read() == b"x"


def test_a_stored_page_is_not_run_as_a_page_of_the_hub(api: HfApi, hub: LocalHub):
    api.create_repo("alice/model")
    for name in ("evil.html", "evil.svg", "evil.xhtml", "evil.js", "noname"):
        api.upload_file(path_or_fileobj=b"<svg onload=alert(1)>", path_in_repo=name, repo_id="alice/model")
        _, headers = get(hub, f"/alice/model/resolve/main/{name}")
        assert headers["content-type"].split(";")[0] in {"text/plain", "application/octet-stream"}
        assert (headers["x-content-type-options"], "sandbox" in headers["content-security-policy"]) == ("nosniff", True)


def test_tags_branches_and_commits_are_listed(api: HfApi, hub: LocalHub):
    api.create_repo("alice/data", repo_type="dataset")
    api.create_tag("alice/data", tag="v1", repo_type="dataset")
    api.create_branch("alice/data", branch="dev/x", repo_type="dataset")
    text, _ = get(hub, "/datasets/alice/data")
    assert 'href="/datasets/alice/data/tree/v1"' in text
    assert 'href="/datasets/alice/data/tree/dev%2Fx"' in text
    assert ".gitattributes" in get(hub, "/datasets/alice/data/tree/dev%2Fx")[0]
    assert "initial commit" in get(hub, "/datasets/alice/data/commits/main")[0]


def test_private_repos_show_to_whoever_signs_in_with_a_token(api: HfApi, hub: LocalHub):
    api.create_repo("alice/secret", private=True)
    assert "alice/secret" not in get(hub, "/")[0]
    assert "alice/secret" in get(hub, "/", hub.token)[0]
    assert ".gitattributes" in get(hub, "/alice/secret/tree/main", hub.token)[0]
    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        get(hub, "/-/sign-in")
    assert caught.value.headers["WWW-Authenticate"].startswith("Basic")
    caught.value.close()


def test_a_browsers_password_changes_nothing(api: HfApi, hub: LocalHub):
    header = {"Authorization": "Basic " + base64.b64encode(f"me:{api.token}".encode()).decode()}
    request = urllib.request.Request(hub.url + "/api/repos/create", b'{"name": "x"}', header, method="POST")
    with pytest.raises(urllib.error.HTTPError, match="401") as caught:
        urllib.request.urlopen(request)
    caught.value.close()
