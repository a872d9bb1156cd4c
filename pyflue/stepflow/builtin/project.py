"""The plugin of type `pyflue`: workflows of the project as `/workflows/<name>`, agents as `/agents/<name>`.

A workflow is a child run with the step's input as its payload. An agent is asked `{"prompt", "session"?}` and answers
`{"text", "data"}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..plugins.port import ComponentCall, ComponentFailed, ComponentInfo
from .inputs import Fields

_WORKFLOWS = "/workflows/"
_AGENTS = "/agents/"


class ProjectPlugin:
    """What the project has."""

    def is_composite(self, component: str) -> bool:
        return True

    async def components(self) -> Sequence[ComponentInfo]:
        return [
            ComponentInfo(
                path=f"{_WORKFLOWS}{{name}}",
                description="A workflow of the project, as a child run; the input is its payload.",
            ),
            ComponentInfo(
                path=f"{_AGENTS}{{name}}",
                description="An agent of the project.",
                input_schema={
                    "type": "object",
                    "properties": {"prompt": {"type": "string"}, "session": {"type": "string"}},
                    "required": ["prompt"],
                },
                output_schema={"type": "object", "properties": {"text": {"type": "string"}, "data": {}}},
            ),
        ]

    async def execute(self, call: ComponentCall) -> Any:
        component = call.component
        if component.startswith(_WORKFLOWS):
            return await call.services.call_workflow(component.removeprefix(_WORKFLOWS), call.input)
        if component.startswith(_AGENTS):
            fields = Fields(component, call.input)
            prompt, session = fields.required("prompt", str), fields.optional("session", str)
            return await call.services.prompt_agent(component.removeprefix(_AGENTS), prompt, session=session)
        raise ComponentFailed(
            f"There is no component {component!r}: they are /workflows/<name> and /agents/<name>.", is_retryable=False
        )

    async def close(self) -> None:
        """There is nothing to let go of."""
