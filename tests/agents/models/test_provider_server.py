"""The server of the tests, where the adapters do not look: answers that are not streamed, and a start by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import anthropic
import openai
import pytest

from pyflue.agents.content import Usage
from tests.provider_server import Answer, Script, ToolCall, provider_server

ROOT = Path(__file__).parents[3]
ANSWER = Answer(
    text="I look.",
    thinking="Where?",
    tool_calls=[ToolCall(name="read", input={"path": "a"}, id="call_1")],
    usage=Usage(input_tokens=100, output_tokens=7, cache_read_tokens=60, cache_write_tokens=30),
)


async def test_the_libraries_understand_answers_that_are_not_streamed() -> None:
    async with (
        provider_server([ANSWER]) as server,
        anthropic.AsyncAnthropic(api_key="k", base_url=server.anthropic_url) as claude,
        openai.AsyncOpenAI(api_key="k", base_url=server.openai_url) as gpt,
    ):
        hi = {"role": "user", "content": "Hi"}
        message = await claude.messages.create(model="claude-x", max_tokens=9, messages=[hi])  # pyright: ignore[reportArgumentType]
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (10, 60)
        completion = await gpt.chat.completions.create(model="gpt-x", messages=[hi])  # pyright: ignore[reportArgumentType]
        assert completion.choices[0].finish_reason == "tool_calls"
        assert completion.usage is not None
        assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (100, 107)


async def test_the_libraries_put_streamed_answers_together() -> None:
    async with (
        provider_server([ANSWER]) as server,
        anthropic.AsyncAnthropic(api_key="k", base_url=server.anthropic_url) as claude,
        openai.AsyncOpenAI(api_key="k", base_url=server.openai_url) as gpt,
    ):
        hi = {"role": "user", "content": "Hi"}
        async with claude.messages.stream(model="claude-x", max_tokens=9, messages=[hi]) as stream:  # pyright: ignore[reportArgumentType]
            message = await stream.get_final_message()
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert message.content[2].input == {"path": "a"}  # pyright: ignore[reportAttributeAccessIssue]
        async with gpt.chat.completions.stream(model="gpt-x", messages=[hi]) as stream:  # pyright: ignore[reportArgumentType]
            completion = await stream.get_final_completion()
        calls = completion.choices[0].message.tool_calls
        assert calls is not None
        assert calls[0].function.arguments == '{"path":"a"}'


async def test_a_script_may_follow_the_conversation() -> None:
    script = Script(["first", "second"], by="conversation")
    hi = {"role": "user", "content": "Hi"}
    assert [script.answer(n, {"messages": [hi]}).text for n in range(3)] == ["first"] * 3
    said = {"role": "assistant", "content": "first"}
    assert script.answer(0, {"messages": [hi, said, hi]}).text == "second"
    assert script.answer(0, {"messages": [hi, said, hi, said, hi]}).text == "second"


def test_a_script_in_a_file_has_no_fields_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match=r"has no \['txt'\]"):
        Script.from_json([{"txt": "x"}])


async def test_it_can_be_started_by_hand(tmp_path: Path) -> None:
    script = tmp_path / "answers.json"
    script.write_text(json.dumps([{"text": "By hand.", "tool_calls": [{"name": "read"}]}]), encoding="utf-8")
    record = tmp_path / "requests.jsonl"
    command = [sys.executable, "-m", "tests.provider_server", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--script", str(script), "--record", str(record)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.to_thread(process.stdout.readline)).strip()
        async with asyncio.timeout(20), anthropic.AsyncAnthropic(api_key="k", base_url=url) as claude:
            hi = {"role": "user", "content": "Hi"}
            message = await claude.messages.create(model="claude-x", max_tokens=9, messages=[hi])  # pyright: ignore[reportArgumentType]
        assert message.content[0].text == "By hand."  # pyright: ignore[reportAttributeAccessIssue]
        [line] = record.read_text("utf-8").splitlines()
        assert json.loads(line)["body"]["messages"] == [hi]
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
