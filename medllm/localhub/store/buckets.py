"""Buckets: folders without history, which clients use to hand files to a job and to take its results."""

import sqlite3
from pathlib import Path

from medllm.localhub.store import blobs
from medllm.localhub.store.accounts import Caller, now
from medllm.localhub.store.blobs import Blob, ByteRange, blob_name
from medllm.localhub.store.store import Store
from medllm.localhub.validation import HubRefusal, check_name, forbidden, no_repo, unauthorized


def find(connection: sqlite3.Connection, namespace: str, name: str) -> sqlite3.Row | None:
    """Return the bucket of this name."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM buckets WHERE namespace = ? AND name = ?", (namespace, name)
    ).fetchone()
    return row


def readable(connection: sqlite3.Connection, caller: Caller, namespace: str, name: str) -> sqlite3.Row:
    """Return the bucket, if this caller may know of it."""
    row = find(connection, namespace, name)
    if row is None or (row["private"] and not caller.belongs(row["namespace"])):
        raise no_repo(anonymous=caller.anonymous)
    return row


def writable(connection: sqlite3.Connection, caller: Caller, namespace: str, name: str) -> sqlite3.Row:
    """Return the bucket, if this caller may change it."""
    row = readable(connection, caller, namespace, name)
    if caller.anonymous:
        raise unauthorized("Changing a bucket needs a token")
    if not caller.may_write(row["namespace"]):
        raise forbidden(f"You do not have write access to the bucket {row['namespace']}/{row['name']}")
    return row


def create(connection: sqlite3.Connection, caller: Caller, namespace: str, name: str, *, private: bool) -> None:
    """A new, empty bucket; 409 when there is one of that name."""
    if caller.anonymous:
        raise unauthorized("Creating a bucket needs a token")
    if not caller.may_write(namespace):
        raise forbidden(f"You do not have the right to create a bucket under the namespace {namespace!r}")
    check_name(name, "A bucket's name")
    if find(connection, namespace, name):
        raise HubRefusal(
            "server.already-exists",
            f"There is a bucket {namespace}/{name} already",
            status=409,
            error_code="RepoExists",
        )
    connection.execute(
        "INSERT INTO buckets (namespace, name, private, created) VALUES (?, ?, ?, ?)", (namespace, name, private, now())
    )


def move(connection: sqlite3.Connection, caller: Caller, source: tuple[str, str], target: tuple[str, str]) -> None:
    """Give a bucket another name; 409 when there is one of that name."""
    row = writable(connection, caller, *source)
    namespace, name = target
    if not caller.may_write(namespace):
        raise forbidden(f"You do not have the right to create a bucket under the namespace {namespace!r}")
    check_name(name, "A bucket's name")
    there = find(connection, namespace, name)
    if there is not None and there["id"] != row["id"]:
        raise HubRefusal(
            "server.already-exists",
            f"There is a bucket {namespace}/{name} already",
            status=409,
            error_code="RepoExists",
        )
    connection.execute("UPDATE buckets SET namespace = ?, name = ? WHERE id = ?", (namespace, name, row["id"]))


def files(connection: sqlite3.Connection, bucket: int, prefix: str = "") -> list[sqlite3.Row]:
    """Return the files of a bucket, all or those below a folder, with their sizes."""
    below = prefix.strip("/") + "/" if prefix.strip("/") else ""
    return connection.execute(
        "SELECT path, bucket_files.sha256, xet_hash, mtime, size FROM bucket_files JOIN blobs USING (sha256) "
        "WHERE bucket = ? AND substr(path, 1, ?) = ? ORDER BY path",
        (bucket, len(below), below),
    ).fetchall()


def put(connection: sqlite3.Connection, bucket: int, path: str, *, sha256: str, xet_hash: str, mtime: int) -> None:
    """Put a file into a bucket and replace the earlier one."""
    connection.execute(
        "INSERT OR REPLACE INTO bucket_files VALUES (?, ?, ?, ?, ?)", (bucket, path, sha256, xet_hash, mtime)
    )


def take_in(store: Store, bucket: int, path: str, file: Path) -> None:
    """Put a file of this machine into a bucket: what a job has written there."""
    with store.files.spool(store.limits.lfs_file, "The file", expected=file.stat().st_size) as spool:
        with file.open("rb") as source:
            while chunk := source.read(1024 * 1024):
                spool.write(chunk)
        spool.finish()
        name = blob_name(spool.sha256)
        with store.database.write() as connection:
            if blobs.find(connection, spool.sha256) is None:
                store.files.publish(spool, name)
            blobs.add(connection, Blob(spool.sha256, spool.size, blobs.joined([ByteRange(name, 0, spool.size)])))
            put(
                connection, bucket, path, sha256=spool.sha256, xet_hash="0" * 64, mtime=int(file.stat().st_mtime * 1000)
            )
