"""Compaction: a summary takes the place of the older part of a conversation that has grown too long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyflue.agents import OperationAborted, tool
from pyflue.agents.content import ToolResult
from pyflue.agents.models.port import ModelRequest
from tests.engine.durable import Context, error_of, result_of
from tests.promises import promise

from .agent_runs import Asked, Stage, calls, dense, last_text, told_plainly

LONG = "word " * 400  # about 500 tokens
CONFIG = {"context_window_tokens": 4000, "reserve_tokens": 1000, "keep_recent_tokens": 1200}


def is_summary(request: ModelRequest) -> bool:
    return request.system.startswith("You summarise")


def paired(messages: Any) -> bool:
    """Whether each tool use is followed by its result, each result preceded by its use, and the sides alternate."""
    roles = [message.role for message in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2):
        return False
    open_uses: list[str] = []
    for message in messages:
        results = [block.tool_use_id for block in message.blocks if isinstance(block, ToolResult)]
        if results != open_uses:
            return False
        open_uses = [use.id for use in message.tool_uses]
    return open_uses == []


async def test_a_conversation_that_is_asked_to_is_made_shorter(stage: Stage) -> None:
    model = Asked(lambda request: "What was said." if is_summary(request) else f"Re: {last_text(request)}")

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        assert await session.compact() is False
        await session.prompt("One")
        await session.prompt("Two")
        done = await session.compact(keep_messages=2)
        await session.prompt("Three")
        return [done, [(message.role, message.text) for message in await session.history()]]

    run = await stage.run(work)
    assert result_of(run) == [
        True,
        [
            ["user", "[Context Summary]\nWhat was said.Two"],
            ["assistant", "Re: Two"],
            ["user", "Three"],
            ["assistant", "Re: Three"],
        ],
    ]


@promise("agents.events")
async def test_the_record_tells_of_a_compaction(stage: Stage) -> None:
    usage = {"usage": {"input_tokens": 90, "output_tokens": 10}}
    model = Asked(lambda request: {"text": "Summary." if is_summary(request) else "Fine.", **usage})

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        await session.prompt("One")
        return await session.compact(keep_messages=0)

    run = await stage.run(work)
    assert result_of(run) is True
    told = told_plainly(await dense(stage.journal, run))[5:-1]
    about = {"operation_id": "compact", "session": "default"}
    assert [type_ for type_, _ in told] == [
        "operation_start", "compaction_start", "turn_request", "turn", "compaction_end", "operation",
    ]  # fmt: skip
    assert told[1][1] == {
        **about, "step": "compact/compaction", "reason": "asked", "estimated_tokens": 3, "messages": 2,
    }  # fmt: skip
    assert told[3][1]["purpose"] == "compaction"
    assert told[4][1] == {
        **about, "step": "compact/compaction", "reason": "asked", "messages_before": 2, "messages_after": 1,
        "tokens_before": 3, "tokens_after": 7,
    }  # fmt: skip
    assert told[5][1]["usage"]["total_tokens"] == 100


@promise("agents.compaction")
async def test_a_conversation_is_summarised_before_it_outgrows_its_model(stage: Stage) -> None:
    model = Asked(lambda request: "Summary." if is_summary(request) else LONG)

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent(compaction=CONFIG))).session()
        for number in range(8):
            await session.prompt(f"{number}: {LONG}")

    run = await stage.run(work)
    result_of(run)
    starts = await stage.told(run.run_id, "compaction_start")
    assert {start["reason"] for start in starts} == {"threshold"}
    assert len(starts) >= 2
    for request in model.requests:
        size = sum(len(message.text) for message in request.messages) // 4
        assert is_summary(request) or size <= 3100
        assert paired(request.messages)
    summarised = next(i for i, request in enumerate(model.requests) if is_summary(request))
    assert model.messages[summarised + 1][0].text.startswith("[Context Summary]\nSummary.")
    assert model.messages[-1][-1].text == f"7: {LONG}"


@promise("agents.compaction")
async def test_a_tool_use_is_never_parted_from_its_result(stage: Stage) -> None:
    def answer(request: ModelRequest) -> Any:
        if is_summary(request):
            return "Summary."
        if answered[0] % 3 == 2:
            answered[0] += 1
            return "Done."
        answered[0] += 1
        return calls(("read", {"path": "long.txt"}), ("exists", {"path": "x"}), text=LONG)

    answered = [0]
    model = Asked(answer)

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent(compaction=CONFIG))
        await harness.fs.write_file("long.txt", LONG)
        session = await harness.session()
        for number in range(5):
            await session.prompt(f"{number}: {LONG}")

    run = await stage.run(work)
    result_of(run)
    assert len(await stage.told(run.run_id, "compaction_end")) >= 2
    assert all(paired(request.messages) for request in model.requests)


@promise("agents.compaction")
async def test_a_single_prompt_with_many_tool_calls_is_made_shorter_on_its_way(stage: Stage) -> None:
    turns = [0]

    def answer(request: ModelRequest) -> Any:
        if is_summary(request):
            return "Summary."
        turns[0] += 1
        return "Done." if turns[0] == 12 else calls(("read", {"path": "long.txt"}), text=LONG)

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(compaction=CONFIG))
        await harness.fs.write_file("long.txt", LONG)
        return (await (await harness.session()).prompt("Read it often")).text

    run = await stage.run(work)
    assert result_of(run) == "Done."
    assert len(await stage.told(run.run_id, "compaction_end")) >= 2
    assert all(paired(request.messages) for request in model.requests)


async def test_what_a_summary_is_made_of_ends_with_the_last_whole_exchange(stage: Stage) -> None:
    """A session that was aborted in the middle of a tool: the tool use stays, for its result is still to come."""
    begun = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait."""
        begun.set()
        await asyncio.Event().wait()
        return "never"

    model = Asked(lambda request: "Summary." if is_summary(request) else _wait_or_end(request))

    def _wait_or_end(request: ModelRequest) -> Any:
        return calls(("wait", {})) if last_text(request) == "Go" else "Fine."

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(tools=[wait]))).session()
        prompting = asyncio.ensure_future(session.prompt("Go"))
        await begun.wait()
        session.abort()
        await asyncio.wait([prompting])
        assert isinstance(prompting.exception(), OperationAborted)
        assert await session.compact(keep_messages=0)
        return (await session.prompt("And?")).text

    assert result_of(await stage.run(work)) == "Fine."
    assert paired(model.messages[-1])


