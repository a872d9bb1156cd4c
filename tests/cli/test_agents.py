"""`pyflue prompt` and `pyflue agents`, here and on a server."""

from __future__ import annotations

import asyncio
import getpass
import os
import pty
import re
import select
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from pyflue import codec
from tests.agent_project import write_agents
from tests.cli.cli_project import Cli, command_line, complete, json_of, spawn
from tests.client.client_server import serving


@pytest.fixture
def project(project: Path) -> Path:
    write_agents(project)
    return project


@pytest.fixture
def server(project: Path) -> Iterator[str]:
    """A server of the project in a thread of its own; commands have event loops of theirs."""
    ready: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def live() -> None:
        stop = asyncio.Event()
        try:
            async with serving(project) as url:
                ready.set_result((url, asyncio.get_running_loop(), stop))
                await stop.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    url, loop, stop = ready.result(20)
    yield url
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)


@pytest.fixture(params=["here", "there"])
def place(request: pytest.FixtureRequest) -> list[str]:
    """The options that say where a command asks."""
    return [] if request.param == "here" else ["--server", request.getfixturevalue("server")]


def test_agents_are_listed_and_shown(project: Path, cli: Cli, place: list[str]) -> None:
    agents = {agent["name"]: agent for agent in json_of(cli("agents", "list", "--json", *place))["agents"]}
    assert sorted(agents) == ["asks", "broken", "echo", "guarded"]
    assert agents["broken"]["error"]["type"] == "agent_invalid"
    assert "Says what it was told." in cli("agents", "list", *place).stdout
    cli("prompt", "hi", "--agent", "echo", "--id", "one", *place)
    shown = json_of(cli("agents", "show", "echo", "--json", *place))
    assert [found["instance_id"] for found in shown["instances"]] == ["one"]
    instance = json_of(cli("agents", "show", "echo", "one", "--json", *place))
    assert [found["session"] for found in instance["sessions"]] == ["default"]
    assert "default" in cli("agents", "show", "echo", "one", *place).stdout
    assert cli("agents", "show", "nobody", *place).exit_code == 3
    assert cli("agents", "show", "echo", "two", *place).exit_code == 3


def test_a_prompt_prints_the_answer_and_nothing_else(project: Path, cli: Cli, place: list[str]) -> None:
    for stream in ([], ["--stream"]):
        answer = cli("prompt", "hi", "--agent", "echo", *stream, *place)
        assert (answer.exit_code, answer.stdout) == (0, "You said 'hi'.\n")
    assert json_of(cli("agents", "show", "echo", "--json", *place))["instances"] == []
    (project / "question.txt").write_text("from a file", encoding="utf-8")
    answer = json_of(cli("prompt", "@question.txt", "--agent", "echo", "--id", "one", "--json", *place))
    assert (answer["status"], answer["result"]["text"]) == ("completed", "You said 'from a file'.")
    again = cli("prompt", "count", "--agent", "echo", "--id", "one", *place)
    assert again.stdout == "3\n"


def test_a_prompt_that_fails_says_why(project: Path, cli: Cli, place: list[str]) -> None:
    answer = cli("prompt", "fail", "--agent", "echo", *place)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "error: The provider is on fire." in answer.stderr
    told = json_of(cli("prompt", "fail", "--agent", "echo", "--json", *place))
    assert (told["status"], told["error"]["type"]) == ("failed", "model_failed")
    assert cli("prompt", "hi", "--agent", "nobody", *place).exit_code == 3
    assert cli("prompt", "hi", "--agent", "broken", *place).exit_code == 1
    assert cli("prompt", " ", "--agent", "echo", *place).exit_code == 2


def test_a_prompt_needs_no_agent_file(project: Path, cli: Cli) -> None:
    answer = cli("prompt", "hi", "--model", "scripted/hello")
    assert (answer.exit_code, answer.stdout.startswith("Hello!")) == (0, True)
    without = cli("prompt", "hi")
    assert (without.exit_code, without.stdout) == (2, "")
    assert "agent.model" in without.stderr
    assert cli("prompt", "hi", "--server", "http://127.0.0.1:9").exit_code == 2
    (project / "answers.json").write_text('["first", "second"]', encoding="utf-8")
    (project / "pyflue.toml").write_text('[agent]\nmodel = "scripted/answers.json"\n', encoding="utf-8")
    assert [cli("prompt", "hi", "--id", "me").stdout for _ in range(2)] == ["first\n", "second\n"]


