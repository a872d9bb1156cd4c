"""Runnables as components."""

from __future__ import annotations

from langchain_core.runnables import Runnable

from pyflue.stepflow import StepflowStdioServer

server = StepflowStdioServer()


@server.langchain_component(name="chain")
def create_chain() -> Runnable:
    """A chain."""
    return Runnable()


@server.langchain_component(name="streamed", execution_mode="stream")
def create_streamed() -> Runnable:
    return Runnable()


server.run()
