"""Runs with agents that are killed after any commit, and go on as if nothing had happened."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents import ToolContext, tool
from pyflue.agents.models.port import ModelRequest
from pyflue.journal import StepStatus
from tests.engine.durable import Context, ended, error_of, result_of
from tests.promises import promise

from .agent_runs import Asked, Recording, Stage, calls, dense, results_told

UNKNOWN = (
    "The outcome of this call is unknown: the program was interrupted while it ran. It was not repeated. "
    "Find out whether it was done before you call it again."
)


def used(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer that costs a hundred tokens, whatever was asked."""
    return {**answer, "usage": {"input_tokens": 90, "output_tokens": 10}}


class Shop:
    """An agent whose tools have effects, which are counted; with six turns and eight tool calls."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.asked = Asked(self._answer)

        @tool
        async def charge(amount: int) -> str:
            """Charge money."""
            self.effects.append(f"charge {amount}")
            return f"charged {amount}"

        @tool(idempotent=True)
        async def look_up(name: str) -> str:
            """Look something up."""
            self.effects.append(f"look_up {name}")
            return f"{name} costs 5"

        self.agent = self.asked.agent(tools=[charge, look_up], instructions="You work.")

    def _answer(self, request: ModelRequest) -> Any:
        turn = sum(message.role == "assistant" for message in request.messages)
        if request.messages[0].text == "Count the words":
            self.effects.append(f"child turn {turn}")
            return used([calls(("bash", {"command": "wc -w < notes.md"})), {"text": "It has 2 words."}][turn])
        self.effects.append(f"turn {turn}")
        answers = [
            calls(("write", {"path": "notes.md", "content": "one "}), ("look_up", {"name": "tea"})),
            calls(("charge", {"amount": 5}), ("bash", {"command": "echo two >> notes.md; cat notes.md"})),
            calls(("task", {"prompt": "Count the words"})),
            calls(("charge", {"amount": 6}), ("edit", {"path": "notes.md", "old_text": "one", "new_text": "three"})),
            calls(("read", {"path": "notes.md"})),
            {"text": f"Told: {results_told(request)!r}"},
        ]
        return used(answers[turn])

    async def shop(self, ctx: Context) -> Any:
        harness = await ctx.init(self.agent)
        await harness.fs.write_file("order.txt", "tea")
        session = await harness.session()
        reply = await session.prompt("Do the shopping")
        listed = await harness.shell("cat notes.md")
        return {
            "text": reply.text,
            "turns": reply.turns,
            "tokens": reply.usage.total_tokens,
            "notes": await harness.fs.read_file("notes.md"),
            "files": await harness.fs.readdir("."),
            "shell": listed.stdout,
        }


#: Which effect belongs to which durable call.
EFFECTS = {
    "prompt/turn": "turn 0",
    "prompt/turn/look_up": "look_up tea",
    "prompt/turn#2": "turn 1",
    "prompt/turn#2/charge": "charge 5",
    "prompt/turn#3": "turn 2",
    "prompt/turn#3/task/attempt-1/task/turn": "child turn 0",
    "prompt/turn#3/task/attempt-1/task/turn#2": "child turn 1",
    "prompt/turn#4": "turn 3",
    "prompt/turn#4/charge": "charge 6",
    "prompt/turn#5": "turn 4",
    "prompt/turn#6": "turn 5",
}


def _told(request: ModelRequest) -> list[dict[str, Any]]:
    return [message.to_dict() for message in request.messages]


def _with_unknown(requests: list[ModelRequest], result: str) -> list[list[dict[str, Any]]]:
    """The requests, as they are if the outcome of the call with this result is not known."""
    told = [_told(request) for request in requests]
    for block in (block for messages in told for message in messages for block in message["blocks"]):
        if block["type"] == "tool_result" and block["content"][0]["text"] == result:
            block["content"] = [{"type": "text", "text": UNKNOWN}]
            block["is_error"] = True
    return told


@promise("agents.resume", "R2", "R3", "R4", "R6")
async def test_a_prompt_that_is_killed_after_any_commit_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    stage, shop = Stage(tmp_path / "project"), Shop()
    recording = Recording(stage.root, tmp_path / "record")
    undisturbed = await stage.run(shop.shop)
    recording.end()
    await stage.close()
    wanted = result_of(undisturbed)
    assert (wanted["turns"], wanted["tokens"], wanted["notes"]) == (8, 800, "three two\n")
    all_requests = list(shop.asked.requests)
    assert Counter(shop.effects) == Counter(EFFECTS.values())
    in_flight: list[str] = []
    for root in recording.crashes():
        crashed, again = Stage(root), Shop()
        if await crashed.journal.run(undisturbed.run_id) is None:
            await crashed.close()
            continue  # killed before it was accepted
        history = await crashed.journal.history(undisturbed.run_id)
        done = {step.key for step in history.steps if step.status is StepStatus.COMPLETED}
        begun = {step.key for step in history.steps if (step.kind, step.status) == ("tool", StepStatus.STARTED)}
        run = await crashed.resume(undisturbed.run_id, again.shop)
        assert result_of(run) == wanted
        await dense(crashed.journal, run)
        # Whatever is not recorded is done once, whatever is recorded (as begun, even) is not done again.
        assert again.effects == [effect for key, effect in EFFECTS.items() if key not in done | begun]
        told = [_told(request) for request in again.asked.requests]
        expected = all_requests[len(all_requests) - len(told) :]
        if begun:
            (key,) = begun
            in_flight.append(key)
            amount = EFFECTS[key].removeprefix("charge ")
            assert told == _with_unknown(expected, f"charged {amount}")
            (end,) = [end for end in await crashed.told(run.run_id, "tool_end") if end["step"] == key]
            assert (end["outcome"], end["is_error"], end["result"]) == ("unknown", True, UNKNOWN)
        else:
            assert told == [_told(request) for request in expected]
        await crashed.close()
    assert in_flight == ["prompt/turn#2/charge", "prompt/turn#4/charge"]


@pytest.mark.parametrize("idempotent", [False, True])
@promise("agents.resume", "agents.unknown-outcome")
async def test_a_tool_that_is_interrupted_is_only_called_again_if_it_is_idempotent(
    stage: Stage, idempotent: bool
) -> None:
    begun: list[str] = []
    is_in_it, gate = asyncio.Event(), asyncio.Event()

    @tool(idempotent=idempotent)
    async def pay(amount: int, ctx: ToolContext) -> str:
        """Pay."""
        begun.append(ctx.step_id)
        is_in_it.set()
        await gate.wait()
        return f"paid {amount}"

    model = Asked(
        lambda request: str(results_told(request)) if len(request.messages) > 1 else calls(("pay", {"amount": 1}))
    )

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(tools=[pay]))).session()
        return (await session.prompt("Pay")).text

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await is_in_it.wait()
    assert not (await stage.journal.run(run_id)).is_final  # type: ignore[union-attr]
    gate.set()
    run = await stage.resume(run_id, work)
    if idempotent:
        assert result_of(run) == str([("paid 1", False)])
        # An idempotency key for services: the same each time.
        assert begun == [f"{run_id}/prompt/turn/pay"] * 2
    else:
        assert result_of(run) == str([(UNKNOWN, True)])
        assert begun == [f"{run_id}/prompt/turn/pay"]
    assert model.count == 2
    await dense(stage.journal, run)


async def test_a_run_that_goes_on_has_the_files_and_the_conversation_it_had(stage: Stage) -> None:
    is_in_it, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        is_in_it.set()
        await gate.wait()

    def answer(request: ModelRequest) -> Any:
        turn = sum(message.role == "assistant" for message in request.messages)
        return [
            calls(("bash", {"command": "mkdir -p a/b; echo 1 > a/b/c.txt; ln -s b a/d; rm gone.txt"})),
            "First.",
            "Second.",
        ][turn]

    model = Asked(answer)
    seen: list[Any] = []

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        await harness.fs.write_file("gone.txt", "x")
        await harness.fs.write_file("data.bin", bytes(range(256)))
        session = await harness.session()
        seen.append(await harness.fs.readdir("."))
        await session.prompt("One")
        seen.append(await harness.fs.readdir("."))
        await ctx.step("hold", hold)
        await session.prompt("Two")
        return {
            "files": await harness.fs.readdir("."),
            "link": await harness.fs.read_file("a/d/c.txt"),
            "bytes": list(await harness.fs.read_bytes("data.bin")),
            "history": [(message.role, message.text) for message in await session.history()],
        }

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await is_in_it.wait()
    gate.set()
    result = result_of(await stage.resume(run_id, work))
    # What was read before the point at which it stopped is read again as it was then.
    assert seen == [["data.bin", "gone.txt"], ["a", "data.bin"]] * 2
    assert result == {
        "files": ["a", "data.bin"],
        "link": "1\n",
        "bytes": list(range(256)),
        "history": [
            ["user", "One"],
            ["assistant", ""],
            ["user", ""],
            ["assistant", "First."],
            ["user", "Two"],
            ["assistant", "Second."],
        ],
    }
    assert model.count == 3


async def test_a_run_is_given_the_answers_of_its_recorded_prompts_without_asking_again(stage: Stage) -> None:
    is_in_it, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        is_in_it.set()
        await gate.wait()

    model = Asked(["One.", {"numbers": [1, 2]}])
    given: list[Any] = []

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        given.append([await session.prompt("A"), await session.prompt("B", result=dict[str, list[int]])])
        await ctx.step("hold", hold)

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await is_in_it.wait()
    gate.set()
    result_of(await stage.resume(run_id, work))
    assert model.count == 2
    assert given[0] == given[1]
    assert given[0][1].data == {"numbers": [1, 2]}


async def test_a_failed_run_that_is_tried_again_keeps_its_turns_its_conversation_and_its_files(stage: Stage) -> None:
    is_broken = [True]
    paid: list[int] = []

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    def answer(request: ModelRequest) -> Any:
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn == 2 and is_broken[0]:
            return {"error": "The model is gone."}
        return [calls(("write", {"path": "a.txt", "content": "written"})), calls(("pay", {"amount": 7})), "Done."][turn]

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(tools=[pay]))
        reply = await (await harness.session()).prompt("Work")
        return [reply.text, reply.turns, await harness.fs.read_file("a.txt")]

    async with stage.engine(work) as engine:
        failed = await ended(engine, await stage.submit(engine, work))
        assert (error_of(failed)["type"], error_of(failed)["message"]) == ("model_failed", "The model is gone.")
        assert (model.count, paid) == (3, [7])
        third = _told(model.requests[2])
        is_broken[0] = False
        run = await ended(engine, (await engine.retry(failed.run_id)).run_id)
    assert result_of(run) == ["Done.", 3, "written"]
    assert (model.count, paid) == (4, [7])
    assert _told(model.requests[3]) == third
    # Nothing of it became the old run's.
    assert len(await stage.conversation(failed.run_id)) == 4
    assert len(await stage.conversation(run.run_id)) == 6
    await dense(stage.journal, run)


@pytest.mark.parametrize(
    ("step", "asked_again", "paid_again"),
    [("prompt/turn", 3, 1), ("prompt/turn#2", 2, 1), ("prompt/turn#2/pay", 1, 1), ("prompt/turn#3", 1, 0)],
)
async def test_a_fork_begins_at_a_turn_or_at_a_tool_call(
    stage: Stage, step: str, asked_again: int, paid_again: int
) -> None:
    paid: list[int] = []

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        paid.append(amount)
        return f"paid for the {len(paid)}. time"

    def answer(request: ModelRequest) -> Any:
        turn = sum(message.role == "assistant" for message in request.messages)
        last = results_told(request)
        return [
            calls(("bash", {"command": "echo line >> a.txt"})),
            calls(("pay", {"amount": 7})),
            f"Done: {last}",
        ][turn]

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(tools=[pay]))
        reply = await (await harness.session()).prompt("Work")
        return [reply.text, reply.turns, await harness.fs.read_file("a.txt")]

    async with stage.engine(work) as engine:
        first = await ended(engine, await stage.submit(engine, work))
        assert (model.count, paid) == (3, [7])
        run = await ended(engine, (await engine.fork(first.run_id, from_step=step)).run_id)
    assert result_of(run) == [f"Done: [('paid for the {1 + paid_again}. time', False)]", 3, "line\n"]
    assert (model.count, len(paid)) == (3 + asked_again, 1 + paid_again)
    await dense(stage.journal, run)


@pytest.mark.parametrize(
    ("answer", "budget", "error"),
    [
        ({"error": "It is closed."}, {}, "ModelFailed: It is closed."),
        (
            {"text": "Never data."},
            {},
            (
                "ResultUnavailable: The model gave no data of the wanted type in 2 attempts "
                "(the last: The answer is not valid JSON: invalid character (byte 0))."
            ),
        ),
        (
            calls(("exists", {"path": "a"})),
            {"max_turns": 2},
            "BudgetExceeded: The budget max_turns=2 of this prompt is used up (2).",
        ),
    ],
)
async def test_a_prompt_that_failed_fails_in_the_same_way_after_a_restart_without_being_asked_again(
    stage: Stage, answer: dict[str, Any], budget: dict[str, Any], error: str
) -> None:
    is_in_it, gate = asyncio.Event(), asyncio.Event()
    seen: list[str] = []

    async def hold() -> None:
        is_in_it.set()
        await gate.wait()

    model = Asked(lambda request: "Fine." if request.messages[-1].text == "Again" else answer)

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        try:
            await session.prompt("Go", result=int, retries=1, budget=budget)
        except Exception as failed:
            seen.append(f"{type(failed).__name__}: {failed}")
        await ctx.step("hold", hold)
        return (await session.prompt("Again")).text

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await is_in_it.wait()
    asked = model.count
    gate.set()
    run = await stage.resume(run_id, work)
    assert result_of(run) == "Fine."
    assert seen == [error, error]
    assert model.count == asked + 1


async def test_a_prompt_that_is_interrupted_in_an_edited_workflow_keeps_what_it_had(stage: Stage) -> None:
    """A call that was put in before it strands nothing: keys are names, not numbers."""
    is_in_it, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        is_in_it.set()
        await gate.wait()

    model = Asked(lambda request: f"Re: {request.messages[-1].text}")

    async def before(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        first = await session.prompt("One")
        await ctx.step("hold", hold)
        return [first.text, (await session.prompt("Two")).text]

    async def after(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        await harness.fs.write_file("new.txt", "x")
        await (await harness.session("new")).prompt("New")
        session = await harness.session()
        first = await session.prompt("One")
        await ctx.step("hold", hold)
        return [first.text, (await session.prompt("Two")).text]

    before.__name__ = after.__name__ = "work"
    async with stage.interrupted(before) as run_id:
        async with asyncio.timeout(5):
            await is_in_it.wait()
    gate.set()
    run = await stage.resume(run_id, after)
    assert result_of(run) == ["Re: One", "Re: Two"]
    assert [request.messages[-1].text for request in model.requests] == ["One", "New", "Two"]
    assert len(model.messages[-1]) == 3
