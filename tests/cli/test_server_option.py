"""`--server`: the same commands, asked of a running server."""

from __future__ import annotations

import asyncio
import getpass
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from pyflue import codec
from tests.cli.cli_project import Cli, json_of, run_id_of, spawn, write_workflow
from tests.client.client_server import serving


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


def test_a_workflow_runs_on_the_server(project: Path, cli: Cli, server: str) -> None:
    answer = cli("run", "echo", "--payload", '{"a": 1}', "--tags", "t", "--server", server)
    assert (answer.exit_code, json_of(answer)) == (0, {"a": 1})
    record = json_of(cli("runs", "show", run_id_of(answer), "--server", server, "--json"))
    assert (record["tags"], record["request"]["method"]) == (["t"], "POST")


def test_a_failure_on_the_server_is_shown_like_one_here(project: Path, cli: Cli, server: str) -> None:
    answer = cli("run", "broken_inside", "--server", server)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.splitlines()[-1] == f"hint: pyflue logs {run_id_of(answer)}"


def test_refusals_of_the_server_end_with_their_exit_codes(project: Path, cli: Cli, server: str) -> None:
    assert cli("run", "none", "--server", server).exit_code == 3
    assert cli("run", "none", "--server", server, "--detach").exit_code == 3
    assert cli("run", "echo", "--server", "http://127.0.0.1:9", "--detach").exit_code == 3
    assert cli("run", "echo", "--server", "nonsense").exit_code == 2


def test_events_stream_from_the_server(project: Path, cli: Cli, server: str) -> None:
    answer = cli("run", "steps", "--stream", "--server", server, "--payload", '{"count": 1}')
    assert "10% step" not in answer.stderr
    assert "0% step 0" in answer.stderr
    run_id = run_id_of(answer)
    here = cli("logs", run_id, "--format", "ndjson")
    for options in ([], ["--follow"]):
        there = cli("logs", run_id, "--format", "ndjson", "--server", server, *options)
        assert there.stdout == here.stdout
    assert cli("logs", "workflow:x:1", "--server", server).exit_code == 3


def test_runs_of_the_server_are_listed_cancelled_retried_and_deleted(project: Path, cli: Cli, server: str) -> None:
    at_server = ("--server", server)
    run_id = cli("run", "waits", "--detach", *at_server).stdout.strip()
    assert cli("runs", "delete", run_id, *at_server).exit_code == 4
    cancelled = cli("runs", "cancel", run_id, *at_server, "--json")
    assert json_of(cancelled)["status"] == "cancelled"
    assert cli("runs", "cancel", run_id, *at_server).exit_code == 4
    again = cli("runs", "retry", run_id, "--detach", *at_server).stdout.strip()
    cli("runs", "cancel", again, *at_server)
    listed = json_of(cli("runs", "list", *at_server, "--json", "--status", "cancelled", "--since", "1h"))
    assert [run["run_id"] for run in listed["runs"]] == [again, run_id]
    assert cli("runs", "delete", run_id, *at_server).exit_code == 0
    assert cli("runs", "show", run_id, *at_server).exit_code == 3


def test_a_retry_on_the_server_is_followed_to_its_end(project: Path, cli: Cli, server: str) -> None:
    run_id = run_id_of(cli("run", "broken_inside", "--server", server))
    answer = cli("runs", "retry", run_id, "--server", server)
    assert answer.exit_code == 1
    assert run_id_of(answer) != run_id


ASKS = """
async def run(ctx):
    await ctx.step("prepare", lambda: 1)
    decision = await ctx.approve("ship", request={"order": 7})
    return [decision.approved, decision.by, await ctx.wait_for("paid")]
"""


def test_a_run_on_the_server_is_answered_and_forked_there(
    project: Path, cli: Cli, request: pytest.FixtureRequest
) -> None:
    write_workflow(project, "asks", ASKS)
    server = request.getfixturevalue("server")
    at_server = ("--server", server)
    process = spawn("run", "asks", *at_server, cwd=project)
    assert process.stderr is not None
    run_id = process.stderr.readline().split()[1]
    told = process.stderr.readline().rstrip()
    approval_id = json_of(cli("approvals", "list", *at_server, "--json"))["approvals"][0]["approval_id"]
    command = f"pyflue approvals approve {approval_id} --server {server}"
    assert told == f"run {run_id} waits for approval ship: {command}"
    assert command in cli("runs", "show", run_id, *at_server).stdout
    assert command in cli("approvals", "show", approval_id, *at_server).stderr
    assert cli(*command.split()[1:]).stderr == f"ship of run {run_id} is approved\n"
    assert cli("approvals", "reject", approval_id, *at_server).exit_code == 4

    assert process.stderr.readline().rstrip().endswith(f"pyflue signal {run_id} paid --server {server}")
    assert json_of(cli("signal", run_id, "paid", "--data", "3", *at_server, "--json"))["status"] == "delivered"
    stdout, _ = process.communicate(timeout=20)
    assert codec.load(stdout.encode()) == [True, getpass.getuser(), 3]

    assert "prepare" in cli("runs", "steps", run_id, *at_server).stdout
    forked = cli("runs", "fork", run_id, "--from", "ship", "--detach", *at_server).stdout.strip()
    assert json_of(cli("runs", "show", forked, *at_server, "--json"))["forked_from"] == run_id
    assert cli("runs", "fork", run_id, "--from", "none", *at_server).exit_code == 3


