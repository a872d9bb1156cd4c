"""Each test begins with a new application, and nothing allowed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import pyflue.flowgram as fg
from pyflue.flowgram import configured, network

from .graphs import Log


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    fg.reset()
    network.forget_hosts()
    configured.configure()
    yield
    fg.reset()
    network.forget_hosts()
    configured.configure()


@pytest.fixture
def log() -> Log:
    log = Log()
    fg.register_executor(log)
    return log
