"""The routes about runs."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx2
import pytest

from pyflue import codec
from tests.promises import promise
from tests.server.harness import InProcess, finished, frames_of

UNKNOWN = "workflow:echo:01KAJ5V3W8Y3N5QZ6E4T9R2M1B"


async def started(client: httpx2.AsyncClient, name: str, payload: object = None, query: str = "wait=result") -> str:
    answer = await client.post(f"/workflows/{name}?{query}", json={} if payload is None else payload)
    return answer.headers["x-flue-run-id"]


async def test_a_list_of_runs_is_filtered_and_paged_newest_first(client: httpx2.AsyncClient) -> None:
    ids = [await started(client, "echo", query=f"wait=result&tags=t{number % 2}") for number in range(5)]
    failed = await started(client, "fails")

    async def listed(query: str) -> list[str]:
        return [run["run_id"] for run in (await client.get(f"/runs?{query}")).json()["runs"]]

    assert await listed("") == [failed, *reversed(ids)]
    assert await listed("status=failed,cancelled") == [failed]
    assert await listed("workflow=echo&tag=t1") == [ids[3], ids[1]]
    assert await listed("error=secret") == [failed]
    assert await listed("kind=flowgram") == []
    assert await listed("created_after=2999-01-01T00:00:00Z") == []
    assert await listed("created_before=2999-01-01T00:00:00%2B02:00&finished_after=2000-01-01T00:00:00Z&limit=1") == [
        failed
    ]
    assert await listed(f"parent_run_id={failed}") == []

    first = (await client.get("/runs?limit=4")).json()
    assert len(first["runs"]) == 4
    assert "payload" not in first["runs"][0]
    second = (await client.get(f"/runs?limit=4&before={first['next']}")).json()
    assert [run["run_id"] for run in first["runs"] + second["runs"]] == [failed, *reversed(ids)]
    assert second["next"] is None


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=many",
        "before=x",
        "before=r" + "f" * 16,
        "status=succeeded",
        "created_after=yesterday",
        "created_after=2026-11-21T05:12:44",
        "statu=failed",
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(client: httpx2.AsyncClient, query: str) -> None:
    answer = await client.get(f"/runs?{query}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_query")


@promise("guide.record")
@pytest.mark.parametrize("encoded", [False, True])
async def test_a_runs_record_holds_payload_result_and_request(client: httpx2.AsyncClient, encoded: bool) -> None:
    run_id = await started(client, "echo", {"a": 1})
    answer = await client.get(f"/runs/{run_id.replace(':', '%3A') if encoded else run_id}")
    run = answer.json()
    assert answer.headers["x-flue-run-id"] == run["run_id"] == run_id
    assert (run["status"], run["payload"], run["result"], run["error"]) == ("completed", {"a": 1}, {"a": 1}, None)
    assert run["request"]["method"] == "POST"


@pytest.mark.parametrize("path", ["", "/events", "/stream", "/blobs/sha256:00"])
async def test_an_unknown_run_is_404(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(f"/runs/{UNKNOWN}{path}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "run_not_found")


@promise("R4")
async def test_events_are_dense_and_end_with_one_run_end(client: httpx2.AsyncClient) -> None:
    run_id = await started(client, "chatty", {"count": 30})
    events = (await client.get(f"/runs/{run_id}/events")).json()["events"]
    assert [event["index"] for event in events] == list(range(1, 33))
    assert [event["type"] for event in events] == ["run_start", *["log"] * 30, "run_end"]


async def test_events_are_read_in_parts_and_by_type(client: httpx2.AsyncClient) -> None:
    run_id = await started(client, "chatty", {"count": 3})

    async def read(query: str) -> tuple[list[int], int]:
        body = (await client.get(f"/runs/{run_id}/events?{query}")).json()
        return [event["index"] for event in body["events"]], body["next_after"]

    assert await read("limit=2") == ([1, 2], 2)
    assert await read("after=2&limit=2") == ([3, 4], 4)
    assert await read("after=5") == ([], 5)
    assert await read("types=log&after=2") == ([3, 4], 4)
    assert await read("types=run_start,run_end") == ([1, 5], 5)


@promise("F23", "R5")
@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("", {}, [1, 2, 3, 4, 5]),
        ("after=3", {}, [4, 5]),
        ("", {"last-event-id": "3"}, [4, 5]),
        ("after=1", {"last-event-id": "4"}, [2, 3, 4, 5]),
    ],
)
async def test_a_stream_continues_after_the_cursor_and_closes_after_the_last_event(
    client: httpx2.AsyncClient, query: str, headers: dict[str, str], expected: list[int]
) -> None:
    run_id = await started(client, "chatty", {"count": 3})
    async with asyncio.timeout(5):
        answer = await client.get(f"/runs/{run_id}/stream?{query}", headers=headers)
    assert [int(frame["id"]) for frame in frames_of(answer.text)] == expected


@promise("F23")
@pytest.mark.parametrize(("query", "headers"), [("after=5", {}), ("", {"last-event-id": "5"})])
async def test_a_reader_that_has_seen_the_end_is_told_not_to_come_back(
    client: httpx2.AsyncClient, query: str, headers: dict[str, str]
) -> None:
    run_id = await started(client, "chatty", {"count": 3})
    answer = await client.get(f"/runs/{run_id}/stream?{query}", headers=headers)
    assert (answer.status_code, answer.content, answer.headers["x-flue-run-id"]) == (204, b"", run_id)


@promise("F23")
async def test_a_cursor_the_run_has_not_reached_is_answered_with_an_error_frame(client: httpx2.AsyncClient) -> None:
    run_id = await started(client, "chatty", {"count": 3})
    async with asyncio.timeout(5):
        answer = await client.get(f"/runs/{run_id}/stream", headers={"last-event-id": "99"})
    (frame,) = frames_of(answer.text)
    assert (frame["event"], codec.load(frame["data"].encode())["error"]["type"]) == ("error", "invalid_query")
    assert int(frame["retry"]) >= 3_600_000  # or a browser would repeat the question every few seconds


@pytest.mark.parametrize(
    ("query", "headers"),
    [("after=x", {}), ("after=-1", {}), ("after=", {}), ("", {"last-event-id": "x"}), ("after=" + "9" * 20, {})],
)
async def test_a_cursor_that_is_none_is_400(client: httpx2.AsyncClient, query: str, headers: dict[str, str]) -> None:
    run_id = await started(client, "echo")
    answer = await client.get(f"/runs/{run_id}/stream?{query}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_query")


@promise("F19", "R7")
async def test_a_cancel_races_the_end_and_all_readers_see_one_outcome(client: httpx2.AsyncClient) -> None:
    chance = random.Random(7)
    for _ in range(100):
        run_id = await started(client, "chatty", {"count": chance.randrange(4)}, query="")
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
        answer = await client.post(f"/runs/{run_id}/cancel")
        run = await finished(client, run_id)
        ends = (await client.get(f"/runs/{run_id}/events?types=run_end")).json()["events"]
        assert [event["data"]["status"] for event in ends] == [run["status"]]
        if answer.status_code == 200:
            assert (run["status"], answer.json()["status"]) == ("cancelled", "cancelled")
        else:
            assert (answer.status_code, answer.json()["error"]["type"]) == (409, "run_finished")
            assert answer.json()["error"]["details"] == {"status": run["status"]}


async def test_a_failed_run_is_retried_as_a_new_one(client: httpx2.AsyncClient) -> None:
    run_id = await started(client, "fails", {"n": 1})
    answer = await client.post(f"/runs/{run_id}/retry")
    new_id = answer.json()["run_id"]
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "run_id": new_id})
    assert answer.headers["x-flue-run-id"] == new_id != run_id
    again = await finished(client, new_id)
    assert (again["retried_from"], again["payload"], again["status"]) == (run_id, {"n": 1}, "failed")
    refused = await client.post(f"/runs/{await started(client, 'echo')}/retry")
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "run_finished")


async def test_retries_with_one_key_start_one_run(client: httpx2.AsyncClient) -> None:
    run_id, other_id = await started(client, "fails", {"n": 1}), await started(client, "fails", {"n": 2})

    async def retry(run_id: str, key: str) -> httpx2.Response:
        return await client.post(f"/runs/{run_id}/retry", headers={"idempotency-key": key})

    first, again = await retry(run_id, "again-7"), await retry(run_id, "again-7")
    assert (again.status_code, again.json()) == (202, first.json())
    assert (await retry(run_id, "again-8")).json() != first.json()
    assert len((await client.get("/runs")).json()["runs"]) == 4
    conflict = await retry(other_id, "again-7")
    assert (conflict.status_code, conflict.json()["error"]["type"]) == (422, "idempotency_conflict")
    refused = await retry(run_id, "x" * 256)
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (f"/runs/{UNKNOWN}/cancel?force=1", "Query parameter force='1': expected no parameters here."),
        ("/workflows/echo?deadline_s=1e12", "expected a number of seconds above 0, at most 315,360,000."),
    ],
)
async def test_a_refused_parameter_is_explained(client: httpx2.AsyncClient, path: str, sentence: str) -> None:
    answer = await client.post(path)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].endswith(sentence)


async def test_a_run_can_be_deleted_when_it_has_ended(root: Path, here: InProcess) -> None:
    run_id = await started(here.client, "gate", {"file": str(root / "open")}, query="")
    early = await here.client.delete(f"/runs/{run_id}")
    assert (early.status_code, early.json()["error"]["type"]) == (409, "run_not_finished")
    assert early.headers["x-flue-run-id"] == run_id
    (root / "open").touch()
    await finished(here.client, run_id)
    gone = await here.client.delete(f"/runs/{run_id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await here.client.get(f"/runs/{run_id}")).status_code == 404
    assert (await here.client.delete(f"/runs/{run_id}")).status_code == 404


async def test_a_value_too_large_for_its_event_is_read_as_a_blob(client: httpx2.AsyncClient) -> None:
    run_id = await started(client, "big_event")
    (event,) = (await client.get(f"/runs/{run_id}/events?types=table")).json()["events"]
    answer = await client.get(f"/runs/{run_id}/blobs/{event['data']['blob']}")
    assert answer.json() == {"cells": "x" * 300_000}
    assert answer.headers["content-type"] == "application/octet-stream"
    missing = await client.get(f"/runs/{run_id}/blobs/sha256:00")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/workflows/echo", "GET, HEAD, POST"),
        ("POST", "/runs", "GET, HEAD"),
        ("POST", f"/runs/{UNKNOWN}", "DELETE, GET, HEAD"),
        ("GET", f"/runs/{UNKNOWN}/cancel", "POST"),
        ("GET", f"/runs/{UNKNOWN}/signals/go", "POST"),
        ("DELETE", "/approvals/x", "GET, HEAD, POST"),
        ("DELETE", "/health", "GET, HEAD"),
    ],
)
async def test_another_method_is_405_and_names_the_allowed_ones(
    client: httpx2.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/x", "/runs/", "//runs", "/runs/a/b/c", "/workflows/", "/docs"])
async def test_a_path_nobody_answers_is_404(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(f"http://localhost{path}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")


@promise("F48")
async def test_no_answer_can_be_taken_for_a_page(client: httpx2.AsyncClient) -> None:
    payload = {"name": "<img src=x onerror=alert(1)>", "link": "javascript:alert(1)", "term": "\x1b]0;x\x07"}
    run_id = await started(client, "echo", payload)
    for path in (f"/runs/{run_id}", f"/runs/{run_id}/events", f"/runs/{run_id}/stream", "/<img src=x>", "/runs"):
        answer = await client.get(path)
        assert answer.headers["content-type"].split(";")[0] in {"application/json", "text/event-stream"}
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "\x1b" not in answer.text
