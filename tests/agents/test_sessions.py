"""Sessions: one operation at a time, in the order in which they were asked for; and the ways to end one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyflue.agents import OperationAborted, tool
from pyflue.agents.content import Message, Text, ToolResult, user
from pyflue.agents.models.port import ModelRequest
from pyflue.errors import SessionBusy, SessionExists, SessionNotFound
from tests.engine.durable import Context, ended, result_of
from tests.promises import promise

from .agent_runs import Asked, Spoken, Stage, calls, dense, last_text


async def test_prompts_that_are_asked_for_at_once_are_done_in_their_order(stage: Stage) -> None:
    model = Asked(lambda request: f"Re: {last_text(request)}")

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        replies = await asyncio.gather(*(session.prompt(text) for text in "ABC"))
        return [reply.text for reply in replies]

    assert result_of(await stage.run(work)) == ["Re: A", "Re: B", "Re: C"]
    assert [last_text(request) for request in model.requests] == ["A", "B", "C"]
    assert [len(messages) for messages in model.messages] == [1, 3, 5]


async def test_sessions_go_on_side_by_side(stage: Stage) -> None:
    together = asyncio.Barrier(3)

    async def answer(request: ModelRequest) -> str:
        await together.wait()
        return f"Re: {last_text(request)}"

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        sessions = [await harness.session(name) for name in "abc"]
        replies = await asyncio.gather(*(session.prompt(session.name) for session in sessions))
        return [reply.text for reply in replies]

    assert result_of(await stage.run(work)) == ["Re: a", "Re: b", "Re: c"]
    assert [len(messages) for messages in model.messages] == [1, 1, 1]


async def test_a_tool_that_prompts_its_own_session_is_refused_instead_of_waiting_for_itself(stage: Stage) -> None:
    sessions: list[Any] = []

    @tool
    async def ask_myself() -> str:
        """Ask."""
        with pytest.raises(SessionBusy):
            await sessions[0].prompt("Me?")
        other = await sessions[0].harness.session("other")
        return (await other.prompt("You?")).text

    model = Asked(lambda request: "Other." if last_text(request) == "You?" else _once(request))

    def _once(request: ModelRequest) -> Any:
        return calls(("ask_myself", {})) if len(request.messages) == 1 else "Done."

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(tools=[ask_myself]))
        sessions.append(await harness.session())
        return (await sessions[0].prompt("Go")).text

    async with asyncio.timeout(10):
        assert result_of(await stage.run(work)) == "Done."
    assert model.messages[-1][-1].blocks[0] == ToolResult(
        tool_use_id=model.messages[-1][1].tool_uses[0].id, content=(Text("Other."),)
    )


async def test_what_a_tool_said_in_another_session_is_there_after_a_restart(stage: Stage) -> None:
    """The tool is not run again, and yet its session knows what was said, and the budget what it cost."""
    reached, gate = asyncio.Event(), asyncio.Event()
    harnesses: list[Any] = []

    @tool
    async def ask_other() -> str:
        """Ask."""
        return (await (await harnesses[-1].session("other")).prompt("You?")).text

    def answer(request: ModelRequest) -> Any:
        usage = {"usage": {"input_tokens": 90, "output_tokens": 10}}
        if request.messages[0].text == "Go":
            return {**(calls(("ask_other", {})) if len(request.messages) == 1 else {"text": "Done."}), **usage}
        return {"text": "Other.", **usage}

    async def hold() -> None:
        reached.set()
        await gate.wait()

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(tools=[ask_other]))
        harnesses.append(harness)
        await (await harness.session()).prompt("Go")
        await ctx.step("in a step", lambda: harness_prompt(harness, "Inside?"))
        await ctx.step("hold", hold)
        other = await harness.session("other")
        await other.prompt("Again?")
        return harness.run_meter.usage.total_tokens

    async def harness_prompt(harness: Any, text: str) -> str:
        return (await (await harness.session("other")).prompt(text)).text

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await reached.wait()
    gate.set()
    assert result_of(await stage.resume(run_id, work)) == 500
    assert model.count == 5
    said = [
        user("You?"),
        Message("assistant", (Text("Other."),)),
        user("Inside?"),
        Message("assistant", (Text("Other."),)),
    ]
    assert model.messages[-1] == [*said, user("Again?")]


async def test_sessions_are_found_made_and_forgotten_by_name(stage: Stage) -> None:
    model = Asked(lambda request: str(len(request.messages)))

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        with pytest.raises(SessionNotFound):
            await harness.sessions.get("a")
        session = await harness.sessions.create("a")
        with pytest.raises(SessionExists):
            await harness.sessions.create("a")
        assert await harness.session("a") is session is await harness.sessions.get("a")
        first = (await session.prompt("One")).text
        await harness.sessions.delete("a")
        await harness.sessions.delete("a")
        assert harness.sessions.names == []
        with pytest.raises(SessionNotFound):
            await session.prompt("Two")
        again = await harness.session("a")
        return [first, (await again.prompt("Three")).text]

    assert result_of(await stage.run(work)) == ["1", "1"]


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb"])
async def test_what_cannot_name_a_session_is_refused_when_it_is_asked_for(stage: Stage, name: str) -> None:
    async def work(ctx: Context) -> Any:
        harness = await ctx.init(Asked([]).agent())
        with pytest.raises(ValueError, match="cannot name a session"):
            await harness.session(name)

    assert result_of(await stage.run(work)) is None


@pytest.mark.parametrize("name", ["a/b", "ü", "../x", "a:b", "prompt", "x" * 100])
async def test_any_name_of_a_session_is_a_session_of_its_own(stage: Stage, name: str) -> None:
    model = Asked(lambda request: str(len(request.messages)))

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        replies = []
        for each in (name, "default", name):
            replies.append((await (await harness.session(each)).prompt("Hi")).text)  # noqa: PERF401  (clearer so)
        return replies

    run = await stage.run(work)
    assert result_of(run) == ["1", "1", "3"]


async def test_abort_ends_the_operation_and_the_session_goes_on(stage: Stage) -> None:
    slow = Spoken("Once ", "upon")
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        assert session.abort() is False
        prompting = asyncio.ensure_future(session.prompt("Go", model=slow))
        await slow.speak()
        assert session.abort() is True
        with pytest.raises(OperationAborted):
            await prompting
        return (await session.prompt("And now?")).text

    run = await stage.run(work)
    assert result_of(run) == "Fine."
    assert slow.is_closed
    assert model.messages == [[user("And now?")]]
    first, second = await stage.told(run.run_id, "operation")
    assert (first["is_error"], first["error"]["type"], second["is_error"]) == (True, "aborted", False)
    await dense(stage.journal, run)


async def test_abort_in_the_middle_of_a_tool_leaves_a_conversation_that_can_go_on(stage: Stage) -> None:
    begun = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait."""
        begun.set()
        await asyncio.Event().wait()
        return "never"

    model = Asked([calls({"name": "wait", "input": {}, "id": "c1"}), "Fine."])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(tools=[wait]))).session()
        prompting = asyncio.ensure_future(session.prompt("Go"))
        await begun.wait()
        session.abort()
        with pytest.raises(OperationAborted):
            await prompting
        return (await session.prompt("And now?")).text

    assert result_of(await stage.run(work)) == "Fine."
    result, text = model.messages[-1][-1].blocks
    assert isinstance(result, ToolResult)
    assert (result.tool_use_id, result.is_error, text) == ("c1", True, Text("And now?"))


