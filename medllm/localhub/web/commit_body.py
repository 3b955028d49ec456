"""Reads the lines of a commit: small files go into one pack on the disk, the rest becomes operations."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medllm.localhub.errors import bad_request, too_large
from medllm.localhub.store import trees
from medllm.localhub.store.commits import Add, AddLarge, Header, Operation, Remove
from medllm.localhub.store.files import Spool
from medllm.localhub.store.store import Store
from medllm.localhub.validation import check_path, check_sha256
from medllm.localhub.web import metadata
from medllm.localhub.web.request import Fields

LARGE = """
*.7z *.arrow *.avro *.bin *.bz2 *.ckpt *.db *.duckdb *.flac *.ftz *.gguf *.gif *.gz *.h5 *.jpeg *.jpg *.joblib *.lz4
*.mlmodel *.model *.mp3 *.mp4 *.msgpack *.npy *.npz *.onnx *.ot *.parquet *.pb *.pdf *.pickle *.pkl *.png *.pt *.pth
*.rar *.safetensors *.tar *.tar.* *.tflite *.tgz *.wasm *.wav *.webp *.xz *.zip *.zst *tfevents* tokenizer.json
"""
"""Names that a new repository's .gitattributes calls large: binary content, and text no one reads line by line."""


@contextmanager
def first_files(store: Store) -> Iterator[tuple[list[Operation], Spool]]:
    """What a new repository starts with: the patterns of large files."""
    content = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE.split()).encode()
    with store.files.spool(store.limits.regular_file, "The first commit") as pack:
        operation = add(pack, ".gitattributes", content)
        pack.finish()
        yield [operation], pack


def add(pack: Spool, path: str, content: bytes) -> Add:
    """Append a small file to the pack."""
    offset = pack.size
    pack.write(content)
    return Add(path, trees.git_blob_id(content), hashlib.sha256(content).hexdigest(), offset, len(content))


@contextmanager
def read(store: Store, body: Path) -> Iterator[tuple[Header, list[Operation], Spool | None]]:
    """Yield the header and operations of a commit's body; the pack is deleted at the end unless it is published."""
    limits = store.limits
    header: Header | None = None
    operations: list[Operation] = []
    with store.files.spool(limits.commit_body, "The small files of this commit", expected=body.stat().st_size) as pack:
        for key, fields in _lines(store, body):
            if key == "header":
                header = Header(
                    fields.text("summary", ""), fields.text("description", ""), fields.optional("parentCommit")
                )
                continue
            operations.append(_operation(store, key, fields, pack))
            if len(operations) > limits.commit_files:
                raise too_large("The number of files in this commit", limits.commit_files)
        pack.finish()
        if header is None:
            raise bad_request("The commit has no header line")
        yield header, operations, pack


def _lines(store: Store, body: Path) -> Iterator[tuple[str, Fields]]:
    with body.open("rb") as file:
        while line := file.readline(store.limits.commit_line + 1):
            if len(line) > store.limits.commit_line:
                raise too_large("A line of this commit", store.limits.commit_line)
            if not line.strip():
                continue
            try:
                fields = Fields(json.loads(line))
            except (ValueError, RecursionError):
                raise bad_request("A line of this commit is not JSON") from None
            yield fields.text("key"), Fields(fields.get("value"))


def _operation(store: Store, key: str, fields: Fields, pack: Spool) -> Operation:
    path = fields.text("path")
    if key in ("deletedFile", "deletedFolder"):
        return Remove(check_path(path.removesuffix("/"), store.limits), folder=key == "deletedFolder")
    path = check_path(path, store.limits)
    if key == "lfsFile":
        return AddLarge(path, check_sha256(fields.get("oid")))
    if key == "file":
        content = _content(fields)
        errors = metadata.check(content.decode("utf-8", "replace"))[0] if path == "README.md" else []
        if errors:
            raise bad_request(f"Invalid metadata in README.md: {'; '.join(errors)}")
        return add(pack, path, content)
    raise bad_request(f"{key[:40]!r} is no operation of a commit")


def _content(fields: Fields) -> bytes:
    text = fields.text("content", most=2**31)
    encoding = fields.text("encoding", "utf-8")
    if encoding == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise bad_request("A file's content is not base64") from None
    if encoding != "utf-8":
        raise bad_request("A file's encoding must be base64 or utf-8")
    return text.encode()
