"""The embedded Hub: a small server that unmodified Hugging Face clients can use in place of the real one."""

from medllm.localhub.server import DEFAULT_PORT, LocalHub, serve
from medllm.localhub.store.store import Store
from medllm.localhub.validation import ServerLimits

__all__ = ["DEFAULT_PORT", "LocalHub", "ServerLimits", "Store", "serve"]
