"""A component that needs a key."""

from __future__ import annotations

import hashlib

import msgspec

from pyflue.stepflow import StepflowServer

server = StepflowServer(include_builtins=False)


class Request(msgspec.Struct):
    region: str
    api_key: str
    page_size: int


@server.component
def fetch(request: Request) -> dict[str, object]:
    """Would ask the shop of a region for a page; says how it would sign that."""
    signature = hashlib.sha256(request.api_key.encode()).hexdigest()[:8]
    return {"url": f"https://{request.region}.example.com/?limit={request.page_size}", "signature": signature}
