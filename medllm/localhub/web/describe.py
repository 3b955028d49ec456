"""A repository as the Hub describes it: its card's metadata, its files, its facts."""

import re
import sqlite3

import yaml

from medllm.localhub.limits import MIB
from medllm.localhub.store import blobs, commits, spaces, trees
from medllm.localhub.store.files import Files
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.trees import Node

_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def front_matter(text: str) -> tuple[dict[str, object], str]:
    r"""The YAML at a card's head and the text below it; unreadable YAML counts as none.

    >>> front_matter("---\nlicense: mit\n---\n# A model")
    ({'license': 'mit'}, '# A model')
    """
    match = _FRONT.match(text)
    if match is None:
        return {}, text
    # More than a card ever needs is not parsed: YAML takes long over large input.
    if len(match[1]) > MIB:
        return {}, text[match.end() :]
    try:
        value = yaml.load(match[1], Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        value = None
    return (_jsonable(value) if isinstance(value, dict) else {}), text[match.end() :]


class _PlainLoader(yaml.SafeLoader):
    """Plain values only; an alias could unfold a few bytes to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read here")
        return super().compose_node(parent, index)


def _jsonable(value: dict[object, object]) -> dict[str, object]:
    return {str(key): _plain(inner) for key, inner in value.items()}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return _jsonable(value)
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return value
    return value if value is None or isinstance(value, str | int) else str(value)


def card(connection: sqlite3.Connection, files: Files, tree: str) -> tuple[dict[str, object], str]:
    """The metadata and the text of a state's README.md."""
    node = trees.find(connection, tree, "README.md")
    if node is None or node.folder or node.size > 4 * MIB:
        return {}, ""
    return front_matter(content(connection, files, node.sha256).decode("utf-8", "replace"))


def content(connection: sqlite3.Connection, files: Files, sha256: str) -> bytes:
    """A small file's content."""
    blob = blobs.find(connection, sha256)
    return b"" if blob is None else b"".join(blobs.read(files, blob.pieces))


def lfs_field(node: Node) -> dict[str, object]:
    """What the Hub says of a large file."""
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
    """The tags a card gives, spelt as the Hub spells them."""
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
