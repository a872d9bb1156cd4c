"""kill -9 of real processes in the middle of model work: a tool of the agent's ends the process it runs in."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from pyflue.journal import RunStatus
from tests.promises import promise

from .processes import all_runs, make_project, reading, running, until_final, value, whole_record

WORKFLOW = """
    import os
    import signal

    from pyflue.agents import create_agent, tool

    def line(text):
        with LOG.open("a") as log:
            log.write(f"{text}\\n")

    @tool
    def pay(amount: int) -> str:
        "Pay."
        line(f"pay {amount}")
        os.kill(os.getpid(), signal.SIGKILL)

    @tool(idempotent=True)
    def look(name: str) -> str:
        "Look."
        line(f"look {name}")
        if LOG.read_text().count("look late") == 1 and name == "late":
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{name} is there"

    agent = create_agent(lambda ctx: {"model": "scripted/answers.json", "tools": [pay, look]})

    async def run(ctx):
        harness = await ctx.init(agent)
        await harness.fs.write_file("order.txt", "tea")
        reply = await (await harness.session()).prompt("Buy it")
        return {"text": reply.text, "turns": reply.turns, "notes": await harness.fs.read_file("notes.txt")}
"""
ANSWERS = [
    {"tool_calls": [["look", {"name": "early"}], ["bash", {"command": "cat order.txt > notes.txt"}]]},
    {"tool_calls": [["pay", {"amount": 5}], ["bash", {"command": "echo ' is paid' >> notes.txt"}]]},
    {"tool_calls": [["look", {"name": "late"}], ["read", {"path": "notes.txt"}]]},
    "Bought.",
]


@pytest.mark.parametrize("command", ["serve", "run"])
@promise("agents.resume", "agents.unknown-outcome", "F02", "R3", "R4")
async def test_a_prompt_survives_the_death_of_its_process_in_two_of_its_tools(tmp_path: Path, command: str) -> None:
    root = make_project(tmp_path, buy=WORKFLOW)
    (root / "answers.json").write_text(json.dumps(ANSWERS), encoding="utf-8")
    if command == "serve":
        async with running(root) as server:
            await server.client.workflows.invoke("buy", {})
            async with asyncio.timeout(30):
                await server.process.wait()
    else:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pyflue.cli", "--project", str(root), "run", "buy",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env=dict(os.environ),
        )  # fmt: skip
        async with asyncio.timeout(30):
            await process.wait()
        assert process.returncode == -9
    async with running(root) as second:
        # It goes on there, up to the second of the two.
        async with asyncio.timeout(30):
            await second.process.wait()
    async with running(root, "dev"), reading(root) as journal:
        (known,) = await all_runs(journal)
        (run,) = await until_final(journal, [known.run_id])
        events = await whole_record(journal, run)
    assert (run.status, run.attempt, value(run.result)) == (
        RunStatus.COMPLETED, 3, {"text": "Bought.", "turns": 4, "notes": "tea is paid\n"},
    )  # fmt: skip
    assert (root / "log.txt").read_text().splitlines() == ["look early", "pay 5", "look late", "look late"]
    ends = [value(event.data) for event in events if event.type == "tool_end"]
    ends[4:] = sorted(ends[4:], key=lambda end: end["tool"])  # these two run side by side
    assert [(end["tool"], end.get("outcome"), end["is_error"]) for end in ends] == [
        ("look", None, False), ("bash", None, False),
        ("pay", "unknown", True), ("bash", None, False),
        ("look", None, False), ("read", None, False),
    ]  # fmt: skip
    assert sum(event.type == "turn" for event in events) == 4
