"""Large files as they arrive: whole, or in parts that become the pieces of one blob."""

import hashlib
from dataclasses import dataclass

from medllm.localhub.errors import bad_request
from medllm.localhub.store import blobs
from medllm.localhub.store.blobs import Blob, ByteRange, blob_name
from medllm.localhub.store.files import Spool
from medllm.localhub.store.store import Store


@dataclass(frozen=True)
class Upload:
    """A file that a user sends in parts."""

    user: int
    sha256: str
    size: int

    def waiting(self, number: int) -> str:
        """Where a part waits until all are there."""
        return f"incoming/part-{self.user}-{self.sha256}-{number:06d}"


def keep_whole(store: Store, user: int, spool: Spool) -> None:
    """Keep a file that was sent in one piece."""
    name = blob_name(spool.sha256)
    with store.database.write() as connection:
        if blobs.find(connection, spool.sha256) is None:
            store.files.publish(spool, name)
        blobs.add(connection, Blob(spool.sha256, spool.size, blobs.joined([ByteRange(name, 0, spool.size)])))
        blobs.mark_sent(connection, user, spool.sha256)


def keep_part(store: Store, upload: Upload, number: int, spool: Spool) -> None:
    """Keep one part aside."""
    store.files.publish(spool, upload.waiting(number))


def join(store: Store, upload: Upload, numbers: list[int]) -> None:
    """Make the parts one blob, without copying them, when together they have the promised sha256."""
    if len(set(numbers)) < len(numbers):
        raise bad_request("A part is named twice")
    pieces, total, digest = [], 0, hashlib.sha256()
    for number in numbers:
        waiting = upload.waiting(number)
        try:
            size = store.files.path(waiting).stat().st_size
        except FileNotFoundError:
            with store.database.write() as connection:  # the answer to an earlier request was lost on its way
                if blobs.was_sent(connection, upload.user, upload.sha256) and blobs.find(connection, upload.sha256):
                    return
            raise bad_request(f"Part {number} of {upload.sha256} was not uploaded") from None
        pieces.append((waiting, ByteRange(f"{blob_name(upload.sha256)}.{number:06d}", 0, size)))
        total += size
        if total > upload.size:
            raise bad_request(f"The parts are more than the {upload.size} bytes of {upload.sha256}")
        for chunk in blobs.read(store.files, [ByteRange(waiting, 0, size)]):
            digest.update(chunk)
    if (total, digest.hexdigest()) != (upload.size, upload.sha256):
        raise bad_request(f"The parts are not the {upload.size} bytes with the sha256 {upload.sha256}")
    with store.database.write() as connection:
        if blobs.find(connection, upload.sha256) is None:
            for waiting, piece in pieces:
                store.files.rename(waiting, piece.file)
            blobs.add(connection, Blob(upload.sha256, upload.size, blobs.joined(piece for _, piece in pieces)))
        blobs.mark_sent(connection, upload.user, upload.sha256)
