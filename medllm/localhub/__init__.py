"""The embedded Hub: a small server that unmodified Hugging Face clients take for the real one."""

from medllm.localhub.limits import Limits
from medllm.localhub.server import Hub, serve

__all__ = ["Hub", "Limits", "serve"]