def test_what_was_said_and_done_is_shown(project: Path, cli: Cli, place: list[str]) -> None:
    cli("prompt", "hi", "--agent", "echo", "--id", "one", *place)
    assert cli("agents", "history", "echo", "one", *place).stdout == "user\nhi\nassistant\nYou said 'hi'.\n"
    entries = json_of(cli("agents", "history", "echo", "one", "--json", *place))["entries"]
    assert [entry["position"] for entry in entries] == [1, 2]
    lines = cli("agents", "events", "echo", "one", "--json", "--after", "1", *place).stdout.splitlines()
    events = [codec.load(line.encode()) for line in lines]
    assert [event["index"] for event in events] == list(range(2, 8))
    ends = cli("agents", "events", "echo", "one", "--types", "interaction_end", *place).stdout
    assert "interaction_end" in ends
    assert len(ends.splitlines()) == 1
    assert cli("agents", "history", "echo", "one", "--session", "none", *place).exit_code == 3
    assert cli("agents", "events", "echo", "two", *place).exit_code == 3
    run_id = f"{events[0]['stream_id']}:{events[0]['interaction_id']}"
    assert json_of(cli("runs", "list", "--json", *place))["runs"] == []
    for command in (("runs", "show"), ("logs",), ("runs", "cancel"), ("runs", "delete"), ("runs", "retry")):
        assert cli(*command, run_id, *place).exit_code == 3


def test_control_characters_are_left_to_pipes_only(project: Path, cli: Cli) -> None:
    (project / "evil.json").write_text('["\\u001b]0;owned\\u0007 text"]', encoding="utf-8")
    arguments = ["prompt", "hi", "--model", "scripted/evil.json"]
    assert cli(*arguments).stdout == "\x1b]0;owned\x07 text\n"
    for stream in ([], ["--stream"]):
        shown = on_a_terminal(project, *arguments, *stream)
        assert "\x1b]0;owned" not in shown
        assert "\\x1b]0;owned\\x07 text" in shown


def test_a_dispatch_waits_for_a_server(project: Path, cli: Cli) -> None:
    answer = cli("agents", "dispatch", "echo", "one", "later")
    dispatch_id = answer.stdout.strip()
    assert answer.stderr.startswith("queued: ")
    receipt = json_of(cli("agents", "dispatch", "echo", "one", "count", "--json"))
    assert (receipt["status"], receipt["stream_id"]) == ("accepted", "agent:echo:one")
    assert cli("prompt", "hi", "--agent", "echo", "--id", "one").exit_code == 4

    async def served() -> None:
        from pyflue import PyFlueClient

        async with serving(project) as url, PyFlueClient(url) as client, asyncio.timeout(20):
            agent = client.agent("echo", "one")
            first = await agent.dispatch_status(dispatch_id, wait=True)
            second = await agent.dispatch_status(receipt["dispatch_id"], wait=True)
            assert [first["result"]["text"], second["result"]["text"]] == ["You said 'later'.", "3"]

    asyncio.run(served())


def test_a_dispatch_on_a_server_is_done(project: Path, cli: Cli, server: str) -> None:
    answer = cli("agents", "dispatch", "echo", "one", "hi", "--server", server)
    assert answer.exit_code == 0
    following = spawn("agents", "events", "echo", "one", "--follow", "--json", "--server", server, cwd=project)
    assert following.stdout is not None
    for line in following.stdout:
        if codec.load(line.encode())["type"] == "interaction_end":
            break
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=10)
    assert following.returncode == 130


def test_what_was_asked_of_an_instance_is_listed_and_shown(project: Path, cli: Cli, place: list[str]) -> None:
    for message in ("hi", "fail", "count"):
        cli("prompt", message, "--agent", "echo", "--id", "one", *place)
    page = json_of(cli("agents", "dispatches", "echo", "one", "--limit", "2", "--json", *place))
    assert [found["status"] for found in page["dispatches"]] == ["completed", "failed"]
    rest = json_of(cli("agents", "dispatches", "echo", "one", "--before", page["next"], "--json", *place))
    assert ([found["status"] for found in rest["dispatches"]], rest["next"]) == (["completed"], None)
    told = cli("agents", "dispatches", "echo", "one", "--limit", "2", *place)
    header, *lines = told.stdout.splitlines()
    assert header.split() == ["DISPATCH", "STATUS", "CREATED", "TOOK", "ERROR"]
    assert [line.split()[:2] for line in lines] == [
        [found["dispatch_id"], found["status"]] for found in page["dispatches"]
    ]
    assert lines[1].endswith("model_failed: The provider is on fire. (at src/agents/echo.py:18)")
    assert told.stderr == f"There are more; --before {page['next']} goes on from here.\n"
    failed = page["dispatches"][1]["dispatch_id"]
    record = json_of(cli("agents", "dispatches", "echo", "one", failed, "--json", *place))
    assert (record["dispatch_id"], record["kind"], record["status"]) == (failed, "prompt", "failed")
    assert "model_failed: The provider is on fire." in cli("agents", "dispatches", "echo", "one", failed, *place).stdout
    first = rest["dispatches"][0]["dispatch_id"]
    assert cli("agents", "dispatches", "echo", "one", first, *place).stdout.endswith("\nYou said 'hi'.\n")
    assert cli("agents", "dispatches", "echo", "two", *place).exit_code == 3
    assert cli("agents", "dispatches", "echo", "one", "0" * 26, *place).exit_code == 3
    assert cli("agents", "dispatches", "echo", "one", "x", *place).exit_code == 3
    assert cli("agents", "dispatches", "echo", "one", "--before", "x").exit_code == 2


