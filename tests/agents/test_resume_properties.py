"""Any small program of model work, killed after any commit and taken up again, ends as it would have ended.

Hypothesis makes the programs. What a prompt's model answers stands in the prompt's text, so answers do not depend on
anything that happened outside of the conversation; every effect has a number of its own.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyflue import codec
from pyflue.agents import tool
from pyflue.agents.content import ToolResult
from pyflue.agents.models.port import ModelRequest
from pyflue.journal import Run, StepStatus
from tests.engine.durable import Context, result_of
from tests.promises import promise

from .agent_runs import Asked, Recording, Stage, dense

Program = list[dict[str, Any]]

_tools = st.sampled_from(["pay", "look", "write", "append", "read"])
_plain_turns = st.lists(st.lists(_tools, min_size=1, max_size=3), max_size=2)
_turns = st.lists(
    st.lists(st.one_of(_tools, _plain_turns.map(lambda turns: {"task": turns})), min_size=1, max_size=3), max_size=3
)
_prompts = st.builds(lambda turns: {"do": "prompt", "turns": turns}, _turns)
_operations = st.one_of(
    _prompts,
    _prompts,
    st.builds(lambda prompts: {"do": "gather", "prompts": prompts}, st.lists(_prompts, min_size=2, max_size=2)),
    st.sampled_from([{"do": "fs"}, {"do": "shell"}, {"do": "session.shell"}, {"do": "read"}, {"do": "step"}]),
    st.builds(lambda prompt: {"do": "prompt in a step", "prompt": prompt}, _prompts),
)
_programs = st.lists(_operations, min_size=1, max_size=4)


class World:
    """The outside of one run: its model, its tools, and what they did."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.effects = Counter[str]()
        self.model = Asked(self._answer)

        @tool
        async def pay(number: str) -> str:
            """Pay."""
            self.effects[number] += 1
            return f"paid {number}"

        @tool(idempotent=True, parallel=True)
        async def look(number: str) -> str:
            """Look."""
            self.effects[number] += 1
            return f"seen {number}"

        self.agent = self.model.agent(tools=[pay, look])

    def _answer(self, request: ModelRequest) -> Any:
        messages = list(request.messages)
        said_at = max(
            at
            for at, message in enumerate(messages)
            if message.role == "user" and not any(isinstance(block, ToolResult) for block in message.blocks)
        )
        asked = json.loads(messages[said_at].text.rpartition("\n")[2])
        turn = sum(message.role == "assistant" for message in messages[said_at:])
        usage = {"input_tokens": 9, "output_tokens": 1}
        if turn == len(asked["turns"]):
            return {"text": f"Done {asked['id']}", "usage": usage}
        uses = [_use(what, f"{asked['id']}.{turn}.{number}") for number, what in enumerate(asked["turns"][turn])]
        return {"tool_calls": uses, "usage": usage}

    async def work(self, ctx: Context) -> Any:
        harness = await ctx.init(self.agent)

        async def prompt(prompt: dict[str, Any], name: str, number: int) -> Any:
            text = json.dumps({"turns": prompt["turns"], "id": f"{name}{number}"})
            reply = await (await harness.session(name)).prompt(text)
            return [reply.text, reply.turns, reply.usage.total_tokens]

        results: list[Any] = []
        for number, operation in enumerate(self._program):
            match operation["do"]:
                case "prompt":
                    results.append(await prompt(operation, "a", number))
                case "gather":
                    both = zip(operation["prompts"], "ab", strict=True)
                    results.append(await asyncio.gather(*(prompt(each, name, number) for each, name in both)))
                case "prompt in a step":
                    results.append(await ctx.step("inside", prompt, operation["prompt"], "c", number))
                case "fs":
                    await harness.fs.write_file(f"fs/{number}", str(number))
                case "shell":
                    results.append((await harness.shell("echo x >> log; cat log")).stdout)
                case "session.shell":
                    results.append((await (await harness.session("a")).shell("echo y >> log; cat log")).stdout)
                case "read":
                    results.append((await harness.shell("find . -type f | sort")).stdout)
                    results.append(await harness.fs.exists("log"))
                case _:
                    results.append(await ctx.step("step", self._step, f"step {number}"))
        files = (await harness.shell("find . -type f | sort | while read f; do echo $f; cat $f; done")).stdout
        histories = [await self._history(harness, name) for name in "abc"]
        return [results, files, histories, harness.run_meter.usage.total_tokens]

    async def _step(self, number: str) -> str:
        self.effects[number] += 1
        return number

    async def _history(self, harness: Any, name: str) -> list[str]:
        return [f"{message.role}: {message.text}" for message in await (await harness.session(name)).history()]


def _use(what: Any, number: str) -> dict[str, Any]:
    # Conversations that go on side by side have files of their own: what comes first is chance.
    log = f"logs/{number.rsplit('.', 2)[0]}"
    match what:
        case "pay" | "look":
            name, arguments = what, {"number": number}
        case "write":
            name, arguments = "write", {"path": f"files/{number}", "content": number}
        case "append":
            name, arguments = "bash", {"command": f"mkdir -p logs; echo {number} >> {log}; cat {log}"}
        case "read":
            name, arguments = "read", {"path": log}
        case _:
            name, arguments = "task", {"prompt": json.dumps({"turns": what["task"], "id": f"{number}t"})}
    return {"name": name, "input": arguments, "id": number}


async def _recorded(stage: Stage, run_id: str) -> tuple[set[str], int]:
    """The effects that must not happen again, and the number of turns that must not be asked again."""
    history = await stage.journal.history(run_id)
    steps = {step.key: step.status for step in history.steps}
    over: set[str] = set()
    for event in await stage.journal.events(run_id, types=["tool_start"], limit=100_000):
        told = codec.load(event.data)
        if steps.get(told["step"]) in (StepStatus.COMPLETED, StepStatus.STARTED) and told["tool"] in ("pay", "look"):
            over.add(told["arguments"]["number"])
    over.update(codec.load(step.value or b"null") for step in history.steps if step.name == "step")  # type: ignore[arg-type]
    return over, sum(step.kind == "turn" for step in history.steps)


async def _kill_and_resume(program: Program, moments: list[int], folder: Path) -> None:
    stage, world = Stage(folder / "project"), World(program)
    recording = Recording(stage.root, folder / "record")
    undisturbed: Run = await stage.run(world.work)
    recording.end()
    await stage.close()
    wanted = result_of(undisturbed)
    assert set(world.effects.values()) <= {1}
    commits = recording.commits
    for moment in {moment % commits for moment in moments}:
        root = recording.crash(moment)
        crashed, again = Stage(root), World(program)
        if await crashed.journal.run(undisturbed.run_id) is None:
            await crashed.close()
            continue
        before = await crashed.journal.run(undisturbed.run_id, values=False)
        over, turns = await _recorded(crashed, undisturbed.run_id)
        run = await crashed.resume(undisturbed.run_id, again.work)
        assert result_of(run) == wanted
        await dense(crashed.journal, run)
        if before is not None and not before.is_final:
            assert again.effects == Counter(set(world.effects) - over)
            assert again.model.count == world.model.count - turns
        await crashed.close()


@given(program=_programs, moments=st.lists(st.integers(min_value=0, max_value=500), min_size=4, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def _any_program(program: Program, moments: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_kill_and_resume(program, moments, Path(folder)))


@promise("agents.resume", "R3", "R4")
def test_any_program_of_model_work_that_is_killed_after_any_commit_ends_as_it_would_have() -> None:
    _any_program()