def test_where_the_server_has_tokens_the_token_decides(project: Path, cli: Cli, request: pytest.FixtureRequest) -> None:
    write_workflow(project, "asks", ASKS)
    (project / "pyflue.toml").write_text('[server]\ntoken = "a-token-of-the-project"\n', encoding="utf-8")
    at_server = ("--server", request.getfixturevalue("server"))
    process = spawn("run", "asks", *at_server, cwd=project)
    assert process.stderr is not None
    run_id = process.stderr.readline().split()[1]
    process.stderr.readline()  # what it waits for
    (found,) = json_of(cli("approvals", "list", *at_server, "--json"))["approvals"]
    approve = ("approvals", "approve", found["approval_id"], *at_server)
    assert cli(*approve, "--by", "somebody").exit_code == 2
    assert json_of(cli(*approve, "--json"))["decision"]["by"] == "server.token"
    assert json_of(cli("runs", "cancel", run_id, *at_server, "--json"))["waiting_for"] == []
    process.communicate(timeout=20)
    assert process.returncode == 1


def test_workflows_of_the_server_are_listed_and_shown(project: Path, cli: Cli, server: str) -> None:
    here = json_of(cli("workflows", "list", "--json"))["workflows"]
    there = json_of(cli("workflows", "list", "--json", "--server", server))["workflows"]
    assert [entry["name"] for entry in there] == [entry["name"] for entry in here]
    assert json_of(cli("workflows", "show", "echo", "--json", "--server", server))["name"] == "echo"


def test_a_queued_run_is_taken_up_by_a_server(project: Path, cli: Cli, server: str) -> None:
    run_id = cli("run", "echo", "--detach", "--payload", "[7]").stdout.strip()
    answer = cli("logs", run_id, "--follow")
    assert answer.stdout.splitlines()[-1].endswith("status=completed")
    assert json_of(cli("runs", "show", run_id, "--json"))["result"] == [7]


def test_a_run_of_the_server_is_cancelled_through_the_journal(project: Path, cli: Cli, server: str) -> None:
    run_id = cli("run", "waits", "--detach", "--server", server).stdout.strip()
    answer = cli("runs", "cancel", run_id)
    assert (answer.exit_code, answer.stderr) == (0, f"run {run_id} is cancelled\n")


def test_interrupting_cancels_the_run_on_the_server(project: Path, cli: Cli, server: str) -> None:
    process = spawn("run", "waits", "--stream", "--server", server, cwd=project)
    assert process.stderr is not None
    run_id = process.stderr.readline().split()[1]
    while "started" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (130, "")
    assert json_of(cli("runs", "show", run_id, "--json"))["status"] == "cancelled"


def test_the_token_of_the_settings_is_used(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (project / "pyflue.toml").write_text('[server]\ntoken = "a-token-of-the-project"\n', encoding="utf-8")
    server = request.getfixturevalue("server")
    assert cli("run", "echo", "--server", server).exit_code == 0
    monkeypatch.chdir("/")
    assert cli("runs", "list", "--server", server).exit_code == 4
    monkeypatch.setenv("PYFLUE_TOKEN", "a-token-of-the-project")
    assert cli("runs", "list", "--server", server).exit_code == 0


_CALLER = "a-token-that-may-only-run"


@pytest.fixture
def guarded(project: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A server whose token, as the command line has it, may start runs and nothing else."""
    tokens = f'[server]\ntokens = {{ caller = {{ token = "{_CALLER}", scopes = ["run"] }} }}\n'
    (project / "pyflue.toml").write_text(tokens, encoding="utf-8")
    server = request.getfixturevalue("server")
    (project / "pyflue.toml").write_text("", encoding="utf-8")
    monkeypatch.setenv("PYFLUE_TOKEN", _CALLER)
    return server


def test_a_token_that_may_only_run_gets_the_result(project: Path, cli: Cli, guarded: str) -> None:
    answer = cli("run", "echo", "--payload", '{"a": 1}', "--tags", "t", "--deadline", "60", "--server", guarded)
    assert (answer.exit_code, json_of(answer)) == (0, {"a": 1})
    assert json_of(cli("run", "echo", "--server", guarded, "--json"))["status"] == "completed"
    assert len(json_of(cli("runs", "list", "--json"))["runs"]) == 2


def test_a_token_that_may_only_run_is_told_of_a_failure(project: Path, cli: Cli, guarded: str) -> None:
    answer = cli("run", "broken_inside", "--server", guarded)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.splitlines()[-1] == f"hint: pyflue logs {run_id_of(answer)}"
    assert json_of(cli("run", "broken_inside", "--server", guarded, "--json"))["status"] == "failed"


def test_interrupting_says_if_the_token_may_not_cancel(project: Path, cli: Cli, guarded: str) -> None:
    process = spawn("run", "waits", "--stream", "--server", guarded, cwd=project)
    assert process.stderr is not None
    run_id = process.stderr.readline().split()[1]
    while "started" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"run {run_id} goes on: " in stderr
    cli("runs", "cancel", run_id)


def test_a_refusal_for_want_of_a_token_says_where_to_put_it(
    project: Path, cli: Cli, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYFLUE_TOKEN")
    answer = cli("run", "echo", "--server", guarded)
    assert answer.exit_code == 4
    assert "hint: Set the variable PYFLUE_TOKEN, or server.token in pyflue.toml." in answer.stderr


def test_following_ends_at_once_where_nobody_is(project: Path, cli: Cli) -> None:
    answer = cli("logs", "workflow:echo:1", "--follow", "--server", "http://127.0.0.1:9")
    assert answer.exit_code == 3
    assert "error: No answer from http://127.0.0.1:9" in answer.stderr
