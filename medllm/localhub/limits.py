"""How much one request may ask of the hub, in one place."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class ServerLimits:
    """Bounds that keep the server's memory flat and its answers quick."""

    json_body: int = 8 * MIB
    """Bytes of a JSON or form body, which is held in memory."""
    commit_body: int = 512 * MIB
    """Bytes of a commit; clients send at most 100 MiB of regular files, as base64."""
    commit_line: int = 32 * MIB
    """Bytes of one line of a commit, which is held in memory."""
    commit_files: int = 25_000
    """Operations in one commit."""
    regular_file: int = 10 * MIB
    """Files above this are asked for as large files, outside the commit."""
    lfs_file: int = 500 * GIB
    """Bytes of one large file."""
    lfs_part: int = 256 * MIB
    """Bytes of one part when a large file is sent in parts."""
    lfs_parted_above: int = 1 * GIB
    """Large files above this are taken in parts from clients that can."""
    anonymous_body: int = 256 * KIB
    """Bytes of a body from a sender without a token, who may only ask about paths and cards."""
    header_bytes: int = 64 * KIB
    """Bytes of the address and the headers of one request."""
    header_seconds: float = 20.0
    """How long a sender may take for the headers of one request."""
    connections: int = 512
    """Connections at once; one more closes the oldest that has not finished its headers."""
    slowest: int = 1 * KIB
    """Bytes a second that a body must reach on the whole once `idle_seconds` are over."""
    xorb: int = 72 * MIB
    """Bytes of one xorb; the format promises at most 64 MiB."""
    xorb_unpacked: int = 160 * MIB
    """Bytes of one xorb once unpacked: a bound against compression bombs."""
    xorb_chunks: int = 65_536
    """Chunks in one xorb; the format promises at most 8,192."""
    xet_repeats: int = 64
    """How often a file may repeat, on the whole, the content that was sent for it over xet."""
    xet_repeats_above: int = 1 * GIB
    """Bytes up to which a file may repeat its content without bound."""
    xet_pieces: int = 100_000
    """Runs of bytes of which one file may be made."""
    shard: int = 64 * MIB
    """Bytes of one xet shard."""
    path_bytes: int = 1024
    """Bytes of a file's path in a repository."""
    name_bytes: int = 255
    """Bytes of one name on that path: what common file systems take."""
    path_depth: int = 64
    """Folders on a path."""
    idle_seconds: float = 120.0
    """How long a sender may stay silent in the middle of a body."""
    free_bytes: int = 64 * MIB
    """Disk space that uploads leave free, so that the metadata can still be written."""
    job_log_lines: int = 100_000
    """Lines of a job's log that are kept."""
    page: int = 1000
    """Entries in one page of a listing."""
