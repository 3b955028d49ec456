"""How much one request may ask of the hub, in one place."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class Limits:
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
    xorb: int = 72 * MIB
    """Bytes of one xorb; the format promises at most 64 MiB."""
    xorb_unpacked: int = 160 * MIB
    """Bytes of one xorb once unpacked: a bound against compression bombs."""
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
