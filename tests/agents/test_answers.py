"""Answers with data: any type, in a provider's schema mode and without one, repaired where they do not fit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from pyflue.agents.answers import END, START
from pyflue.agents.content import Text, ToolResult
from pyflue.agents.models.port import ModelRequest
from tests.engine.durable import Context, error_of, result_of
from tests.promises import promise

from .agent_runs import Asked, Stage, calls


class Ticket(BaseModel):
    """A ticket."""

    priority: Literal["low", "high"]
    tags: list[str] = []


@dataclass
class Point:
    x: int
    y: int = 0


TYPES: list[tuple[Any, Any, Any]] = [
    (Ticket, {"priority": "high", "tags": ["a"]}, Ticket(priority="high", tags=["a"])),
    (Point, {"x": 1}, Point(x=1)),
    (list[int], [1, 2, 3], [1, 2, 3]),
    (list[Ticket], [{"priority": "low"}], [Ticket(priority="low")]),
    (Literal["yes", "no"], "yes", "yes"),
    (int | None, None, None),
    (int | None, 4, 4),
    (dict[str, float], {"a": 0.5}, {"a": 0.5}),
    (str, "text", "text"),
    (bool, False, False),
]


def wrapped(annotation: Any, value: Any) -> Any:
    """What a provider's schema mode answers: always an object."""
    return value if isinstance(value, dict) else {"value": value}


def in_marks(value: Any) -> str:
    import json

    return f"Here it is.\n{START}\n{json.dumps(value)}\n{END}\nAnything else?"


async def test_every_type_comes_back_as_itself_from_a_schema_mode(stage: Stage) -> None:
    replies = [{"data": wrapped(annotation, value)} for annotation, value, _ in TYPES]
    await check_types(stage, Asked(lambda request: replies[_number(request)]))


async def test_every_type_comes_back_as_itself_from_between_the_marks(stage: Stage) -> None:
    texts = [in_marks(value) for _, value, _ in TYPES]
    model = Asked(lambda request: texts[_number(request)], has_schema_mode=False)
    await check_types(stage, model)
    first = model.requests[0]
    assert first.output_schema is None
    assert START in first.messages[-1].text
    assert '"priority"' in first.messages[-1].text


def _number(request: ModelRequest) -> int:
    return int(request.messages[0].text.split(" ")[0])


async def check_types(stage: Stage, model: Asked) -> None:
    """Each type in a session of its own, and the same again after a restart."""
    reached, gate = asyncio.Event(), asyncio.Event()
    given: list[list[Any]] = []

    async def hold() -> None:
        reached.set()
        await gate.wait()

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        replies: list[Any] = []
        for number, (annotation, _, _) in enumerate(TYPES):
            session = await harness.session(f"s{number}")
            replies.append(await session.prompt(f"{number} please", result=annotation))
        given.append([reply.data for reply in replies])
        await ctx.step("hold", hold)
        return [reply.model_dump() for reply in replies]

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(10):
            await reached.wait()
    gate.set()
    dumped = result_of(await stage.resume(run_id, work))
    wanted = [wanted for _, _, wanted in TYPES]
    assert given == [wanted, wanted]
    assert [type(data) for data in given[1]] == [type(data) for data in wanted]
    filled = [dict(value, y=0) if value == {"x": 1} else value for _, value, _ in TYPES]
    filled[3] = [{"priority": "low", "tags": []}]
    assert dumped == filled
    assert model.count == len(TYPES)


async def test_a_schema_mode_is_given_the_schema_of_an_object(stage: Stage) -> None:
    model = Asked([{"priority": "low"}, {"value": [1]}, "Plain."])

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent())).session()
        await session.prompt("A", result=Ticket)
        await session.prompt("B", result=list[int])
        await session.prompt("C")

    result_of(await stage.run(work))
    ticket, numbers, plain = (request.output_schema for request in model.requests)
    assert ticket is not None
    assert ticket["properties"]["priority"] == {"enum": ["low", "high"], "title": "Priority", "type": "string"}
    assert numbers == {
        "type": "object",
        "properties": {"value": {"items": {"type": "integer"}, "type": "array"}},
        "required": ["value"],
        "additionalProperties": False,
    }
    assert plain is None
    assert [request.messages[-1].text for request in model.requests] == ["A", "B", "C"]