def test_a_dispatch_is_cancelled(project: Path, cli: Cli, place: list[str]) -> None:
    cli("agents", "dispatch", "echo", "one", "gate", *place)
    dispatch_id = cli("agents", "dispatch", "echo", "one", "hi", *place).stdout.strip()
    answer = cli("agents", "cancel", "echo", "one", dispatch_id, *place)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert answer.stderr == f"dispatch {dispatch_id} is cancelled\n"
    page = json_of(cli("agents", "dispatches", "echo", "one", "--json", *place))
    assert page["dispatches"][0]["status"] == "cancelled"
    again = cli("agents", "cancel", "echo", "one", dispatch_id, *place)
    assert (again.exit_code, "is already cancelled" in again.stderr) == (4, True)
    assert cli("agents", "cancel", "echo", "one", "0" * 26, *place).exit_code == 3
    assert cli("agents", "cancel", "echo", "two", dispatch_id, *place).exit_code == 3
    gate = page["dispatches"][1]["dispatch_id"]
    told = json_of(cli("agents", "cancel", "echo", "one", gate, "--json", *place))
    assert told["dispatch_id"] == gate


def test_a_chat_goes_on_line_by_line(project: Path, cli: Cli, place: list[str]) -> None:
    answer = cli("agents", "chat", "echo", "one", *place, stdin="hi\n\nfail\ncount\n")
    assert answer.exit_code == 0
    assert answer.stdout == "You said 'hi'.\n3\n"
    assert "The provider is on fire." in answer.stderr
    told = cli("agents", "chat", "echo", "two", "--json", *place, stdin="hi\nfail\n").stdout.splitlines()
    assert [codec.load(line.encode())["status"] for line in told] == ["completed", "failed"]


def test_ctrl_c_aborts_an_answer_and_a_second_one_ends_the_chat(project: Path) -> None:
    with Terminal(project, "agents", "chat", "echo", "one") as terminal:
        terminal.read_until("> ")
        terminal.write("gate\n")
        terminal.read_until("so far, ")
        terminal.write("\x03")
        terminal.read_until("aborted")
        terminal.read_until("> ")
        terminal.write("hi\n")
        terminal.read_until("You said 'hi'.")
        terminal.read_until("> ")
        terminal.write("\x03")
        assert terminal.wait() == 0


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_chat_asks_whether_a_tool_may_be_called(project: Path, cli: Cli, place: list[str], answer: str) -> None:
    with Terminal(project, "agents", "chat", "asks", "one", *place) as terminal:
        terminal.read_until("> ")
        terminal.write("pay\n")
        terminal.read_until('approve pay {"amount":7}? [y/n] ')
        terminal.write("what?\n")
        terminal.read_until("y or n? ")
        terminal.write(f"{answer}\n")
        terminal.read_until("reason (Enter for none): ")
        terminal.write("just because\n")
        terminal.read_until("It is paid.")
        terminal.read_until("> ")
        terminal.write("\x04")
        assert terminal.wait() == 0
    state = {"y": "approved", "n": "rejected"}[answer]
    (approval,) = json_of(cli("approvals", "list", "--state", state, "--json"))["approvals"]
    assert (approval["decision"]["approved"], approval["decision"]["reason"]) == (answer == "y", "just because")
    assert approval["decision"]["by"] == getpass.getuser()
    (result,) = re.findall(r'result="(.*)"', cli("agents", "events", "asks", "one", "--types", "tool_end").stdout)
    assert (
        result
        == {"y": "paid {'amount': 7}", "n": "This call was rejected by a person and not made: just because"}[answer]
    )


def test_ctrl_c_at_the_question_aborts_the_answer(project: Path, cli: Cli) -> None:
    with Terminal(project, "agents", "chat", "asks", "one") as terminal:
        terminal.read_until("> ")
        terminal.write("pay\n")
        terminal.read_until("[y/n] ")
        terminal.write("\x03")
        terminal.read_until("aborted")
        terminal.read_until("> ")
        terminal.write("\x03")
        assert terminal.wait() == 0
    (approval,) = json_of(cli("approvals", "list", "--state", "cancelled", "--json"))["approvals"]
    assert approval["name"] == "pay"


