"""The embedded Hub: a small server that unmodified Hugging Face clients take for the real one."""

from medllm.localhub.limits import Limits
from medllm.localhub.server import DEFAULT_PORT, Hub, serve
from medllm.localhub.store.store import Store

__all__ = ["DEFAULT_PORT", "Hub", "Limits", "Store", "serve"]