@promise("agents.compaction")
async def test_a_conversation_that_is_too_long_after_all_is_made_shorter_once(stage: Stage) -> None:
    overflowed: list[int] = []

    def answer(request: ModelRequest) -> Any:
        if is_summary(request):
            return "Summary."
        if len(request.messages) >= 5:
            overflowed.append(len(request.messages))
            return {"error": "context_overflow"}
        return f"Re: {last_text(request)}"

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(compaction={"keep_recent_tokens": 0}))).session()
        return [(await session.prompt(text)).text for text in "ABC"]

    run = await stage.run(work)
    assert result_of(run) == ["Re: A", "Re: B", "Re: [Context Summary]\nSummary.C"]
    assert overflowed == [5]
    (start,) = await stage.told(run.run_id, "compaction_start")
    assert start["reason"] == "overflow"


async def test_a_conversation_that_cannot_be_made_shorter_fails(stage: Stage) -> None:
    model = Asked(lambda request: {"error": "context_overflow"})

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go")

    error = error_of(await stage.run(work))
    assert (error["type"], model.count) == ("context_overflow", 1)


async def test_a_conversation_of_which_the_summary_is_no_help_fails_after_one_more_try(stage: Stage) -> None:
    def answer(request: ModelRequest) -> Any:
        if is_summary(request):
            return "Summary."
        return "Fine." if last_text(request) == "A" else {"error": "context_overflow"}

    model = Asked(answer)

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent(compaction={"keep_recent_tokens": 0}))).session()
        await session.prompt("A")
        await session.prompt("B")

    error = error_of(await stage.run(work))
    assert (error["type"], model.count) == ("context_overflow", 4)


async def test_no_compaction_means_none(stage: Stage) -> None:
    model = Asked(lambda request: LONG)

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent(compaction=False))).session()
        for number in range(8):
            await session.prompt(f"{number}: {LONG}")

    run = await stage.run(work)
    result_of(run)
    assert len(model.messages[-1]) == 15


@promise("agents.compaction", "agents.resume")
@pytest.mark.parametrize("after", [2, 3, 4, 5])
async def test_a_compaction_is_the_same_after_a_restart(stage: Stage, after: int) -> None:
    """The model is stopped in the middle of each of its turns once, those of the summary included."""
    reached, gate = asyncio.Event(), asyncio.Event()

    async def answer(request: ModelRequest) -> Any:
        if model.count == after and not gate.is_set():
            reached.set()
            await gate.wait()
        return "Summary." if is_summary(request) else f"Re: {last_text(request)[:3]} {LONG}"

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(compaction=CONFIG))).session()
        for number in range(4):
            await session.prompt(f"{number}: {LONG}")
        return [message.text for message in await session.history()]

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await reached.wait()
    gate.set()
    run = await stage.resume(run_id, work)
    await dense(stage.journal, run)
    asked = [request.messages for number, request in enumerate(model.requests) if number != after - 1]
    undisturbed = Asked(lambda request: "Summary." if is_summary(request) else f"Re: {last_text(request)[:3]} {LONG}")
    model.requests, model.model = undisturbed.requests, undisturbed.model
    again = await stage.run(work)
    assert result_of(run) == result_of(again)
    assert [list(messages) for messages in asked] == [list(messages) for messages in undisturbed.messages]


async def test_a_summary_may_have_a_model_of_its_own(stage: Stage) -> None:
    (stage.root / "small.json").write_text('["A small summary."]')
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(compaction={"model": "scripted/small.json"}))).session()
        await session.prompt("One")
        await session.compact(keep_messages=0)
        return [message.text for message in await session.history()]

    run = await stage.run(work)
    assert result_of(run) == ["[Context Summary]\nA small summary."]
    assert [turn["model"] for turn in await stage.told(run.run_id, "turn")] == ["scripted/code", "scripted/small.json"]