def test_a_question_can_be_left_to_somebody_else(project: Path, cli: Cli, place: list[str]) -> None:
    with Terminal(project, "agents", "chat", "asks", "one", *place) as terminal:
        terminal.read_until("> ")
        terminal.write("pay\n")
        terminal.read_until("[y/n] ")
        terminal.write("\x04")
        terminal.read_until("left open; it can still be decided: pyflue approvals approve ")
        (approval,) = json_of(cli("approvals", "list", "--json"))["approvals"]
        assert cli("approvals", "approve", approval["approval_id"]).exit_code == 0
        terminal.read_until("It is paid.")


def test_a_question_goes_away_when_somebody_else_decides(project: Path, cli: Cli) -> None:
    with Terminal(project, "agents", "chat", "asks", "one") as terminal:
        terminal.read_until("> ")
        # What is typed before it is asked does not count as its answer.
        terminal.write("pay\ny\n")
        terminal.read_until("[y/n] ")
        (approval,) = json_of(cli("approvals", "list", "--json"))["approvals"]
        assert cli("approvals", "reject", approval["approval_id"]).exit_code == 0
        terminal.read_until("decided elsewhere")
        terminal.read_until("It is paid.")
        terminal.read_until("> ")


def test_nobody_is_asked_where_there_is_no_terminal(project: Path, cli: Cli) -> None:
    chatting = subprocess.Popen(
        command_line(("agents", "chat", "asks", "one")), cwd=project, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert chatting.stdin is not None
    assert chatting.stderr is not None
    chatting.stdin.write("pay\n")
    chatting.stdin.flush()
    told = next(line for line in chatting.stderr if line.startswith("· waits for an approval: "))
    assert cli("approvals", "approve", told.split()[-1]).exit_code == 0
    out, _ = chatting.communicate("", timeout=20)
    assert (chatting.returncode, out) == (0, "It is paid.\n")


def test_ctrl_d_ends_the_chat(project: Path) -> None:
    with Terminal(project, "agents", "chat", "echo") as terminal:
        terminal.read_until("> ")
        terminal.write("\x04")
        assert terminal.wait() == 0


def test_ctrl_c_aborts_a_prompt(project: Path, cli: Cli) -> None:
    asking = spawn("prompt", "gate", "--agent", "echo", "--id", "one", "--stream", cwd=project)
    assert asking.stdout is not None
    assert asking.stdout.read(7) == "so far,"
    asking.send_signal(signal.SIGINT)
    _, told = asking.communicate(timeout=20)
    assert (asking.returncode, "aborted" in told) == (130, True)
    last = cli("agents", "events", "echo", "one", "--types", "interaction_end").stdout
    assert "cancelled" in last


def test_names_of_agents_complete_without_importing_them(project: Path) -> None:
    (project / "src/agents/loud.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    assert complete(project, "pyflue agents chat l") == ["loud"]
    assert complete(project, "pyflue prompt hi --agent e") == ["echo"]


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, project: Path, *arguments: str) -> None:
        self._own, child = pty.openpty()
        environ = {**os.environ, "NO_COLOR": "1", "TERM": "xterm"}
        self._process = subprocess.Popen(
            command_line(arguments), cwd=project, env=environ, stdin=child, stdout=child, stderr=child,
            preexec_fn=_own_terminal,
        )  # fmt: skip
        os.close(child)
        self._seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *args: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._own)

    def write(self, text: str) -> None:
        os.write(self._own, text.encode())

    def read_until(self, text: str) -> None:
        while text not in self._seen:
            ready, _, _ = select.select([self._own], [], [], 20)
            assert ready, f"no {text!r} after {self._seen!r}"
            self._seen += os.read(self._own, 1024).decode(errors="replace")
        self._seen = self._seen.partition(text)[2]

    def wait(self) -> int:
        return self._process.wait(20)


def _own_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_a_terminal(project: Path, *arguments: str) -> str:
    """What a command writes on a terminal."""
    own, child = pty.openpty()
    process = subprocess.Popen(
        command_line(arguments), cwd=project, stdin=subprocess.DEVNULL, stdout=child, stderr=child
    )
    os.close(child)
    seen = b""
    try:
        while chunk := os.read(own, 4096):
            seen += chunk
    except OSError:
        pass  # Linux says so when the other side is closed
    assert process.wait(20) == 0
    os.close(own)
    return seen.decode()
