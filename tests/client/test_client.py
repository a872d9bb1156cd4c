"""`PyFlueClient` against a real server: workflows, runs, errors."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyflue.errors
from pyflue import PyFlueClient, PyFlueError
from pyflue.client.answers import error_from
from pyflue.errors import (
    Forbidden,
    IdempotencyConflict,
    PayloadInvalid,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunNotFinished,
    RunNotFound,
    ServerAnswered,
    SettingsInvalid,
    Unauthorized,
    Unreachable,
    WorkflowNotFound,
)
from tests.client.client_server import a_client, collect, indexes, port_of, serving
from tests.promises import promise

RUN_ID = re.compile(r"workflow:echo:[0-9A-HJKMNP-TV-Z]{26}")


@promise("guide.run.accepted")
async def test_an_invocation_is_accepted_with_its_run_id(client: PyFlueClient) -> None:
    answer = await client.workflows.invoke("echo", {"a": 1})
    assert set(answer) == {"status", "run_id"}
    assert answer["status"] == "accepted"
    assert RUN_ID.fullmatch(answer["run_id"])


@promise("guide.run.client", "guide.run.wait")
async def test_a_waited_invocation_brings_its_result(client: PyFlueClient) -> None:
    answer = await client.workflows.invoke("echo", {"a": [1, None, "ü"]}, wait=True)
    assert answer == {"status": "completed", "run_id": answer["run_id"], "result": {"a": [1, None, "ü"]}}


async def test_the_payload_is_any_json_value_and_an_empty_object_if_none_is_given(client: PyFlueClient) -> None:
    @dataclasses.dataclass
    class Order:
        number: int

    for sent, received in [(None, None), ([1], [1]), ("x", "x"), (Order(number=2), {"number": 2})]:
        assert (await client.workflows.invoke("echo", sent, wait=True))["result"] == received
    assert (await client.workflows.invoke("echo", wait=True))["result"] == {}


async def test_waiting_goes_on_when_the_server_answers_before_the_run_has_ended(root: Path) -> None:
    async with serving(root, wait_s=0.01) as url, a_client(url) as client:
        answer = await client.workflows.invoke("slow", {"seconds": 0.2}, wait=True)
        assert (answer["status"], answer["result"]) == ("completed", "slept")
        with pytest.raises(RunFailed):
            await client.workflows.invoke("slow", {}, wait=True)


async def test_a_wait_outlasts_a_restart_of_the_server(root: Path) -> None:
    payload = {"file": str(root / "open")}
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        async with serving(root) as url:
            client = a_client(url)
            waiting = tasks.create_task(client.workflows.invoke("gate", payload, wait=True))
            while not (runs := (await client.runs.list(workflow="gate", status="running"))["runs"]):
                pass
        (root / "open").touch()
        async with serving(root, port=port_of(url)):
            answer = await waiting
        await client.close()
    assert answer == {"status": "completed", "run_id": runs[0]["run_id"], "result": "open"}


async def test_workflows_are_listed_and_shown_with_their_schemas(client: PyFlueClient) -> None:
    listed = {entry["name"]: entry for entry in await client.workflows.list()}
    assert {"echo", "typed"} <= set(listed)
    assert listed["echo"]["description"] == "Give back what came."
    shown = await client.workflows.get("typed")
    assert shown["input_schema"]["required"] == ["id"]


async def test_an_unknown_workflow_is_a_typed_error(client: PyFlueClient) -> None:
    with pytest.raises(WorkflowNotFound) as raised:
        await client.workflows.invoke("ecco")
    error = raised.value
    assert (error.type, error.status, error.run_id) == ("workflow_not_found", 404, None)
    assert "ecco" in error.message


async def test_a_payload_that_does_not_fit_says_where(client: PyFlueClient) -> None:
    with pytest.raises(PayloadInvalid) as raised:
        await client.workflows.invoke("typed", {"id": "x"})
    assert raised.value.status == 422
    assert raised.value.details[0]["path"] == "$.id"


async def test_a_failed_run_is_an_error_that_knows_its_run(client: PyFlueClient) -> None:
    with pytest.raises(RunFailed) as raised:
        await client.workflows.invoke("fails", wait=True)
    error = raised.value
    assert (error.type, error.status) == ("run_failed", 500)
    assert error.error["type"] == "exception"
    assert "secret text" not in str(error)
    record = await client.runs.get(str(error.run_id))
    assert (record["status"], record["error"]["message"]) == ("failed", "secret text")


async def test_an_error_that_an_author_chose_arrives_as_chosen(root: Path) -> None:
    for wait_s in (60, 0):
        async with serving(root, wait_s=wait_s) as url, a_client(url) as client:
            with pytest.raises(ServerAnswered) as raised:
                await client.workflows.invoke("refuses", wait=True)
            error = raised.value
            assert (error.type, error.status, error.details) == ("quota", 429, {"left": 0})
            assert error.message == "The quota is used up."
            assert error.run_id is not None


@promise("F18")
async def test_the_same_idempotency_key_finds_the_same_run(client: PyFlueClient) -> None:
    first = await client.workflows.invoke("echo", {"a": 1}, idempotency_key="k")
    again = await client.workflows.invoke("echo", {"a": 1}, idempotency_key="k", wait=True)
    assert again["run_id"] == first["run_id"]
    with pytest.raises(IdempotencyConflict):
        await client.workflows.invoke("echo", {"a": 2}, idempotency_key="k")


async def test_runs_are_listed_newest_first_page_by_page(client: PyFlueClient) -> None:
    made = [(await client.workflows.invoke("echo", n, wait=True, tags=["t", f"n{n}"]))["run_id"] for n in range(5)]
    await client.workflows.invoke("typed", {"id": 1}, wait=True)
    listed: list[str] = []
    cursor = None
    while True:
        page = await client.runs.list(workflow="echo", status=["completed", "failed"], tag="t", limit=2, cursor=cursor)
        listed += [run["run_id"] for run in page["runs"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert listed == made[::-1]
    tagged = await client.runs.list(tag=["t", "n3"])
    assert [run["run_id"] for run in tagged["runs"]] == [made[3]]


async def test_events_are_read_by_pages_and_types(client: PyFlueClient) -> None:
    run_id = (await client.workflows.invoke("chatty", {"count": 5}, wait=True))["run_id"]
    page = await client.runs.events(run_id, limit=3)
    assert indexes(page["events"]) == [1, 2, 3]
    rest = await client.runs.events(run_id, after=page["next_after"])
    assert indexes(rest["events"]) == [4, 5, 6, 7]
    ends = await client.runs.events(run_id, types=["run_start", "run_end"])
    assert indexes(ends["events"]) == [1, 7]


async def test_a_run_is_cancelled_retried_and_deleted(client: PyFlueClient) -> None:
    run_id = (await client.workflows.invoke("slow", {"seconds": 3600}))["run_id"]
    with pytest.raises(RunNotFinished):
        await client.runs.delete(run_id)
    assert (await client.runs.cancel(run_id))["status"] == "cancelled"
    with pytest.raises(RunFinished) as raised:
        await client.runs.cancel(run_id)
    assert (raised.value.status, raised.value.details) == (409, {"status": "cancelled"})
    again = await client.runs.retry(run_id)
    assert again["status"] == "accepted"
    assert (await client.runs.get(again["run_id"]))["retried_from"] == run_id
    await client.runs.cancel(again["run_id"])
    await client.runs.delete(run_id)
    with pytest.raises(RunNotFound):
        await client.runs.get(run_id)


async def test_a_run_that_is_cancelled_tells_those_who_wait(client: PyFlueClient) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_raised(client.workflows.invoke("slow", {"seconds": 3600}, wait=True)))
        while not (runs := (await client.runs.list(workflow="slow", status="running"))["runs"]):
            pass
        await client.runs.cancel(runs[0]["run_id"])
    error = waiting.result()
    assert isinstance(error, RunCancelled)
    assert error.run_id == runs[0]["run_id"]


async def test_a_deadline_ends_a_run(client: PyFlueClient) -> None:
    with pytest.raises(PyFlueError) as raised:
        await client.workflows.invoke("slow", {"seconds": 3600}, wait=True, deadline_s=0.05)
    record = await client.runs.get(str(raised.value.run_id))
    assert record["error"]["type"] == "deadline_exceeded"


async def test_health_says_that_the_server_is_well(client: PyFlueClient) -> None:
    assert (await client.health())["ok"] is True


@promise("F46")
async def test_the_token_comes_from_the_environment_or_the_caller(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "a-token-of-the-tests"
    async with serving(root, token=token) as url:
        async with a_client(url) as nobody:
            with pytest.raises(Unauthorized) as raised:
                await nobody.workflows.invoke("echo")
            assert raised.value.status == 401
        async with a_client(url, token=token[:-1]) as wrong:
            with pytest.raises(Unauthorized):
                await wrong.runs.list()
        async with a_client(url, token=token) as known:
            assert (await known.workflows.invoke("echo", 1, wait=True))["result"] == 1
        monkeypatch.setenv("PYFLUE_TOKEN", token)
        async with a_client(url) as from_environment:
            assert (await from_environment.workflows.invoke("echo", 2, wait=True))["result"] == 2


async def test_a_token_without_the_scope_is_told_so(root: Path) -> None:
    (root / "pyflue.toml").write_text(
        '[server.tokens]\nreader = { token = "a-token-that-reads", scopes = ["read"] }\n', encoding="utf-8"
    )
    async with serving(root) as url, a_client(url, token="a-token-that-reads") as client:
        await client.runs.list()
        with pytest.raises(Forbidden) as raised:
            await client.workflows.invoke("echo")
        assert raised.value.details == {"scope": "run"}


async def test_where_nothing_listens_nothing_is_reachable(unused_port: int) -> None:
    async with PyFlueClient(f"http://127.0.0.1:{unused_port}", reconnect_s=0.2) as client:
        with pytest.raises(Unreachable, match=f"127.0.0.1:{unused_port}"):
            await client.health()
        with pytest.raises(Unreachable):
            await collect(client.workflows.stream("echo"))
        with pytest.raises(Unreachable):
            await collect(client.runs.stream("workflow:echo:1"))
        with pytest.raises(Unreachable):
            async with client.workflows.connect("echo"):
                pass


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oh\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 404 No\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
async def test_another_program_at_the_address_is_told_apart(answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as stranger:
        url = f"http://127.0.0.1:{stranger.sockets[0].getsockname()[1]}"
        async with a_client(url) as client:
            with pytest.raises(ServerAnswered) as raised:
                await client.health()
            assert raised.value.status == int(answer.split()[1])
            with pytest.raises(ServerAnswered):
                await collect(client.runs.stream("workflow:x:1"))
            with pytest.raises(ServerAnswered):
                async with client.workflows.connect("x"):
                    pass


@pytest.mark.parametrize("url", ["127.0.0.1:2024", "ftp://host", "http://", "http://host?x=1", ""])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="expected something like"):
        PyFlueClient(url)


def test_a_token_that_no_header_can_hold_is_refused_at_once() -> None:
    for token in ("a\nb", "ü"):
        with pytest.raises(SettingsInvalid):
            PyFlueClient("http://127.0.0.1:1", token=token)


def test_every_type_of_error_comes_back_as_its_class() -> None:
    for name, cls in vars(pyflue.errors).items():
        if isinstance(cls, type) and issubclass(cls, PyFlueError) and cls is not PyFlueError:
            error = error_from(418, {"type": cls.type, "message": "m", "details": {"d": 1}, "run_id": "r"})
            assert isinstance(error, cls) or cls.type == cls.__mro__[1].type, name
            assert (error.type, error.status, error.message, error.details, error.run_id, error.hint) == (
                cls.type,
                418,
                "m",
                {"d": 1},
                "r",
                None,
            )


def test_importing_the_client_imports_no_http_library() -> None:
    code = (
        "import sys; from pyflue import PyFlueClient; PyFlueClient('http://127.0.0.1:1');"
        "print([name for name in ('httpx2', 'websockets', 'pydantic', 'starlette') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


async def _raised(work) -> BaseException | None:
    try:
        await work
    except PyFlueError as error:
        return error
    return None


@pytest.mark.parametrize("tags", ["nightly", ["a,b"], [""], ["x" * 129], [str(number) for number in range(51)]])
async def test_tags_that_no_server_takes_are_refused_here(client: PyFlueClient, tags: list[str]) -> None:
    with pytest.raises(PyFlueError, match="tags=") as caught:
        await client.workflows.invoke("echo", tags=tags)
    assert caught.value.type == "invalid_query"


async def test_tags_are_trimmed_and_each_is_sent_once(client: PyFlueClient) -> None:
    answer = await client.workflows.invoke("echo", tags=[" a", "b", "a"])
    assert (await client.runs.get(answer["run_id"]))["tags"] == ["a", "b"]
