"""What the routes work with: the parts of a project that `main.py` put together, handed to `build_app` as one value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..engine import Engine
from ..journal import Journal
from ..settings import Settings
from .patience import Patience

if TYPE_CHECKING:
    from ..agents.instances import Instances
    from ..workflows import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts a server answers from."""

    settings: Settings
    catalog: Catalog
    #: The continuing agents. Imports the agents room when it is first called, which takes a while: call it in a thread.
    agents: Callable[[], Instances]
    journal: Journal
    engine: Engine
    #: PyFlue's version, as `/health` and the OpenAPI document say it.
    version: str
    #: Whether callers may see the text of exceptions that workflows raise.
    dev: bool = False
    #: Set when the server begins to stop: waiting answers and open streams end, new requests are answered 503.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    #: Those who wait for an outcome.
    patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", Patience(self.settings.server.wait_s))
