"""The few names of langchain-core that components use."""

from __future__ import annotations

from typing import Any


class _Schema:
    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema

    def model_json_schema(self) -> dict[str, Any]:
        return self.schema


class Runnable:
    def get_input_schema(self) -> _Schema:
        return _Schema({"type": "array", "items": {"$ref": "#/$defs/X"}, "$defs": {"X": {"type": "integer"}}})

    def get_output_schema(self) -> _Schema:
        return _Schema({"type": "object"})

    async def ainvoke(self, given: Any, config: Any = None) -> Any:
        return self._told("invoke", given, config)

    async def abatch(self, given: Any, config: Any = None) -> Any:
        return self._told("batch", given, config)

    async def astream(self, given: Any, config: Any = None) -> Any:
        yield "stream"
        yield given

    def _told(self, method: str, given: Any, config: Any) -> Any:
        context = config.pop("metadata")["stepflow_context"]
        return {"method": method, "input": given, "config": {**config, "step_id": context.step_id}}
