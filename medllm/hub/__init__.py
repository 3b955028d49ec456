"""The seam to the Hub: what stands there, where it came from, and the only door in and out."""

from medllm.hub.artifact import Artifact, Input, Kind, Provenance, digest_of, digest_of_folder
from medllm.hub.client import Hub, Standing, connect
from medllm.hub.push import push

__all__ = [
    "Artifact",
    "Hub",
    "Input",
    "Kind",
    "Provenance",
    "Standing",
    "connect",
    "digest_of",
    "digest_of_folder",
    "push",
]
