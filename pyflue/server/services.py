"""What the routes work with: the parts of a project that `main.py` put together, handed to `build_app` as one value."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..engine import Engine
from ..journal import Journal
from ..settings import Settings

if TYPE_CHECKING:
    from ..workflows import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts a server answers from."""

    settings: Settings
    catalog: Catalog
    journal: Journal
    engine: Engine
    #: PyFlue's version, as `/health` and the OpenAPI document say it.
    version: str
    #: Whether callers may see the text of exceptions that workflows raise.
    dev: bool = False
    #: Set when the server begins to stop: waiting answers and open streams end, new requests are answered 503.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
