"""A project with agent files that need no provider, for the tests of server, client and command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Says what it was told; with the word `gate` it goes on when the file `open` is there, and `fail` fails.
_ECHO = '''"""Says what it was told."""
import asyncio
from pathlib import Path

from pyflue.agents import create_agent
from pyflue.agents.models.scripted import ScriptedModel, ScriptedReply


class Echo(ScriptedModel):
    async def stream(self, request):
        from pyflue.agents.models.port import TextDelta

        said = request.messages[-1].text
        if said.startswith("gate"):
            yield TextDelta("so far, ")
            while not (Path(__file__).parent / "open").exists():
                await asyncio.sleep(0.01)
        async for item in super().stream(request):
            yield item


def answer(request):
    said = request.messages[-1].text
    if said.startswith("fail"):
        return ScriptedReply(error="The provider is on fire.")
    if said.startswith("raise"):
        raise_it()
    if said.startswith("count"):
        return str(len(request.messages))
    if request.output_schema is not None:
        return ScriptedReply(data={"amount": 3})
    return f"You said {said!r}."


def raise_it():
    raise ValueError("secret text")


agent = create_agent(lambda ctx: {"model": Echo(answer, id="scripted/echo"), "builtin_tools": False})
'''

_GUARDED = '''"""Lets only some in."""
from pyflue.agents import create_agent

agent = create_agent(lambda ctx: {"model": "scripted/hello", "builtin_tools": False})


def authorize(request):
    user = request.request.headers.get("x-user") if request.request else "nobody"
    return request.instance_id == user or (user == "reader" and request.action == "read")
'''

_ASKS = '''"""Asks before it acts."""
from pyflue.agents import create_agent, define_tool
from pyflue.agents.models.scripted import ScriptedModel, ScriptedReply


async def pay(amount: int) -> str:
    return f"paid {amount}"


def answer(request):
    if len(request.messages) == 1:
        return ScriptedReply(tool_calls=[("pay", {"amount": 7})])
    return "It is paid."


agent = create_agent(
    lambda ctx: {
        "model": ScriptedModel(answer, id="scripted/asks"),
        "builtin_tools": False,
        "tools": [
            define_tool(
                name="pay",
                description="Pay an amount.",
                parameters={"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]},
                execute=pay,
                requires_approval=True,
            )
        ],
    }
)
'''

AGENTS = {
    "echo": _ECHO,
    "guarded": _GUARDED,
    "asks": _ASKS,
    "broken": "x = 1\ny = = 2\n",
}


def write_agents(root: Path, files: Mapping[str, str] = AGENTS) -> None:
    """Write agent files into a project folder."""
    folder = root / "src" / "agents"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
