"""`PyFlueClient`: a server's workflows and runs from Python. Speaks HTTP and WebSocket, knows nothing of the engine."""

from __future__ import annotations

from .client import PyFlueClient

__all__ = ["PyFlueClient"]