@pytest.mark.parametrize("is_native", [True, False])
@promise("agents.answers")
async def test_data_that_does_not_fit_is_sent_back_with_what_is_wrong(stage: Stage, is_native: bool) -> None:
    values: list[Any] = [{"priority": "urgent"}, {"tags": 1}, {"priority": "high"}]
    answers = [{"data": value} if is_native else in_marks(value) for value in values]
    model = Asked(answers, has_schema_mode=is_native)

    async def work(ctx: Context) -> Any:
        reply = await (await (await ctx.init(model.agent())).session()).prompt("Go", result=Ticket)
        return [reply.data.priority, reply.turns]

    assert result_of(await stage.run(work)) == ["high", 3]
    first, second = (request.messages[-1].text for request in model.requests[1:])
    assert "- $.priority: Input should be 'low' or 'high'" in first
    assert "- $.priority: Field required" in second
    assert "- $.tags: Input should be a valid array" in second
    assert (START in first) == (not is_native)


@promise("agents.answers")
async def test_data_that_never_fits_ends_in_an_error_that_says_why(stage: Stage) -> None:
    model = Asked(lambda request: "I have no data.")

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent(answer_retries=5))).session()
        await session.prompt("Go", result=Ticket, retries=1)

    error = error_of(await stage.run(work))
    assert (error["type"], model.count) == ("result_unavailable", 2)
    assert error["message"] == (
        "The model gave no data of the wanted type in 2 attempts "
        "(the last: The answer is not valid JSON: invalid character (byte 0))."
    )
    assert error["details"]["text"] == "I have no data."


async def test_tools_can_be_used_before_the_answer(stage: Stage) -> None:
    model = Asked([calls(("write", {"path": "a", "content": "x"}), text="{}"), {"data": {"x": 1, "y": 2}}])

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go", result=Point)).model_dump()

    assert result_of(await stage.run(work)) == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1}',
        'Sure:\n```json\n{"x": 1}\n```',
        'Sure: {"x": 1}. Anything else?',
        f'{START}{{"x": 7}}{END} No, wait: {START}\n{{"x": 1}}\n{END}',
    ],
)
async def test_data_is_found_in_whatever_a_model_puts_around_it(stage: Stage, text: str) -> None:
    model = Asked([text], has_schema_mode=False)

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go", result=Point)).data.x

    assert result_of(await stage.run(work)) == 1


@pytest.mark.parametrize("text", ["{" * 5000, '{"x": NaN}', '{"x": 1e999}', "\ud800", f"{START}{{}}", ""])
async def test_hostile_data_is_only_data_that_does_not_fit(stage: Stage, text: str) -> None:
    answers = iter([text, '{"x": 1}'])
    model = Asked(lambda request: next(answers), has_schema_mode=False)

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go", result=Point)).data.x

    assert result_of(await stage.run(work)) == 1


async def test_an_empty_answer_does_not_make_the_model_forget_what_was_said(stage: Stage) -> None:
    answers = iter([calls({"name": "write", "input": {"path": "a", "content": "x"}, "id": "c1"}), "", '{"x": 1}'])
    model = Asked(lambda request: next(answers), has_schema_mode=False)

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go", result=Point)).data.x

    assert result_of(await stage.run(work)) == 1
    results, repair = model.messages[2][-1].blocks
    assert results == ToolResult(tool_use_id="c1", content=(Text("Wrote a"),))
    assert isinstance(repair, Text)
    assert repair.text.startswith("Your answer does not fit what was asked for:")


async def test_a_type_that_cannot_be_wanted_is_refused_before_a_model_is_asked(stage: Stage) -> None:
    model = Asked(["Never."])

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go", result=asyncio.Event)

    error_of(await stage.run(work))
    assert model.count == 0


async def test_a_reply_without_wanted_data_has_none(stage: Stage) -> None:
    model = Asked(["Text."])

    async def work(ctx: Context) -> Any:
        reply = await (await (await ctx.init(model.agent())).session()).prompt("Go")
        return [reply.data, reply.model_dump(), reply.to_dict()["text"]]

    assert result_of(await stage.run(work)) == [None, "Text.", "Text."]
