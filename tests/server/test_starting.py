"""`POST /workflows/<name>`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.routing import Route

from pyflue import codec
from pyflue.server import build_app
from pyflue.workflows import python_dialect
from tests.promises import promise
from tests.server.harness import InProcess, client_of, finished, frames_of, in_process, write_project


@promise("guide.run.accepted", "R1")
async def test_posting_without_wait_answers_202_with_the_run_id(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/workflows/echo", json={"text": "hi"})
    run_id = answer.headers["x-flue-run-id"]
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "run_id": run_id})
    assert (await client.get(f"/runs/{run_id}")).json()["payload"] == {"text": "hi"}


@promise("guide.run.wait")
async def test_posting_with_wait_answers_200_with_the_result(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/workflows/echo?wait=result", json={"text": "hi"})
    run_id = answer.headers["x-flue-run-id"]
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "completed", "run_id": run_id, "result": {"text": "hi"}},
    )


@promise("guide.run.stream")
async def test_asking_for_an_event_stream_gives_the_runs_events_until_its_end(client: httpx2.AsyncClient) -> None:
    answer = await client.post(
        "/workflows/chatty?wait=result", json={"count": 3}, headers={"accept": "text/event-stream"}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    frames = frames_of(answer.text)
    assert [(frame["id"], frame["event"]) for frame in frames] == [
        ("1", "run_start"),
        ("2", "log"),
        ("3", "log"),
        ("4", "log"),
        ("5", "run_end"),
    ]
    run_id = answer.headers["x-flue-run-id"]
    stored = (await client.get(f"/runs/{run_id}/events")).json()["events"]
    assert [codec.load(frame["data"].encode()) for frame in frames] == stored


async def test_a_streamed_run_that_fails_adds_one_error_frame_without_id(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/workflows/refuses", headers={"accept": "text/event-stream"})
    *events, last = frames_of(answer.text)
    assert [frame["event"] for frame in events] == ["run_start", "run_end"]
    assert (last["event"], "id" in last) == ("error", False)
    assert codec.load(last["data"].encode()) == {
        "error": {
            "type": "quota",
            "message": "The quota is used up.",
            "details": {"left": 0},
            "run_id": answer.headers["x-flue-run-id"],
        }
    }


async def test_a_wait_that_takes_too_long_is_answered_202(root: Path) -> None:
    async with in_process(root, server__wait_s=0.05) as here:
        answer = await here.client.post("/workflows/gate?wait=result", json={"file": str(root / "open")})
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
        (root / "open").touch()
        assert (await finished(here.client, answer.json()["run_id"]))["result"] == "open"


async def test_a_stop_answers_those_who_wait_with_202_and_refuses_new_requests(root: Path, here: InProcess) -> None:
    async with asyncio.TaskGroup() as tasks:
        payload = {"file": str(root / "open")}
        waiting = tasks.create_task(here.client.post("/workflows/gate?wait=result", json=payload))
        streaming = tasks.create_task(
            here.client.post("/workflows/gate", json=payload, headers={"accept": "text/event-stream"})
        )
        async with asyncio.timeout(5):
            while len((await here.client.get("/runs")).json()["runs"]) < 2:
                await asyncio.sleep(0)
        here.app.begin_stop()
        async with asyncio.timeout(5):
            assert (await waiting).status_code == 202
            assert (await streaming).status_code == 200
        refused = await here.client.post("/workflows/echo")
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "stopping")
        assert refused.headers["retry-after"] == "5"


async def test_a_failed_run_is_500_with_its_id_and_without_the_exceptions_text(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/workflows/fails?wait=result")
    run_id = answer.headers["x-flue-run-id"]
    assert (answer.status_code, answer.json()) == (
        500,
        {
            "error": {
                "type": "run_failed",
                "message": f"Run {run_id} failed: its workflow raised an exception.",
                "details": {"type": "exception"},
                "run_id": run_id,
            }
        },
    )
    streamed = await client.post("/workflows/fails", headers={"accept": "text/event-stream"})
    assert "secret text" not in streamed.text


async def test_in_dev_the_caller_sees_the_exceptions_text(root: Path) -> None:
    async with in_process(root, dev=True) as here:
        answer = await here.client.post("/workflows/fails?wait=result")
        assert "ValueError: secret text" in answer.json()["error"]["message"]


async def test_an_author_chooses_the_status_and_the_words_of_a_failure(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/workflows/refuses?wait=result")
    assert (answer.status_code, answer.json()) == (
        429,
        {
            "error": {
                "type": "quota",
                "message": "The quota is used up.",
                "details": {"left": 0},
                "run_id": answer.headers["x-flue-run-id"],
            }
        },
    )


@promise("F31")
async def test_a_result_json_cannot_hold_is_run_failed_and_names_the_place(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/workflows/odd?wait=result")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "run_failed")
    assert answer.json()["error"]["details"]["type"] == "not_serializable"
    assert "$.rows[1]" in answer.json()["error"]["message"]


async def test_a_run_that_is_cancelled_while_its_caller_waits_is_409(root: Path, here: InProcess) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(here.client.post("/workflows/gate?wait=result", json={"file": str(root / "never")}))
        async with asyncio.timeout(5):
            while not (runs := (await here.client.get("/runs?status=running")).json()["runs"]):
                await asyncio.sleep(0)
        cancelled = await here.client.post(f"/runs/{runs[0]['run_id']}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        assert ((await waiting).status_code, (await waiting).json()["error"]["type"]) == (409, "run_cancelled")


async def test_tags_and_deadline_come_with_the_query(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/workflows/echo?tags=a,b&tags=c&deadline_s=90&wait=result")
    run = (await client.get(f"/runs/{answer.json()['run_id']}")).json()
    assert run["tags"] == ["a", "b", "c"]
    assert run["deadline_at"] is not None


@pytest.mark.parametrize(
    "query",
    [
        "wait=yes",
        "wait=result&wait=result",
        "deadline_s=-1",
        "deadline_s=nan",
        "deadline_s=1e9999",
        "deadline_s=soon",
        "tags=,",
        "tags=%00",
        "tags=" + "x" * 129,
        "tags=%ff",
        "dealine_s=5",
    ],
)
async def test_a_query_that_makes_no_sense_is_refused_and_starts_nothing(
    client: httpx2.AsyncClient, query: str
) -> None:
    answer = await client.post(f"/workflows/echo?{query}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_query")
    assert (await client.get("/runs")).json()["runs"] == []


@pytest.mark.parametrize("body", ["null", "7", '"text"', "[1, 2]", '{"payload": {"a": 1}}', "{}", "\n{\r\n}\n"])
async def test_the_body_is_the_payload_whatever_json_it_is(client: httpx2.AsyncClient, body: str) -> None:
    headers = {"content-type": "application/json; charset=UTF-8"}
    answer = await client.post("/workflows/echo?wait=result", content=body, headers=headers)
    assert answer.json()["result"] == codec.load(body.encode())


async def test_no_body_is_an_empty_object(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/workflows/echo?wait=result")).json()["result"] == {}


async def test_a_payload_of_the_wrong_type_is_422_with_the_paths(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/workflows/typed", json={"id": 1, "items": [{"amount": "many"}]})
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "payload_invalid")
    assert [problem["path"] for problem in answer.json()["error"]["details"]] == ["$.items[0].amount"]
    assert (await client.get("/runs")).json()["runs"] == []


async def test_the_request_is_kept_without_credentials(client: httpx2.AsyncClient) -> None:
    headers = {"authorization": "Bearer secret", "cookie": "session=secret", "x-trace": "t-1"}
    answer = await client.post("/workflows/asked?wait=result", headers=headers)
    asked = answer.json()["result"]
    assert (asked["method"], asked["url"]) == ("POST", "http://localhost/workflows/asked?wait=result")
    assert asked["headers"]["x-trace"] == "t-1"
    record = (await client.get(f"/runs/{answer.json()['run_id']}")).text
    assert "secret" not in record


@promise("F18")
async def test_fifty_parallel_posts_with_one_key_start_one_run(root: Path, here: InProcess) -> None:
    headers = {"idempotency-key": "order-4711"}
    answers = await asyncio.gather(
        *(here.client.post("/workflows/echo?wait=result", json={"n": 1}, headers=headers) for _ in range(50))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-flue-run-id"] for answer in answers}) == 1
    assert len((await here.client.get("/runs")).json()["runs"]) == 1
    conflict = await here.client.post("/workflows/echo", json={"n": 2}, headers=headers)
    assert (conflict.status_code, conflict.json()["error"]["type"]) == (422, "idempotency_conflict")
    assert conflict.headers["x-flue-run-id"] == answers[0].headers["x-flue-run-id"]


@pytest.mark.parametrize("key", ["", "k" * 256, "k\x7f"])
async def test_a_key_that_is_no_key_is_refused(client: httpx2.AsyncClient, key: str) -> None:
    answer = await client.post("/workflows/echo", headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request")


@promise("F26")
async def test_a_body_above_the_limit_is_refused_before_it_is_read(here: InProcess) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    headers = {"content-type": "application/json"}
    declared = await here.client.post(
        "/workflows/echo", content=endless(), headers={**headers, "content-length": str(17 * 1024**2)}
    )
    assert (declared.status_code, declared.json()["error"]["type"], sent) == (413, "too_large", 0)
    chunked = await here.client.post("/workflows/echo", content=endless(), headers=headers)
    assert (chunked.status_code, chunked.json()["error"]["type"]) == (413, "too_large")
    assert sent <= 9 * 1024**2


@promise("F26")
@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/x-www-form-urlencoded"},
        {},
    ],
)
async def test_a_body_that_does_not_say_it_is_plain_json_is_415(
    client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.post("/workflows/echo", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (415, "unsupported_media_type")


@promise("F27", "F28", "F29", "F30")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "too_deep"),
        (b"NaN", "invalid_json"),
        (b'{"a": Infinity}', "invalid_json"),
        (b"1e400", "invalid_json"),
        (b"9" * 5000, "invalid_json"),
        (b'"\\ud800"', "invalid_json"),
        (b'"\xff"', "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b'{"a": 1', "invalid_json"),
        (b" ", "invalid_json"),
    ],
)
async def test_json_nobody_could_read_back_is_400(client: httpx2.AsyncClient, body: bytes, expected: str) -> None:
    answer = await client.post("/workflows/echo", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, expected)
    assert (await client.get("/runs")).json()["runs"] == []


@promise("F29", "F30")
@pytest.mark.parametrize(
    "value", [2**63, 2**53 + 1, -(2**64), 10**4299, "a\x00b", "\u202eevil", "\ufeff", {"\x00": "\u2028"}, 1.5e-300]
)
async def test_odd_values_come_back_as_they_went(client: httpx2.AsyncClient, value: Any) -> None:
    text = codec.encode(value) if not isinstance(value, int) else str(value).encode()
    headers = {"content-type": "application/json"}
    answer = await client.post("/workflows/echo?wait=result", content=text, headers=headers)
    assert answer.json()["result"] == value
    record = await client.get(f"/runs/{answer.headers['x-flue-run-id']}")
    assert record.json()["payload"] == value


@promise("F32")
@pytest.mark.parametrize(
    "name",
    [
        "nope",
        "../echo",
        "%2e%2e%2fecho",
        "..%2f..%2fetc%2fpasswd",
        "a/b",
        "CON",
        "",
        "x" * 10_000,
        "\u0435cho",  # a Cyrillic letter
        "_private",
        "__init__",
        "echo.py",
        "echo%00",
        "ECHO",
        "echo/",
        "%ff",
        "echo%0a",
    ],
)
async def test_only_discovered_names_resolve(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.post(f"/workflows/{name}")
    assert answer.status_code in {404, 405}
    assert answer.json()["error"]["type"] in {"workflow_not_found", "not_found", "method_not_allowed"}
    assert len(answer.content) < 1000


@promise("F33")
async def test_broken_files_are_listed_and_refused_while_the_others_are_served(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        {
            "good": "async def run(ctx):\n    return 1\n",
            "syntax": "def run(ctx:\n",
            "leaves": "import sys\nsys.exit(3)\n",
            "empty": "",
        },
    )
    async with in_process(tmp_path) as here:
        listed = {entry["name"]: entry for entry in (await here.client.get("/workflows")).json()["workflows"]}
        assert sorted(listed) == ["empty", "good", "leaves", "syntax"]
        assert listed["good"]["error"] is None
        assert listed["syntax"]["error"]["line"] == 1
        assert "src/workflows/leaves.py" in listed["leaves"]["error"]["message"]
        for name in ("syntax", "leaves", "empty"):
            answer = await here.client.post(f"/workflows/{name}")
            assert (answer.status_code, answer.json()["error"]["type"]) == (503, "workflow_invalid")
        assert (await here.client.post("/workflows/good?wait=result")).json()["result"] == 1
        assert (await here.client.get("/openapi.json")).status_code == 200


@promise("F33")
async def test_a_sync_run_that_blocks_does_not_block_the_server(root: Path, here: InProcess) -> None:
    accepted = await here.client.post("/workflows/blocks", json={"file": str(root / "open")})
    async with asyncio.timeout(2):
        assert (await here.client.get("/health")).json()["ok"] is True
        assert (await here.client.post("/workflows/echo?wait=result")).status_code == 200
    (root / "open").touch()
    assert (await finished(here.client, accepted.json()["run_id"]))["status"] == "completed"


async def test_an_unexpected_error_is_500_with_a_reference_and_nothing_else(
    here: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    async def break_down(request: Request) -> None:
        raise RuntimeError("secret text")

    dialect = replace(python_dialect(), routes=lambda services: [Route("/broken", break_down)])
    app = build_app(here.app.services, dialects=[dialect])
    async with client_of(app) as client:
        answer = await client.get("/broken")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (500, "internal_error")
    assert "secret text" not in answer.text
    logged = capsys.readouterr().err
    assert error["ref"] in logged
    assert "secret text" in logged
