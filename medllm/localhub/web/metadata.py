"""A repository as clients see it: its card's metadata checked by the Hub's rules, its files and its facts."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping

import yaml

from medllm.localhub.store import blobs, commits, trees
from medllm.localhub.store.blobs import Files
from medllm.localhub.store.repos import Repo
from medllm.localhub.store.trees import Node
from medllm.localhub.validation import HUB_LICENSES, MIB
from medllm.localhub.web import spaces

_FRONT = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_OPENS = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n")
_TAKEN = ("self", "ignore_metadata_errors", "eval_results")
"""Keys that collide with the arguments of the clients' own card classes."""
_WORDS = ("library_name", "pipeline_tag", "license_name", "license_link", "sdk", "base_model_relation", "pretty_name")
_LIST_FIELDS = """tags language license datasets metrics base_model models task_categories task_ids size_categories
source_datasets multilinguality annotations_creators language_creators"""
_LISTS = _LIST_FIELDS.split()


class _Loader(yaml.SafeLoader):
    """Plain values only; an alias could unfold a few bytes to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read here")
        return super().compose_node(parent, index)


def split(text: str) -> tuple[str | None, str]:
    """Split a card into the YAML at its head (None when there is none) and the text below it."""
    match = _FRONT.match(text)
    return (None, text) if match is None else (match[1], text[match.end() :])


def parse(front: str) -> dict[str, object]:
    """Parse the metadata block of a card into JSON values; raise ValueError with the reason when it is invalid."""
    if len(front) > MIB:  # more than a card ever needs: YAML takes long over large input
        raise ValueError(f"the metadata has more than {MIB} characters")
    try:
        value = yaml.load(front, Loader=_Loader)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ValueError("the metadata is not a mapping of fields to values")
        return _jsonable(value)
    except yaml.YAMLError as fault:
        raise ValueError(f"the metadata is not YAML: {' '.join(str(fault).split())[:200]}") from None
    except RecursionError:
        raise ValueError("the metadata is nested too deeply") from None


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


def check(text: str) -> tuple[list[str], list[str]]:
    r"""What the Hub refuses in a card, and what it only warns of.

    >>> check("---\ntags: 12\n---\n")[0]
    ['"tags" must be a text or a list of texts']
    """
    front, _ = split(text)
    if front is None:
        if _OPENS.match(text) and len(text.strip()) > 3:
            return ["the metadata opens with --- and is not closed by a line of ---"], []
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        meta = parse(front)
    except ValueError as fault:
        return [str(fault)], []
    errors = [f'"{field}" {why}' for field, why in shape_faults(meta).items()]
    errors += [f'"license" {why}' for why in _unknown_licenses(meta)]
    warnings = [] if meta else ["empty or missing yaml metadata in repo card"]
    return errors, warnings


def safe(meta: Mapping[str, object]) -> dict[str, object]:
    """Keep the fields that no client fails on: a card that arrived without this check must not break a listing."""
    faulty = shape_faults(meta)
    return {field: value for field, value in meta.items() if field not in faulty and field not in _TAKEN}


def _unknown_licenses(meta: Mapping[str, object]) -> Iterator[str]:
    value = meta.get("license")
    for word in value if isinstance(value, list) else [value]:
        if isinstance(word, str) and word not in HUB_LICENSES:
            yield f"{word[:60]!r} is no licence of the Hub's list: write `other`, with license_name and license_link"


def shape_faults(meta: Mapping[str, object]) -> dict[str, str]:
    """Return every field whose value has a shape that the Hub refuses, with the reason."""
    rules: dict[str, Callable[[object], str | None]] = dict.fromkeys(_LISTS, _texts)
    rules |= dict.fromkeys(_WORDS, _text) | {"model-index": _model_index, "configs": _objects}
    faults = {field: rule(meta[field]) for field, rule in rules.items() if meta.get(field) is not None}
    return {field: why for field, why in faults.items() if why}


def _text(value: object) -> str | None:
    return None if isinstance(value, str) else "must be a text"


def _texts(value: object) -> str | None:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(entry, str) for entry in value)):
        return None
    return "must be a text or a list of texts"


def _objects(value: object) -> str | None:
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return None
    return "must be a list of mappings"


def _model_index(value: object) -> str | None:
    """Clients read each result's task, dataset and metrics without asking whether they are there."""
    if not isinstance(value, list):
        return "must be a list"
    for model in value:
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            return "must name each model"
        if not isinstance(model.get("results"), list):
            return "must give each model a list of results"
        for result in model["results"]:
            if why := _result(result):
                return why
    return None


def _result(result: object) -> str | None:
    if not isinstance(result, dict):
        return "must be made of results with fields"
    task, data, metrics = result.get("task"), result.get("dataset"), result.get("metrics")
    if not isinstance(task, dict) or not isinstance(task.get("type"), str):
        return "must give each result a task with a type"
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("name", "type")):
        return "must give each result a dataset with a name and a type"
    if not isinstance(metrics, list) or not metrics:
        return "must give each result a list of metrics"
    if not all(
        isinstance(metric, dict) and isinstance(metric.get("type"), str) and "value" in metric for metric in metrics
    ):
        return "must give each metric a type and a value"
    return None


def front_matter(text: str) -> tuple[dict[str, object], str]:
    r"""The YAML at a card's head and the text below it; what is unreadable, or would break a client, counts as none.

    >>> front_matter("---\nlicense: mit\n---\n# A model")
    ({'license': 'mit'}, '# A model')
    """
    front, below = split(text)
    try:
        return (safe(parse(front)) if front is not None else {}), below
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
        return {"sdk": meta.get("sdk") or repo.sdk, "runtime": spaces.runtime_of(connection, repo)}
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
