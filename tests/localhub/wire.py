"""Speaks the hub's protocols byte by byte, where a test needs what no client would send, or no client's patience."""

import base64
import hashlib
import http.client
import json
import struct
from dataclasses import dataclass
from email.message import Message
from urllib.parse import urlsplit

import lz4.frame

TIMEOUT = 120


@dataclass(frozen=True)
class Reply:
    """What the hub answered."""

    status: int
    body: bytes
    headers: Message

    @property
    def json(self) -> dict:
        """The answer's fields."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Wire:
    """One user's line to a hub."""

    url: str
    token: str | None = None

    def send(
        self, method: str, address: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Send one request on a connection of its own."""
        parts = urlsplit(address if address.startswith("http") else self.url + address)
        with_token = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            line.request(method, target, body, with_token | (headers or {}))
            reply = line.getresponse()
            return Reply(reply.status, reply.read(), reply.headers)
        finally:
            line.close()

    def post(self, address: str, value: object) -> Reply:
        """Send JSON."""
        return self.send("POST", address, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def create(self, repo: str, **more: object) -> Reply:
        """Make a model repository."""
        namespace, name = repo.split("/")
        return self.post("/api/repos/create", {"name": name, "organization": namespace, "type": "model", **more})

    def send_large(self, repo: str, content: bytes) -> str:
        """Send a large file as git-lfs does; its sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        wanted = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": sha256, "size": len(content)}]}
        entry = self.post(f"/{repo}.git/info/lfs/objects/batch", wanted).json["objects"][0]
        if "actions" in entry:
            reply = Wire(self.url).send("PUT", entry["actions"]["upload"]["href"], content)
            assert reply.status == 200, reply
        return sha256

    def storage(self, repo: str) -> "Wire":
        """The user's line to the xet storage."""
        grant = self.send("GET", f"/api/models/{repo}/xet-write-token/main").json
        return Wire(grant["casUrl"], grant["accessToken"])

    def send_xet(self, repo: str, content: bytes) -> str:
        """Send a file as xet does: a xorb of its chunks, then a shard that names them; its sha256."""
        storage, chunks = self.storage(repo), [content[at : at + 65536] for at in range(0, len(content), 65536)]
        xorb = hashlib.sha256(b"xorb" + content).digest()
        reply = storage.send("POST", f"/v1/xorbs/default/{hash_text(xorb)}", make_xorb(chunks))
        assert reply.status == 200, reply
        file = XetFile(hashlib.sha256(b"file" + content).digest(), xorb, len(content), 0, len(chunks), content)
        reply = storage.send("POST", "/v1/shards", make_shard([file]))
        assert reply.status == 200, reply
        return hashlib.sha256(content).hexdigest()

    def commit(self, repo: str, *lines: dict, title: str = "change", revision: str = "main", **header: object) -> Reply:
        """Make a commit of lines as `small`, `large` and `removed` give them."""
        all_lines = [{"key": "header", "value": {"summary": title, "description": "", **header}}, *lines]
        body = b"\n".join(json.dumps(line).encode() for line in all_lines)
        kind = {"Content-Type": "application/x-ndjson"}
        return self.send("POST", f"/api/models/{repo}/commit/{revision}", body, kind)


def small(path: str, content: bytes) -> dict:
    """The line of a file inside the commit."""
    return {"key": "file", "value": {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}}


def large(path: str, sha256: str) -> dict:
    """The line of a file sent before."""
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha256}}


def hash_text(raw: bytes) -> str:
    """32 bytes as xet writes a hash."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def make_chunk(data: bytes, scheme: int = 1) -> bytes:
    """A chunk of a xorb: plain (0), LZ4 (1), or grouped by fours and LZ4 (2)."""
    packed = b"".join(data[lane::4] for lane in range(4)) if scheme == 2 else data
    packed = lz4.frame.compress(packed) if scheme else packed
    return bytes([0]) + len(packed).to_bytes(3, "little") + bytes([scheme]) + len(data).to_bytes(3, "little") + packed


def make_xorb(chunks: list[bytes]) -> bytes:
    """A xorb whose chunks are packed in each of the three ways in turn, with the start of a footer."""
    return b"".join(make_chunk(chunk, number % 3) for number, chunk in enumerate(chunks)) + b"XETBLOB\x01rest"


@dataclass(frozen=True)
class XetFile:
    """What a shard says of a file."""

    hash: bytes
    xorb: bytes
    size: int
    first: int
    last: int
    content: bytes | None = None
    """Its sha256 is told when the content is given."""


def make_shard(files: list[XetFile]) -> bytes:
    """A shard of files that each are one run of chunks."""
    out = bytearray(b"tag".ljust(32, b"\0") + struct.pack("<QQ", 2, 0))
    for file in files:
        out += file.hash + struct.pack("<IIQ", (1 << 31) | ((1 << 30) if file.content is not None else 0), 1, 0)
        out += file.xorb + struct.pack("<IIII", 0, file.size, file.first, file.last)
        out += bytes(48)
        if file.content is not None:
            # Written so that the hash, read as xet reads hashes, is the usual text of the sha256.
            digest = struct.unpack(">4Q", hashlib.sha256(file.content).digest())
            out += struct.pack("<4Q", *digest) + bytes(16)
    return bytes(out + b"\xff" * 32 + bytes(16))
