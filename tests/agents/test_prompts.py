"""Prompts: what the model is asked, what comes back, and what the run's record tells of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyflue import codec
from pyflue.agents import Role, Skill, Usage, create_agent
from pyflue.agents.content import Image, Message, Text, Thinking, user
from pyflue.agents.models.port import ModelRequest, StopReason, ThinkingLevel
from pyflue.agents.models.scripted import ScriptedModel, ScriptedReply
from pyflue.engine.live import LiveReader, TextDelta
from pyflue.journal import RunStatus
from tests.engine.durable import Context, ended, error_of, result_of
from tests.promises import promise
from tests.support import MovableClock

from .agent_runs import Asked, Spoken, Stage, dense, told_plainly

USAGE = {"input_tokens": 90, "output_tokens": 10}
USAGE_TOLD = {**USAGE, "cache_read_tokens": 0, "cache_write_tokens": 0, "total_tokens": 100, "cost_usd": 0.0}


async def test_prompts_of_one_session_build_on_each_other(stage: Stage) -> None:
    model = Asked(["One.", "Two."])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(instructions="Be brief."))).session()
        return [(await session.prompt("First")).text, (await session.prompt("Second")).text]

    assert result_of(await stage.run(work)) == ["One.", "Two."]
    first, second = model.requests
    assert (first.system, first.messages) == ("Be brief.", [user("First")])
    assert second.messages == [user("First"), Message("assistant", (Text("One."),)), user("Second")]


@promise("agents.events")
async def test_the_record_of_a_prompt_tells_its_turns_and_tools_with_ids_that_belong_together(stage: Stage) -> None:
    model = Asked([
        {
            "text": "I look.",
            "tool_calls": [{"name": "write", "input": {"path": "a", "content": "x"}, "id": "c1"}],
            "usage": USAGE,
        },
        {"text": "Done.", "usage": USAGE},
    ])  # fmt: skip
    replies: list[Any] = []

    async def work(ctx: Context) -> None:
        replies.append(await (await (await ctx.init(model.agent())).session()).prompt("Go"))

    run = await stage.run(work)
    operation = {"operation_id": "prompt", "session": "default"}
    first = {**operation, "turn_id": "prompt/turn", "step": "prompt/turn"}
    second = {**operation, "turn_id": "prompt/turn#2", "step": "prompt/turn#2"}
    call = {**first, "tool_call_id": "c1", "tool": "write", "step": "prompt/turn/write"}
    request = {"attempt": 1, "purpose": "agent", "model": "scripted/code"}
    assert told_plainly(await dense(stage.journal, run))[1:-1] == [
        ("operation_start", {**operation, "kind": "prompt", "step": "prompt", "text": "Go"}),
        ("turn_request", {**first, **request}),
        ("turn", {
            **first, **request, "stop_reason": "tool_use", "usage": USAGE_TOLD, "text": "I look.",
            "tool_calls": [{"tool_call_id": "c1", "tool": "write"}],
        }),
        ("tool_start", {**call, "arguments": {"path": "a", "content": "x"}}),
        ("tool_end", {**call, "is_error": False, "result": "Wrote a"}),
        ("turn_request", {**second, **request}),
        ("turn", {
            **second, **request, "stop_reason": "end", "usage": USAGE_TOLD, "text": "Done.", "tool_calls": [],
        }),
        ("operation", {
            **operation, "kind": "prompt", "step": "prompt", "is_error": False, "turns": 2,
            "usage": {**USAGE_TOLD, "input_tokens": 180, "output_tokens": 20, "total_tokens": 200},
        }),
    ]  # fmt: skip
    (reply,) = replies
    assert reply.usage == Usage(input_tokens=180, output_tokens=20)
    assert (reply.text, reply.model, reply.turns, reply.operation_id, reply.session) == (
        "Done.", "scripted/code", 2, "prompt", "default",
    )  # fmt: skip
    assert codec.load(run.usage or codec.NULL) == reply.usage.to_dict()


@promise("agents.events")
async def test_the_record_of_a_prompt_that_fails_tells_why_and_the_run_fails_with_it(stage: Stage) -> None:
    model = Asked([{"text": "Half an", "error": {"message": "The provider is closed.", "status": 401}}])

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go")

    run = await stage.run(work)
    error = {"type": "model_failed", "message": "The provider is closed."}
    assert (error_of(run)["type"], error_of(run)["message"]) == (error["type"], error["message"])
    told = told_plainly(await dense(stage.journal, run))
    assert [type_ for type_, _ in told] == [
        "run_start", "operation_start", "turn_request", "error", "operation", "run_end",
    ]  # fmt: skip
    about = {"operation_id": "prompt", "session": "default", "step": "prompt"}
    assert told[3][1].pop("error")["message"] == error["message"]
    assert told[3][1] == {**about, "turn_id": "prompt/turn", "step": "prompt/turn"}
    nothing = {**USAGE_TOLD, "input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert told[4][1] == {**about, "kind": "prompt", "is_error": True, "turns": 0, "usage": nothing, "error": error}
    # What the model had said so far is nobody's answer.
    assert await stage.conversation(run.run_id) == []


async def test_a_workflow_can_live_with_a_prompt_that_failed(stage: Stage) -> None:
    def answer(request: ModelRequest) -> Any:
        return {"error": "It is closed."} if request.messages[-1].text == "Fails" else "Fine."

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        try:
            await session.prompt("Fails")
        except Exception as error:
            told = str(error)
        return [told, (await session.prompt("Works")).text]

    run = await stage.run(work)
    assert result_of(run) == ["It is closed.", "Fine."]
    assert model.messages[-1] == [user("Works")]


async def test_thinking_goes_back_to_the_model_as_it_came(stage: Stage) -> None:
    model = Asked([{"thinking": "Hm.", "text": "One."}, "Two."])

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent(thinking_level="high"))).session()
        await session.prompt("First")
        await session.prompt("Second", thinking_level="low")

    result_of(await stage.run(work))
    assert [request.thinking for request in model.requests] == [ThinkingLevel.HIGH, ThinkingLevel.LOW]
    assert model.requests[1].messages[1] == Message("assistant", (Thinking(text="Hm."), Text("One.")))


async def test_images_are_part_of_what_is_said(stage: Stage) -> None:
    model = Asked(["A cat."])
    image = Image(mime_type="image/png", data=b"\x89PNG\r\n\x1a\n0")

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("What is it?", images=[image])

    run = await stage.run(work)
    assert model.messages == [[Message("user", (Text("What is it?"), image))]]
    said, _ = await stage.conversation(run.run_id)
    assert Message.from_dict(said) == Message("user", (Text("What is it?"), image))


async def test_a_role_and_the_skills_are_in_the_instructions(stage: Stage) -> None:
    model = Asked(lambda request: "Fine.")
    other = Asked(["Other."], id="scripted/other")
    skill = Skill(name="sum", description="Adds things up.", instructions="Add them.")
    roles = [Role(name="critic", instructions="Find faults."), Role(name="poet", instructions="Rhyme.")]

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(instructions="Base.", roles=roles, skills=[skill]))
        session = await harness.session(role="critic")
        await session.prompt("A")
        await session.prompt("B", role="poet")
        skilled = await session.skill("sum", args={"numbers": [1, 2]})
        return [skilled.text, (await (await harness.session("b")).prompt("C", model=other.model)).model]

    assert result_of(await stage.run(work)) == ["Fine.", "scripted/other"]
    skills = "Your skills (read one with the tool `skill` before you use it):\n- sum: Adds things up."
    assert [request.system for request in model.requests] == [
        f"Base.\n\nRole: critic\nFind faults.\n\n{skills}",
        f"Base.\n\nRole: poet\nRhyme.\n\n{skills}",
        f"Base.\n\nRole: critic\nFind faults.\n\n{skills}",
    ]
    arguments = '{\n  "numbers": [\n    1,\n    2\n  ]\n}'
    assert model.requests[2].messages[-1].text == f"Add them.\n\nArguments:\n{arguments}"
    assert other.count == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"role": "nobody"}, "name_unknown", "There is no role 'nobody'."),
        ({"secrets": ["KEY"]}, "name_unknown", "There is no secret 'KEY'."),
        ({"colour": "red"}, "exception", "There is no option 'colour'"),
        ({"thinking_level": "deep"}, "agent_invalid", "thinking_level='deep'"),
        ({"budget": {"max_tokens": 0}}, "agent_invalid", "max_tokens"),
        ({"model": "nowhere/x"}, "model_unknown", "There is no model provider 'nowhere'."),
    ],
)
async def test_options_that_are_no_good_are_refused_before_a_model_is_asked(
    stage: Stage, options: dict[str, Any], error: str, message: str
) -> None:
    model = Asked(["Never."])

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go", **options)

    found = error_of(await stage.run(work))
    assert found["type"] == error
    assert message in found["message"]
    assert model.count == 0


async def test_an_agent_without_a_model_says_what_to_do(stage: Stage) -> None:
    async def work(ctx: Context) -> None:
        await (await (await ctx.init(create_agent(lambda: {"model": False}))).session()).prompt("Go")

    error = error_of(await stage.run(work))
    assert error["type"] == "model_unknown"
    assert "PYFLUE_MODEL=scripted/hello" in error["message"]


# Streams


@promise("agents.live")
async def test_a_stream_gives_the_text_as_it_arrives(stage: Stage) -> None:
    text = "".join(f"word {number} " for number in range(40))
    model = Asked([text])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        stream = session.stream("Go")
        pieces = [piece async for piece in stream]
        return [pieces, (await stream.reply()).text]

    pieces, whole = result_of(await stage.run(work))
    assert len(pieces) > 3
    assert "".join(pieces) == whole == text


async def test_a_stream_of_a_replayed_run_gives_recorded_text_in_one_piece(stage: Stage) -> None:
    model = Asked(["x" * 100])
    reached, gate = asyncio.Event(), asyncio.Event()
    seen: list[list[str]] = []

    async def hold() -> None:
        reached.set()
        await gate.wait()

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent())).session()
        seen.append([piece async for piece in session.stream("Go")])
        await ctx.step("hold", hold)

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await reached.wait()
    gate.set()
    result_of(await stage.resume(run_id, work))
    assert (len(seen[0]), seen[1]) == (4, ["x" * 100])
    assert model.count == 1


async def test_a_stream_that_fails_raises_for_its_reader(stage: Stage) -> None:
    model = Asked([{"text": "Half", "error": "Gone."}])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        seen: list[str] = []
        try:
            async for piece in session.stream("Go"):
                seen.append(piece)  # noqa: PERF401  (a comprehension would lose them)
        except Exception as error:
            return [seen, str(error)]

    assert result_of(await stage.run(work)) == [["Half"], "Gone."]


@promise("agents.live")
async def test_text_arrives_live_between_the_request_and_the_turn(stage: Stage) -> None:
    model = Spoken("Once ", "upon ", "a time")

    async def work(ctx: Context) -> Any:
        agent = create_agent(lambda: {"model": model})
        return (await (await (await ctx.init(agent)).session()).prompt("Go")).text

    def delta(run_id: str, offset: int, text: str) -> TextDelta:
        return TextDelta(
            stream_id=run_id, turn_id="prompt/turn", attempt=1, offset=offset, text=text,
            about={"operation_id": "prompt", "session": "default"},
        )  # fmt: skip

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        await stage.until(run_id, "turn_request")
        assert await stage.types(run_id) == ["run_start", "operation_start", "turn_request"]
        early = LiveReader(engine.live, run_id)
        early.announce("prompt/turn")
        assert list(early.read()) == []
        await model.speak()
        assert early.read() == [delta(run_id, 0, "Once ")]
        await model.speak()
        assert early.read() == [delta(run_id, 5, "upon ")]
        assert early.read() == []
        late = LiveReader(engine.live, run_id)
        late.announce("prompt/turn")
        assert late.read() == [delta(run_id, 0, "Once upon ")]
        model.speak_all()
        run = await ended(engine, run_id)
        assert engine.live.turns(run_id) == ()
    assert result_of(run) == "Once upon a time"
    (turn,) = await stage.told(run_id, "turn")
    assert turn["text"] == "Once upon a time"
    assert "text_delta" not in await stage.types(run_id)


@promise("agents.live")
async def test_another_attempt_at_a_turn_starts_its_text_anew(stage: Stage, hasty: None) -> None:
    first, second = Spoken("Wrong", is_cut=True), Spoken("Right", " it is")
    models = iter([first, second])

    class InTurn(ScriptedModel):
        def stream(self, request: ModelRequest) -> Any:
            return next(models).stream(request)

    async def work(ctx: Context) -> Any:
        agent = create_agent(lambda: {"model": InTurn([])})
        return (await (await (await ctx.init(agent)).session()).prompt("Go")).text

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        await stage.until(run_id, "turn_request")
        reader = LiveReader(engine.live, run_id)
        reader.announce("prompt/turn")
        await first.speak()
        assert [(d.attempt, d.offset, d.text) for d in reader.read()] == [(1, 0, "Wrong")]
        first.speak_all()
        await stage.until(run_id, "turn_request", count=2)
        await second.speak()
        assert [(d.attempt, d.offset, d.text) for d in reader.read()] == [(2, 0, "Right")]
        second.speak_all()
        run = await ended(engine, run_id)
    assert result_of(run) == "Right it is"


# Providers that fail


async def test_a_provider_that_fails_is_asked_again_when_it_wants_to_be(stage: Stage) -> None:
    answers = iter(
        [{"error": {"message": "Too many.", "is_retryable": True, "retry_after_s": 0.01, "status": 429}}, "Fine."]
    )
    model = Asked(lambda request: next(answers))

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go")).text

    run = await stage.run(work)
    assert result_of(run) == "Fine."
    (retry,) = await stage.told(run.run_id, "step_retry")
    assert retry.pop("error")["message"] == "Too many."
    assert retry == {
        "operation_id": "prompt", "session": "default", "step": "prompt/turn", "name": "turn",
        "turn_id": "prompt/turn", "attempt": 1, "delay_s": 0.01,
    }  # fmt: skip
    assert [told["attempt"] for told in await stage.told(run.run_id, "turn_request")] == [1, 2]
    assert model.messages[0] == model.messages[1] == [user("Go")]


async def test_a_long_pause_that_a_provider_wants_is_a_wait_that_survives_a_restart(stage: Stage) -> None:
    """The run is waiting meanwhile; the second engine finds the time over, and goes on with the second attempt."""
    answers = iter(
        [{"error": {"message": "Busy.", "is_retryable": True, "retry_after_s": 300.0, "status": 529}}, "Fine."]
    )
    model = Asked(lambda request: next(answers))

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go")).text

    async with stage.interrupted(work) as run_id:
        await stage.until(run_id, "run_waiting")
    assert (await stage.journal.run(run_id)).status is RunStatus.WAITING  # type: ignore[union-attr]
    (wait,) = (await stage.journal.history(run_id)).waits
    assert (wait.key, wait.kind) == ("prompt/turn/pause-1", "timer")
    assert model.count == 1
    clock = MovableClock()
    clock.offset_us = 301 * 1_000_000
    run = await stage.resume(run_id, work, clock=clock)
    assert result_of(run) == "Fine."
    assert model.count == 2
    assert [told["attempt"] for told in await stage.told(run_id, "turn_request")] == [1, 2]


async def test_attempts_are_not_counted_anew_after_a_restart(stage: Stage) -> None:
    stage.set(agent={"model_retries": 2})
    reached, gate = asyncio.Event(), asyncio.Event()
    count = 0

    async def answer(request: ModelRequest) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            reached.set()
            await gate.wait()
        return {"error": {"message": f"Failure {count}.", "is_retryable": True, "retry_after_s": 0.0}}

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go")).text

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await reached.wait()
    gate.set()
    run = await stage.resume(run_id, work)
    assert error_of(run)["message"] == "Failure 4."
    # The one that was cut off by the restart is made again; there are three in all that count.
    assert [told["attempt"] for told in await stage.told(run_id, "turn_request")] == [1, 2, 2, 3]
    assert [told["attempt"] for told in await stage.told(run_id, "step_retry")] == [1, 2]


async def test_a_pause_that_is_too_long_to_be_waited_for_fails_at_once(stage: Stage) -> None:
    model = Asked([{"error": {"message": "Come back tomorrow.", "is_retryable": True, "retry_after_s": 86_400}}])

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go")

    assert error_of(await stage.run(work))["message"] == "Come back tomorrow."
    assert model.count == 1


async def test_a_provider_that_falls_silent_counts_as_failed(stage: Stage) -> None:
    stage.set(agent={"idle_timeout_s": 0.05, "model_retries": 0})
    model = Spoken("Half", " an answer")

    async def work(ctx: Context) -> None:
        agent = create_agent(lambda: {"model": model})
        await (await (await ctx.init(agent)).session()).prompt("Go")

    model.gates[0].set()
    error = error_of(await stage.run(work))
    message = "Model scripted/spoken sent nothing for 0.05 s. The limit is agent.idle_timeout_s."
    assert (error["type"], error["message"]) == ("model_failed", message)
    assert model.is_closed


async def test_a_stream_that_is_cut_off_is_asked_for_again(stage: Stage, hasty: None) -> None:
    models = iter([Spoken("Half", is_cut=True), Spoken("Whole")])

    class InTurn(ScriptedModel):
        def stream(self, request: ModelRequest) -> Any:
            model = next(models)
            model.speak_all()
            return model.stream(request)

    async def work(ctx: Context) -> Any:
        agent = create_agent(lambda: {"model": InTurn([])})
        return (await (await (await ctx.init(agent)).session()).prompt("Go")).text

    run = await stage.run(work)
    assert result_of(run) == "Whole"
    (retry,) = await stage.told(run.run_id, "step_retry")
    assert retry["error"]["message"] == "Model scripted/code broke its answer off."


async def test_a_refusal_is_an_error_and_no_part_of_the_conversation(stage: Stage) -> None:
    def answer(request: ModelRequest) -> Any:
        if request.messages[-1].text == "Bad":
            return ScriptedReply(text="I would rather not.", stop_reason=StopReason.REFUSAL)
        return "Fine."

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        try:
            await session.prompt("Bad")
        except Exception as error:
            refused = f"{type(error).__name__}: {error}"
        return [refused, (await session.prompt("Good")).text]

    run = await stage.run(work)
    assert result_of(run) == ["ModelRefused: Model scripted/code would not answer: I would rather not.", "Fine."]
    assert model.messages[-1] == [user("Good")]


async def test_an_answer_that_is_cut_off_is_continued(stage: Stage) -> None:
    model = Asked([
        {"text": "One two ", "stop_reason": "max_tokens", "usage": USAGE},
        {"text": "three ", "stop_reason": "max_tokens", "usage": USAGE},
        {"text": "four.", "usage": USAGE},
    ])  # fmt: skip

    async def work(ctx: Context) -> Any:
        reply = await (await (await ctx.init(model.agent())).session()).prompt("Count", max_tokens=10)
        return [reply.text, reply.turns, reply.usage.output_tokens]

    assert result_of(await stage.run(work)) == ["One two three four.", 3, 30]
    assert [request.max_tokens for request in model.requests] == [10, 10, 10]
    assert model.messages[1][-1].text.startswith("Your answer was cut off.")


async def test_an_answer_that_never_ends_is_not_continued_for_ever(stage: Stage) -> None:
    model = Asked(lambda request: {"text": "more ", "stop_reason": "max_tokens"})

    async def work(ctx: Context) -> Any:
        reply = await (await (await ctx.init(model.agent())).session()).prompt("Go")
        return [reply.text, reply.turns]

    assert result_of(await stage.run(work)) == ["more " * 9, 9]


async def test_a_paused_turn_is_taken_up_with_what_was_said(stage: Stage) -> None:
    answers = iter([{"text": "Searching. ", "stop_reason": "pause"}, "Found."])
    model = Asked(lambda request: next(answers))

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go")).turns

    assert result_of(await stage.run(work)) == 2
    assert model.messages[1] == [user("Go"), Message("assistant", (Text("Searching. "),))]


async def test_a_model_that_fails_is_stood_in_for(stage: Stage) -> None:
    broken = Asked([{"error": {"message": "Down.", "is_retryable": True, "status": 503}}], id="scripted/first")
    spare = Asked(["Here."], id="scripted/second")
    agent = create_agent(lambda: {"model": [broken.model, spare.model]})

    async def work(ctx: Context) -> Any:
        reply = await (await (await ctx.init(agent)).session()).prompt("Go")
        return [reply.text, reply.model]

    assert result_of(await stage.run(work)) == ["Here.", "scripted/second"]
    assert (broken.count, spare.count) == (1, 1)


async def test_a_workflow_may_return_the_reply_itself(stage: Stage) -> None:
    model = Asked(["Plain."])

    async def work(ctx: Context) -> Any:
        return await (await (await ctx.init(model.agent())).session()).prompt("Go")

    assert result_of(await stage.run(work)) == "Plain."
