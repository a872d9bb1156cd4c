"""Secrets that a model writes: the tools get them, and nobody reads them in what is recorded or shown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue import codec
from pyflue.agents import ToolContext, create_agent, define_tool, tool
from pyflue.agents.content import Message, Text
from pyflue.agents.models.port import ModelRequest
from pyflue.agents.redaction import LiveRedactor, redacted, restored, secrets_in
from pyflue.engine.live import LiveReader
from tests.engine.durable import Context, ended, result_of
from tests.promises import promise

from .agent_runs import Asked, Recording, Spoken, Stage, calls, dense, results_told

TOKEN = 't0p-5ecret"\\ü'
ENV = {"TOKEN": TOKEN}
SHOWN = "[secret TOKEN]"


def on_disk(root: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted((root / ".pyflue").glob("journal.db*")) if file.is_file())


def is_in(text: str, data: bytes) -> bool:
    """Whether a text is there, as it is or in JSON."""
    return any(form in data for form in (text.encode(), codec.encode(text)[1:-1]))


class Poster:
    """A tool that is to be given a token, and what it was given."""

    def __init__(self, **options: Any) -> None:
        self.given: list[Any] = []

        @tool(**options)
        async def post(to: dict[str, str], ctx: ToolContext) -> str:
            """Post something."""
            self.given.append(to)
            ctx.log.info(f"posting {to['key']}", to=to)
            ctx.progress(0.5, f"with {to['key']}")
            return f"posted with {to['key']}"

        self.tool = post
        self.model = Asked([calls(("post", {"to": {"key": TOKEN, TOKEN: f"<{TOKEN}>"}}), text=TOKEN), f"Done: {TOKEN}"])
        self.agent = self.model.agent(tools=[post], env=ENV)

    async def work(self, ctx: Context) -> str:
        session = await (await ctx.init(self.agent)).session()
        return (await session.prompt("Go", secrets=["TOKEN"])).text

    def check_given(self) -> None:
        assert self.given == [{"key": TOKEN, TOKEN: f"<{TOKEN}>"}]


@promise("agents.secrets", "F38")
async def test_a_tool_gets_the_secret_that_a_model_writes_and_no_record_does(tmp_path: Path) -> None:
    stage, poster = Stage(tmp_path), Poster()
    run = await stage.run(poster.work)
    poster.check_given()
    assert result_of(run) == f"Done: {SHOWN}"
    (start,) = await stage.told(run.run_id, "tool_start")
    assert start["arguments"] == {"to": {"key": SHOWN, SHOWN: f"<{SHOWN}>"}}
    (line,) = await stage.told(run.run_id, "log")
    assert line == {
        "to": {"key": SHOWN, SHOWN: f"<{SHOWN}>"}, "level": "info", "message": f"posting {SHOWN}",
    }  # fmt: skip
    (progress,) = await stage.told(run.run_id, "progress")
    assert progress["message"] == f"with {SHOWN}"
    # The model is shown its own call as it is recorded: the same before and after a restart.
    use = poster.model.requests[1].messages[1].tool_uses[0]
    assert use.input == {"to": {"key": SHOWN, SHOWN: f"<{SHOWN}>"}}
    assert results_told(poster.model.requests[1]) == [(f"posted with {SHOWN}", False)]
    await dense(stage.journal, run)
    await stage.close()
    assert not is_in(TOKEN, on_disk(tmp_path))


@promise("agents.secrets", "agents.resume")
async def test_a_tool_gets_the_secret_also_when_the_turn_was_recorded_before_a_crash(tmp_path: Path) -> None:
    stage, poster = Stage(tmp_path / "first"), Poster(idempotent=True)
    recording = Recording(stage.root, tmp_path / "crashes")
    run = await stage.run(poster.work)
    recording.end()
    await stage.close()
    for root in recording.crashes():
        again = Stage(root)
        resumed = Poster(idempotent=True)
        if await again.journal.run(run.run_id) is not None:
            ended_run = await again.resume(run.run_id, resumed.work)
            assert result_of(ended_run) == f"Done: {SHOWN}"
            assert resumed.given in ([], [{"key": TOKEN, TOKEN: f"<{TOKEN}>"}])
            assert "replay_drift" not in await again.types(run.run_id)
        await again.close()
        assert not is_in(TOKEN, on_disk(root))


@promise("agents.secrets", "agents.approval")
@pytest.mark.parametrize("decision", ["as it is", "changed"])
async def test_a_person_is_shown_the_name_of_a_secret_and_the_tool_gets_its_value(
    tmp_path: Path, decision: str
) -> None:
    stage, poster = Stage(tmp_path), Poster(requires_approval=True)
    async with stage.engine(poster.work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, poster.work)
        approval = await stage.approval(run_id)
        request = codec.load(codec.encode(approval.to_dict()))["request"]
        assert request["arguments"] == {"to": {"key": SHOWN, SHOWN: f"<{SHOWN}>"}}
        changed = {"tool": "post", "arguments": {"to": {"key": SHOWN, "a": "b"}}}
        data = changed if decision == "changed" else request
        await engine.decide(approval.wait.wait_id or "", approved=True, by="ada", data=data)
        run = await ended(engine, run_id)
    assert result_of(run) == f"Done: {SHOWN}"
    if decision == "changed":
        assert poster.given == [{"key": TOKEN, "a": "b"}]
        ((told, _),) = results_told(poster.model.requests[1])
        assert told.startswith("A person changed the arguments before the call: ")
    else:
        poster.check_given()
    await stage.close()
    assert not is_in(TOKEN, on_disk(tmp_path))


@promise("agents.secrets", "agents.approval")
async def test_a_secret_can_be_approved_where_its_name_would_not_fit(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    given: list[Any] = []
    key = {"type": "string", "pattern": "^t0p-", "maxLength": 14}
    schema = {"type": "object", "properties": {"key": key}, "required": ["key"]}
    post = define_tool("post", given.append, description="Post.", parameters=schema, requires_approval=True)
    model = Asked([calls(("post", {"key": TOKEN})), "Done."])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(tools=[post], env=ENV))).session()
        return (await session.prompt("Go", secrets=["TOKEN"])).text

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        approval = await stage.approval(run_id)
        await engine.decide(approval.wait.wait_id or "", approved=True, by="ada")
        run = await ended(engine, run_id)
    await stage.close()
    assert (result_of(run), given) == ("Done.", [{"key": TOKEN}])


@promise("agents.secrets", "agents.live")
async def test_a_secret_that_is_cut_by_the_pieces_it_arrives_in_is_not_shown_live(stage: Stage) -> None:
    model = Spoken("The key is t0p", '-5ecret"\\', "ü, or t0p", "py.", " t0p-5")
    heard: list[str] = []

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(create_agent(lambda: {"model": model, "env": ENV}))).session()
        stream = session.stream("Go", secrets=["TOKEN"])
        heard.extend([piece async for piece in stream])
        return (await stream.reply()).text

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        await stage.until(run_id, "turn_request")
        reader = LiveReader(engine.live, run_id)
        reader.announce("prompt/turn")
        shown: list[list[tuple[int, str]]] = []
        for _ in range(4):
            await model.speak()
            shown.append([(delta.offset, delta.text) for delta in reader.read()])
        model.speak_all()
        run = await ended(engine, run_id)
    # `t0p` might have been its beginning each time.
    assert shown == [[(0, "The key is ")], [], [(11, f"{SHOWN}, or ")], [(30, "t0ppy.")]]
    whole = f"The key is {SHOWN}, or t0ppy. t0p-5"
    assert "".join(heard) == result_of(run) == whole
    assert [turn["text"] for turn in await stage.told(run_id, "turn")] == [whole]


@promise("agents.secrets")
async def test_a_secret_that_is_cut_off_with_a_reply_is_in_no_answer(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    model = Asked([{"text": f"It is {TOKEN[:5]}", "stop_reason": "max_tokens"}, f"{TOKEN[5:]}."])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(env=ENV))).session()
        return (await session.prompt("Go", secrets=["TOKEN"])).text

    assert result_of(await stage.run(work)) == f"It is {SHOWN}."
    await stage.close()
    assert not is_in(TOKEN, on_disk(tmp_path))


@promise("agents.secrets")
async def test_a_task_that_a_model_gives_is_recorded_without_the_secret_in_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    def answer(request: ModelRequest) -> Any:
        if len(request.messages) == 1 and request.messages[0].text == "Go":
            return calls(("task", {"prompt": f"Use {TOKEN}"}))
        return "Done."

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(env=ENV))).session()
        return (await session.prompt("Go", secrets=["TOKEN"])).text

    assert result_of(await stage.run(work)) == "Done."
    assert model.requests[1].messages == [Message("user", (Text(f"Use {SHOWN}"),))]
    await stage.close()
    assert not is_in(TOKEN, on_disk(tmp_path))


async def test_what_was_not_granted_is_left_as_it_is(stage: Stage) -> None:
    poster = Poster()

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(poster.agent)).session()).prompt("Go")).text

    assert result_of(await stage.run(work)) == f"Done: {TOKEN}"
    poster.check_given()
    (use,) = poster.model.requests[1].messages[1].tool_uses
    assert use.input == {"to": {"key": TOKEN, TOKEN: f"<{TOKEN}>"}}


# The rules

_values = st.text(alphabet="ab", max_size=4)
_secrets = st.dictionaries(st.sampled_from(["ONE", "TWO", "THREE"]), _values, max_size=3)


@given(pieces=st.lists(st.text(alphabet="abc", max_size=6)), secrets=_secrets)
def test_text_in_pieces_comes_out_as_the_whole_does(pieces: list[str], secrets: dict[str, str]) -> None:
    redactor = LiveRedactor(secrets)
    shown = [*(redactor.add(piece) for piece in pieces), redactor.end()]
    assert "".join(shown) == redacted("".join(pieces), secrets)


@given(text=st.text(alphabet="abc"), secrets=_secrets)
def test_no_letter_of_a_value_is_left(text: str, secrets: dict[str, str]) -> None:
    covered = {
        at + offset
        for secret in secrets.values() if secret
        for at in range(len(text)) if text.startswith(secret, at)
        for offset in range(len(secret))
    }  # fmt: skip
    left = redacted(text, secrets)
    for name in secrets:
        left = left.replace(f"[secret {name}]", "")
    assert left == "".join(letter for at, letter in enumerate(text) if at not in covered)


@given(text=st.text(alphabet="abcde "))
def test_what_does_not_overlap_is_put_back_as_it_was(text: str) -> None:
    secrets = {"ONE": "abc", "TWO": "de"}
    value = {"text": [text, {text: 1}]}
    hidden = secrets_in(value, secrets)
    assert restored(redacted(value, secrets), hidden) == value
    assert set(hidden) == {name for name, secret in secrets.items() if secret in text}
