"""Runnables as components. LangChain is not installed here; the few names of it that are used are stood in for."""

from __future__ import annotations

from pathlib import Path

from .driver import SERVERS, served

STAND_IN = SERVERS / "stand_in"


def test_a_runnable_is_called_with_what_is_in_the_input() -> None:
    with served("langchain_components.py", env={"PYTHONPATH": str(STAND_IN)}) as server:
        about = {"step_id": "s"}
        given = {"input": [1, 2], "config": {"tags": ["t"], "other": 1}}
        assert server.output("/chain", given, observability=about) == {
            "method": "invoke",
            "input": [1, 2],
            "config": {"tags": ["t"], "step_id": "s"},
        }
        assert server.output("/chain", {"input": 1, "execution_mode": "batch"})["method"] == "batch"
        assert server.output("/chain", {"input": 1, "execution_mode": "stream"}) == ["stream", 1]
        assert server.output("/streamed", {"input": 2}) == ["stream", 2]
        answer = server.execute("/chain", {"input": 1, "execution_mode": "sideways"})
        assert answer["error"]["code"] == -32003
        info = server.call("components/info", {"component": "/chain"})["result"]["info"]
        assert info == {
            "component": "/chain",
            "description": "A chain.",
            "input_schema": {
                "type": "object",
                "properties": {
                    "input": {"type": "array", "items": {"$ref": "#/$defs/X"}},
                    "config": {"type": ["object", "null"]},
                    "execution_mode": {"enum": ["invoke", "batch", "stream", None]},
                },
                "$defs": {"X": {"type": "integer"}},
            },
            "output_schema": {"type": "object"},
        }


def test_a_function_that_gives_no_runnable_is_refused_at_the_start(tmp_path: Path) -> None:
    with served("langchain_broken.py", initialize=False, env={"PYTHONPATH": str(STAND_IN)}) as server:
        assert server.wait() == 0
        assert server.errors.splitlines() == [
            "StepflowExecutionError: The function of component /broken must return a LangChain Runnable, not a int.",
            "StepflowExecutionError: The LangChain runnable of component /failing cannot be made: no model",
        ]
