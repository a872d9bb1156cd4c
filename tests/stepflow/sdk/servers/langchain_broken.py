"""Functions that give no runnable."""

from __future__ import annotations

import sys

from pyflue.stepflow import StepflowServer
from pyflue.stepflow.sdk import StepflowExecutionError

server = StepflowServer()


def broken():
    return 5


def failing():
    raise ValueError("no model")


for function in (broken, failing):
    try:
        server.langchain_component(function)
    except StepflowExecutionError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
