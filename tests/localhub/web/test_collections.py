"""Collections by the real client: made once, filled, shown to those who may see each repository, and given up."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from medllm.localhub import LocalHub


@pytest.fixture
def other(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.store.session_token("bob"))


def lines(api: HfApi, slug: str) -> list[tuple[str, str, str | None]]:
    return [(one.item_id, one.item_type, one.note) for one in api.get_collection(slug).items]


def test_a_collection_is_made_once_and_gathers_each_repository_once(api: HfApi):
    made = api.create_collection("医学モデル of 2026", namespace="alice", description="all of it")
    assert api.create_collection("医学モデル of 2026", namespace="alice", exists_ok=True).slug == made.slug
    assert made.slug.startswith("alice/of-2026-")
    api.create_repo("alice/model")
    api.create_repo("alice/data", repo_type="dataset")
    for _ in range(2):
        api.add_collection_item(made.slug, "alice/model", "model", note="merged", exists_ok=True)
        api.add_collection_item(made.slug, "alice/data", "dataset", exists_ok=True)
    assert lines(api, made.slug) == [("alice/model", "model", "merged"), ("alice/data", "dataset", None)]
    assert [one.slug for one in api.list_collections(owner="alice", item="datasets/alice/data")] == [made.slug]


def test_items_move_get_notes_and_go_and_a_deleted_repository_takes_its_line_with_it(api: HfApi):
    made = api.create_collection("c", namespace="alice")
    for name in ("a", "b", "d"):
        api.create_repo(f"alice/{name}")
        api.add_collection_item(made.slug, f"alice/{name}", "model")
    last = api.get_collection(made.slug).items[-1]
    api.update_collection_item(made.slug, last.item_object_id, position=0, note="first")
    assert [line[0] for line in lines(api, made.slug)] == ["alice/d", "alice/a", "alice/b"]
    api.delete_collection_item(made.slug, last.item_object_id)
    api.delete_repo("alice/a")
    assert lines(api, made.slug) == [("alice/b", "model", None)]


def test_what_is_private_is_seen_by_its_own_people_only(api: HfApi, other: HfApi):
    secret = api.create_collection("secret", namespace="alice", private=True)
    shown = api.create_collection("shown", namespace="alice")
    api.create_repo("alice/private", private=True)
    api.create_repo("alice/public")
    for name in ("private", "public"):
        api.add_collection_item(shown.slug, f"alice/{name}", "model")
    assert lines(other, shown.slug) == [("alice/public", "model", None)]
    assert [one.title for one in other.list_collections(owner="alice")] == ["shown"]
    with pytest.raises(HfHubHTTPError, match="404"):
        other.get_collection(secret.slug)
    api.update_collection_metadata(secret.slug, private=False, title="no longer")
    assert other.get_collection(secret.slug).title == "no longer"


def test_only_those_who_may_write_change_a_collection(api: HfApi, other: HfApi):
    made = api.create_collection("mine", namespace="alice")
    api.create_repo("alice/model")
    for forbidden in (
        lambda: other.add_collection_item(made.slug, "alice/model", "model"),
        lambda: other.update_collection_metadata(made.slug, title="theirs"),
        lambda: other.delete_collection(made.slug),
        lambda: other.create_collection("another", namespace="alice"),
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            forbidden()
    api.delete_collection(made.slug)
    assert list(api.list_collections(owner="alice")) == []


def test_what_this_hub_does_not_gather_is_refused_in_words(api: HfApi):
    made = api.create_collection("mine", namespace="alice")
    with pytest.raises(HfHubHTTPError) as caught:
        api.add_collection_item(made.slug, "2504.18080", "paper")
    assert caught.value.response.headers["X-Error-Code"] == "BadRequest"
    with pytest.raises(HfHubHTTPError, match="404"):
        api.add_collection_item(made.slug, "alice/none", "model")
    api.create_collection("other", namespace="alice")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.update_collection_metadata(made.slug, title="other")
