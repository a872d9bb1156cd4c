"""Prompts to a scripted model; returns for each, in turn, when it began and how many milliseconds it took besides the
model's own time.

Untyped, so that what is measured is the harness.
"""

from __future__ import annotations

import time
from typing import Any

from pyflue import FlueContext, create_agent
from pyflue.agents.content import Usage
from pyflue.agents.models import ScriptedModel, ScriptedReply
from pyflue.agents.models.port import ModelRequest

#: With its usage, as providers report it: to estimate it is not the harness's work.
_DONE = ScriptedReply(text="It is done.", usage=Usage(input_tokens=900, output_tokens=4))


def _answer(request: ModelRequest) -> ScriptedReply:
    """Reads a file as often as the prompt says, then ends."""
    wanted = request.messages[-1].text
    if wanted.startswith("read "):
        return ScriptedReply(tool_calls=[("exists", {"path": "notes.md"})] * int(wanted.split()[1]))
    return _DONE


async def run(ctx: FlueContext[Any]) -> Any:
    wanted = ctx.payload
    model = ScriptedModel(_answer, delay_s=wanted["delay_s"])
    harness = await ctx.init(create_agent(lambda context: {"model": model, "budget": {"max_turns": 1_000_000}}))
    if wanted["tool_calls"]:
        await harness.fs.write_file("notes.md", "Notes.")
    prompts: list[float] = []
    for number in range(wanted["prompts"]):
        # A session of its own for every few prompts: how a conversation grows is the model's cost, not the harness's.
        session = await harness.session(f"session-{number // 10}")
        text = f"read {wanted['tool_calls']}" if wanted["tool_calls"] else "Do it."
        turns = 2 if wanted["tool_calls"] else 1
        began = time.perf_counter()
        await session.prompt(text)
        prompts += (began, (time.perf_counter() - began - turns * wanted["delay_s"]) * 1000)
    return prompts