@promise("agents.live")
async def test_leaving_a_stream_early_closes_the_model(stage: Stage) -> None:
    slow = Spoken("Once ", "upon ", "a time")
    model = Asked(["Fine."])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        slow.gates[0].set()
        stream = session.stream("Go", model=slow)
        async for piece in stream:
            seen = piece
            break
        return [seen, (await session.prompt("And now?")).text]

    async with asyncio.timeout(10):
        run = await stage.run(work)
    assert result_of(run) == ["Once ", "Fine."]
    assert slow.is_closed
    assert model.messages == [[user("And now?")]]


async def test_a_shell_command_of_a_session_is_told_to_its_model_and_one_of_the_harness_is_not(stage: Stage) -> None:
    model = Asked(["Fine."])

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        session = await harness.session()
        await harness.fs.write_file("a.txt", "secretive")
        await harness.fs.read_file("a.txt")
        hidden = await harness.shell("echo hidden")
        shown = await session.shell("echo shown; false")
        await session.prompt("What did I do?")
        return [hidden.stdout, shown.stdout, shown.exit_code]

    run = await stage.run(work)
    assert result_of(run) == ["hidden\n", "shown\n", 1]
    told = "I ran this command:\necho shown; false\nIt ended with exit code 1.\nstdout:\nshown\n"
    assert model.messages == [[Message("user", (Text(told), Text("What did I do?")))]]
    command = ["command_start", "command_end"]
    assert (await stage.types(run.run_id))[1:9] == [
        "step_end",
        *command,
        "operation_start",
        *command,
        "operation",
        "operation_start",
    ]


async def test_an_operation_of_another_run_is_refused(stage: Stage) -> None:
    model = Asked(lambda request: "Fine.")
    sessions: list[Any] = []

    async def work(ctx: Context) -> Any:
        if not sessions:
            sessions.append(await (await ctx.init(model.agent())).session())
            return await ctx.wait_for("end")
        try:
            await sessions[0].prompt("Mine!")
        except Exception as error:
            return type(error).__name__

    async with stage.engine(work) as engine:
        first = await stage.submit(engine, work)
        await stage.until(first, "run_waiting")
        second = await ended(engine, await stage.submit(engine, work))
        assert result_of(second) == "CallMisplaced"
        await engine.cancel(first)
    assert model.count == 0
