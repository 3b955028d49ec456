"""Pull requests: changes that wait beside main until they are merged, or clash."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError


def put(api: HfApi, path: str, content: bytes, **where: object):
    return api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id="alice/model", **where)


def test_a_pull_request_is_merged_onto_what_main_has_become(api: HfApi):
    api.create_repo("alice/model")
    made = put(api, "new.txt", b"1", create_pr=True)
    assert made.pr_num == 1
    put(api, "more.txt", b"2", revision="refs/pr/1")
    put(api, "main.txt", b"3")
    assert "new.txt" not in api.list_repo_files("alice/model")
    api.merge_pull_request("alice/model", 1)
    assert {"new.txt", "more.txt", "main.txt"} <= set(api.list_repo_files("alice/model"))
    details = api.get_discussion_details("alice/model", 1)
    assert (details.status, details.is_pull_request) == ("merged", True)
    assert details.merge_commit_oid == api.model_info("alice/model").sha


def test_a_pull_request_that_clashes_with_main_is_refused(api: HfApi):
    api.create_repo("alice/model")
    put(api, "a.txt", b"theirs", create_pr=True)
    put(api, "a.txt", b"ours")
    with pytest.raises(HfHubHTTPError, match=r"main has changed since in: a\.txt"):
        api.merge_pull_request("alice/model", 1)


def test_discussions_are_listed_with_what_was_said(api: HfApi):
    api.create_repo("alice/model")
    first = api.create_discussion("alice/model", title="Why?", description="Tell me")
    api.comment_discussion("alice/model", first.num, comment="Because")
    api.rename_discussion("alice/model", first.num, new_title="Why not?")
    api.change_discussion_status("alice/model", first.num, new_status="closed")
    api.create_pull_request("alice/model", title="Mine")
    assert [(d.num, d.is_pull_request) for d in api.get_repo_discussions("alice/model")] == [(2, True), (1, False)]
    details = api.get_discussion_details("alice/model", 1)
    assert (details.title, details.status) == ("Why not?", "closed")
    assert [event.content for event in details.events if event.type == "comment"] == ["Tell me", "Because"]
    assert [r.ref for r in api.list_repo_refs("alice/model", include_pull_requests=True).pull_requests] == ["refs/pr/2"]
