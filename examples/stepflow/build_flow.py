"""Puts a flow together in Python instead of YAML, looks it over, and runs it."""

from __future__ import annotations

import asyncio

from pyflue.stepflow import FlowBuilder, StepflowRuntime, Value


def invitation() -> FlowBuilder:
    builder = FlowBuilder("invitation", description="Invites somebody.")
    builder.set_input_schema({"type": "object", "properties": {"guest": {"type": "object"}}, "required": ["guest"]})
    guest = Value.input().guest
    words = builder.add_step(
        id="words",
        component="/create_messages",
        input_data={
            "user_prompt": guest.name,
            "system_instructions": Value.if_(guest.is_friend, "Be brief.", "Be polite."),
        },
    )
    builder.set_output(
        {
            "to": words.messages[1].content,
            "tone": words.messages[0].content,
            "place": Value.coalesce(guest.place, "at home"),
            "template": Value.literal({"$input": "is only a text here"}),
        }
    )
    return builder


async def main() -> None:
    flow = invitation().build()
    async with StepflowRuntime.start() as runtime:
        validation = await runtime.validate(flow)
        print(validation.valid, [found.message for found in validation.diagnostics])
        result = await runtime.run(flow, {"guest": {"name": "Ada", "is_friend": True, "place": None}})
        print(result.output)


if __name__ == "__main__":
    asyncio.run(main())
