"""How `pyflue logs`, `runs` and `agents` show an agent's work to a person, and what a replay makes of it."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from pyflue.cli.waits import describe
from tests.agent_project import write_agents
from tests.cli.cli_project import Cli, json_of, run_id_of, write_workflow

CLERK = """
from pyflue import create_agent, tool
from pyflue.errors import PyFlueError

@tool(idempotent=True, parallel=False)
def stock(item: str) -> str:
    '''How much there is.'''
    with open("asked", "a") as file:
        file.write(f"{item} ")
    if item == "cow":
        raise KeyError("no\\x1b[31m cows")
    return "two\\nlamps " + "x" * 400

clerk = create_agent(lambda ctx: {"model": "scripted/clerk.json", "tools": [stock]})

async def run(ctx):
    session = await (await ctx.init(clerk)).session()
    reply = await session.prompt("Count the lamps.")
    return reply.text
"""
ANSWERS = """[
  {"text": "I look.", "tool_calls": [["stock", {"item": "lamp"}], ["stock", {"item": "cow"}]],
   "usage": {"input_tokens": 1200, "output_tokens": 30}},
  %s
]"""
_CHANGING = re.compile(r"^ +\d+  [\d:.]+  |(?<= in )[\d.]+ m?s\b")


@pytest.fixture
def clerk(project: Path) -> Path:
    write_workflow(project, "clerk", CLERK)
    (project / "clerk.json").write_text(ANSWERS % '"Two."', encoding="utf-8")
    return project


def lines_of(text: str) -> list[str]:
    """The lines without indexes, times and how long things took."""
    return [_CHANGING.sub("", line) for line in text.splitlines()]


def test_an_agents_work_is_lines_to_read(clerk: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "clerk"))
    # What scripted models use is counted if the script does not say it.
    usage = json_of(cli("runs", "show", run_id, "--json"))["usage"]
    last = f"{usage['input_tokens'] - 1200:,} tokens in, {usage['output_tokens'] - 30} out"
    whole = f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']} out"
    lines = lines_of(cli("logs", run_id).stdout)
    ends = [
        f'tool_end     prompt/turn/stock completed in  result="two\\nlamps {"x" * 190}…"',
        "tool_end     prompt/turn/stock#2 failed in  (KeyError) result=\"'no\\\\x1b[31m cows'\"",
    ]
    assert [line for line in lines if "run_" not in line] == [
        'operation_start prompt "Count the lamps."',
        "turn_request prompt/turn asks scripted/clerk.json",
        'turn         prompt/turn scripted/clerk.json in  (1,200 tokens in, 30 out) "I look." calls stock, stock',
        'tool_start   prompt/turn/stock {"item":"lamp"}',
        ends[0],
        'tool_start   prompt/turn/stock#2 {"item":"cow"}',
        ends[1],
        "turn_request prompt/turn#2 asks scripted/clerk.json",
        f'turn         prompt/turn#2 scripted/clerk.json in  ({last}) "Two."',
        f"operation    prompt completed in  (2 turns, {whole})",
    ]
    warned = lines_of(cli("logs", run_id, "--level", "warn").stdout)
    assert [line.split(" in ")[0] for line in warned] == ["tool_end     prompt/turn/stock#2 failed"]


def test_what_a_run_used_is_shown(clerk: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "clerk"))
    usage = json_of(cli("runs", "show", run_id, "--json"))["usage"]
    shown = cli("runs", "show", run_id).stdout.splitlines()
    assert f"used              {usage['input_tokens']:,} tokens in, {usage['output_tokens']} out" in shown
    assert not any(
        line.startswith("used") for line in cli("runs", "show", run_id_of(cli("run", "echo"))).stdout.splitlines()
    )


def test_steps_show_what_was_said_and_used(clerk: Path, cli: Cli) -> None:
    rows = cli("runs", "steps", run_id_of(cli("run", "clerk"))).stdout.splitlines()[1:]
    values = {row.split()[0]: re.split(r"\d m?s +", row.rstrip(), maxsplit=1)[1] for row in rows}
    assert values.pop("prompt/turn#2").startswith("scripted/clerk.json, ")
    assert values == {
        "prompt/turn": "scripted/clerk.json, 1,200 tokens in, 30 out",
        "prompt/turn/stock": f"two lamps {'x' * 49}…",
        "prompt/turn/stock#2": "failed: 'no\\x1b[31m cows'",
        "prompt": "Two.",
    }


def test_a_run_with_an_agent_is_replayed_without_asking_a_model_or_a_tool(clerk: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "clerk"))
    (clerk / "clerk.json").write_text("[]", encoding="utf-8")
    before = (clerk / "asked").read_text(encoding="utf-8")
    assert cli("runs", "replay", run_id).stdout == "same: 1 recorded call\n"
    assert (clerk / "asked").read_text(encoding="utf-8") == before
    write_workflow(
        clerk, "clerk", CLERK.replace("return reply.text", "return reply.text + (await session.prompt('x')).text")
    )
    answer = cli("runs", "replay", run_id)
    assert (answer.exit_code, answer.stdout) == (1, "differs at prompt#2: the prompt 'prompt#2' is not recorded\n")


def test_a_replay_of_a_run_that_ended_in_a_prompt_goes_as_far_as_that_prompt(clerk: Path, cli: Cli) -> None:
    (clerk / "clerk.json").write_text(ANSWERS % '{"error": "out of order"}', encoding="utf-8")
    run_id = run_id_of(cli("run", "clerk"))
    assert cli("runs", "replay", run_id).stdout == "same: 0 recorded calls\n"
    assert [line.split()[0] for line in lines_of(cli("logs", run_id, "--level", "error").stdout)] == [
        "error",
        "run_end",
    ]
    write_workflow(clerk, "clerk", CLERK.replace("session.prompt(", "session.skill("))
    assert cli("runs", "replay", run_id).exit_code == 1


def test_a_provider_that_does_not_answer_is_named_with_its_address_and_without_its_keys(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address.replace("//", "//me:pass-word@") + "/v?key=hidden")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "any")
        monkeypatch.setenv("PYFLUE_AGENT_MODEL_RETRIES", "0")
        write_workflow(project, "clerk", CLERK.replace("scripted/clerk.json", "anthropic/claude-haiku-4-5"))
        answer = cli("run", "clerk")
    assert answer.exit_code == 1
    assert f"no answer from the provider at {address}/v: " in answer.stderr
    assert "pass-word" not in answer.stderr
    assert "hidden" not in answer.stderr


def test_a_pause_before_a_model_is_asked_again_is_told_from_a_timer() -> None:
    timer = {"kind": "timer", "name": "pause-2", "due_at": "2026-11-21T12:00:00Z"}
    assert describe({**timer, "step": "prompt/turn#2/pause-2"}).startswith(
        "its model, which failed and is asked again "
    )
    assert describe({**timer, "step": "sleep"}).startswith("the time ")
    assert describe({**timer, "step": "return/pause-1"}).startswith("the time ")


def test_the_name_of_a_provider_is_not_imported(clerk: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (clerk / "innocent.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(clerk))
    for name in ("innocent/x", "/x"):
        monkeypatch.setenv("PYFLUE_MODEL", name)
        assert " failed: model_unknown: " in cli("run", "clerk").stderr


def test_a_conversation_shows_what_tools_answered(clerk: Path, cli: Cli) -> None:
    source = CLERK.partition("async def run")[0] + "agent = clerk\n"
    (clerk / "src/agents").mkdir(parents=True, exist_ok=True)
    (clerk / "src/agents/clerk.py").write_text(source, encoding="utf-8")
    assert cli("prompt", "--agent", "clerk", "--id", "ada", "Count the lamps.").stdout == "Two.\n"
    history = cli("agents", "history", "clerk", "ada").stdout.splitlines()
    assert [line for line in history if "tool_result" in line] == [
        f"· tool_result two lamps {'x' * 49}…",
        "· tool_result failed: 'no\\x1b[31m cows'",
    ]
    said = lines_of(cli("agents", "events", "clerk", "ada", "--types", "interaction_accepted,interaction_end").stdout)
    accepted, ended = said
    assert re.fullmatch(r'interaction_accepted prompt \([0-9A-Z]{26}\) "Count the lamps."', accepted)
    assert ended == "interaction_end status=completed"


def test_a_chat_with_nobody_ends_before_the_first_line(project: Path, cli: Cli) -> None:
    write_agents(project)
    answer = cli("agents", "chat", "nobody", stdin="")
    assert (answer.exit_code, answer.stdout) == (3, "")
    assert answer.stderr.startswith("error: There is no agent 'nobody'.\n")
    empty = cli("prompt", "--agent", "echo", "--id", "one", " ")
    assert (empty.exit_code, empty.stderr) == (
        2,
        "error: The payload does not fit agent 'echo': $.message: expected a text that is not empty.\n",
    )


def test_a_failed_run_says_where_and_what_to_do(clerk: Path, cli: Cli) -> None:
    write_workflow(clerk, "clerk", CLERK.replace("await session.prompt(", "await session.skill("))
    unknown = cli("run", "clerk")
    why = "There is no skill 'Count the lamps.'. The agent's skills: none."
    assert unknown.stderr.splitlines()[1:] == [
        f"error: Run {run_id_of(unknown)} failed: name_unknown: {why}",
        f"hint: Raised at src/workflows/clerk.py:18. pyflue logs {run_id_of(unknown)}",
    ]
    write_workflow(clerk, "clerk", "async def value(): ...\n\nasync def run(ctx):\n    value().close().text\n")
    assert "An `await` is missing" not in cli("run", "clerk").stderr
    later = "async def value(): ...\n\nasync def run(ctx):\n    made = value()\n    try:\n        made.text\n"
    write_workflow(clerk, "clerk", f"{later}    finally:\n        made.close()\n")
    missing = cli("run", "clerk")
    assert missing.stderr.splitlines()[-1] == f"hint: An `await` is missing there. pyflue logs {run_id_of(missing)}"
