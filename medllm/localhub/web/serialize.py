"""A repository as the Hub describes it: its card's metadata, its files, its facts."""

import sqlite3

from medllm.localhub.limits import MIB
from medllm.localhub.store import blobs, commits, spaces, trees
from medllm.localhub.store.files import Files
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.trees import Node
from medllm.localhub.web import metadata


def front_matter(text: str) -> tuple[dict[str, object], str]:
    r"""The YAML at a card's head and the text below it; what is unreadable, or would break a client, counts as none.

    >>> front_matter("---\nlicense: mit\n---\n# A model")
    ({'license': 'mit'}, '# A model')
    """
    front, below = metadata.split(text)
    try:
        return (metadata.safe(metadata.parse(front)) if front is not None else {}), below
    except ValueError:
        return {}, below


def card(connection: sqlite3.Connection, files: Files, tree: str) -> tuple[dict[str, object], str]:
    """Return the metadata and the text of a state's README.md."""
    node = trees.find(connection, tree, "README.md")
    if node is None or node.folder or node.size > 4 * MIB:
        return {}, ""
    return front_matter(content(connection, files, node.sha256).decode("utf-8", "replace"))


def content(connection: sqlite3.Connection, files: Files, sha256: str) -> bytes:
    """A small file's content."""
    blob = blobs.find(connection, sha256)
    return b"" if blob is None else b"".join(blobs.read(files, blob.pieces))


def lfs_field(node: Node) -> dict[str, object]:
    """Describe a large file in the Hub's format."""
    pointer = len(trees.lfs_pointer(node.sha256, node.size))
    return {"oid": node.sha256, "sha256": node.sha256, "size": node.size, "pointerSize": pointer}


def sibling(path: str, node: Node, *, with_blobs: bool) -> dict[str, object]:
    """One file in the listing that a repository's info carries."""
    if not with_blobs:
        return {"rfilename": path}
    large = {"lfs": lfs_field(node)} if node.lfs else {}
    return {"rfilename": path, "size": node.size, "blobId": node.oid, **large}


def describe(
    connection: sqlite3.Connection,
    files: Files,
    repo: Repo,
    *,
    commit_id: str,
    siblings: bool = True,
    with_blobs: bool = False,
) -> dict[str, object]:
    """A repository at a commit, in the fields that clients read."""
    commit = commits.get(connection, repo, commit_id)
    meta, _ = card(connection, files, commit["tree"])
    nodes = trees.files(connection, commit["tree"]) if siblings else {}
    result: dict[str, object] = {
        "_id": f"{repo.id:024x}",
        "id": repo.full,
        "author": repo.namespace,
        "sha": commit_id,
        "createdAt": repo.created,
        "lastModified": repo.modified,
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags(repo, meta),
        "cardData": meta,
    }
    if siblings:
        result["siblings"] = [sibling(path, node, with_blobs=with_blobs) for path, node in nodes.items()]
        result["usedStorage"] = sum({node.sha256: node.size for node in nodes.values()}.values())
    return result | _by_kind(connection, repo, meta)


def _by_kind(connection: sqlite3.Connection, repo: Repo, meta: dict[str, object]) -> dict[str, object]:
    if repo.kind == "model":
        words = {key: meta[key] for key in ("pipeline_tag", "library_name") if isinstance(meta.get(key), str)}
        return {"modelId": repo.full, **words}
    if repo.kind == "space":
        return {"sdk": meta.get("sdk") or repo.sdk, "runtime": spaces.runtime(connection, repo)}
    return {}


def tags(repo: Repo, meta: dict[str, object]) -> list[str]:
    """Return the tags a card gives, spelt as the Hub spells them."""
    result: list[str] = []
    for key, prefix in (
        ("tags", ""),
        ("language", ""),
        ("license", "license:"),
        ("base_model", "base_model:"),
        ("datasets", "dataset:"),
    ):
        value = meta.get(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                result.append(prefix + item)
    for key in ("library_name", "pipeline_tag"):
        if isinstance(meta.get(key), str):
            result.append(str(meta[key]))
    return [*dict.fromkeys(result), "region:local"]
