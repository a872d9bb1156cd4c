"""A project folder, and what an agent in it comes to."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents import AgentCreateContext, Definition, create_agent, resolve_agent
from pyflue.settings import load_settings


class AgentProject:
    """A project folder to write files into."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    async def resolve(
        self, returned: Any, *, environ: Mapping[str, str] | None = None, context: AgentCreateContext | None = None
    ) -> Definition:
        """The definition of an agent whose initializer returns this."""
        settings = load_settings(self.root, environ=environ or {})
        return await resolve_agent(create_agent(lambda: returned), context, settings=settings, root=self.root)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[AgentProject]:
    path_before = list(sys.path)
    yield AgentProject(tmp_path)
    sys.path[:] = path_before
