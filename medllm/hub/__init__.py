"""The seam to the Hub: what a repository holds, where it came from, and the only way to read and write it."""

from medllm.hub.artifact import Artifact, Input, Kind, Provenance, digest_of, digest_of_folder
from medllm.hub.client import Hub, RepoState, connect
from medllm.hub.push import push

__all__ = [
    "Artifact",
    "Hub",
    "Input",
    "Kind",
    "Provenance",
    "RepoState",
    "connect",
    "digest_of",
    "digest_of_folder",
    "push",
]
