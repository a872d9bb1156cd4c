"""`PyFlueClient` against a real server: approvals, signals, recorded steps, retry and fork."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pyflue import PyFlueClient
from pyflue.errors import (
    ApprovalClosed,
    ApprovalNotFound,
    DecisionInvalid,
    Forbidden,
    IdempotencyConflict,
    NotSerializable,
    RequestRefused,
    RunFinished,
    RunNotFinished,
    RunNotFound,
    SignalConflict,
    SignalInvalid,
    StepNotFound,
)
from tests.client.client_server import a_client, collect, serving

UNKNOWN = "01KAJ5V3W8Y3N5QZ6E4T9R2M1B"


async def asking(client: PyFlueClient) -> tuple[str, str]:
    """The ids of a run that waits for an approval, and of that."""
    run_id = (await client.workflows.invoke("asks"))["run_id"]
    async with contextlib.aclosing(client.runs.stream(run_id)) as events:
        async for event in events:
            if event["type"] == "run_waiting":
                break
    (wait,) = (await client.runs.get(run_id))["waiting_for"]
    return run_id, wait["approval_id"]


async def ended(client: PyFlueClient, run_id: str) -> dict[str, Any]:
    await collect(client.runs.stream(run_id))
    return await client.runs.get(run_id)


async def test_an_approval_is_listed_and_approved_with_other_data(client: PyFlueClient) -> None:
    @dataclasses.dataclass
    class Refund:
        amount: int

    run_id, approval_id = await asking(client)
    page = await client.approvals.list(workflow="asks", run_id=run_id, name="refund", limit=5)
    assert ([found["approval_id"] for found in page["approvals"]], page["next"]) == ([approval_id], None)
    approval = await client.approvals.get(approval_id)
    assert (approval["state"], approval["request"]) == ("open", {"amount": 700})
    decided = await client.approvals.approve(approval_id, data=Refund(amount=5), reason="less", by="Ada")
    assert decided["decision"].pop("at")
    assert decided["decision"] == {"approved": True, "by": "Ada", "reason": "less", "data": {"amount": 5}}
    assert (await client.approvals.list())["approvals"] == []
    assert [found["state"] for found in (await client.approvals.list(state="approved"))["approvals"]] == ["approved"]
    await client.runs.signal(run_id, "paid", {"at": 1})
    run = await ended(client, run_id)
    assert run["result"] == {"approved": True, "data": {"amount": 5}, "by": "Ada", "paid": {"at": 1}}


async def test_a_second_decision_is_refused_with_the_first(client: PyFlueClient) -> None:
    _, approval_id = await asking(client)
    first = await client.approvals.reject(approval_id, reason="No.")
    assert (first["state"], first["decision"]["reason"]) == ("rejected", "No.")
    assert await client.approvals.reject(approval_id) == first
    with pytest.raises(ApprovalClosed) as refused:
        await client.approvals.approve(approval_id)
    assert (refused.value.status, refused.value.details) == (409, first)


async def test_impossible_decisions_are_refused(client: PyFlueClient) -> None:
    _, approval_id = await asking(client)
    with pytest.raises(DecisionInvalid) as refused:
        await client.approvals.approve(approval_id, data=None)
    assert refused.value.status == 422
    with pytest.raises(RequestRefused):
        await client.approvals.approve(approval_id, by="")
    with pytest.raises(NotSerializable):
        await client.approvals.approve(approval_id, data=object())
    for call in (client.approvals.get, client.approvals.approve, client.approvals.reject):
        for unknown in (UNKNOWN, "x y"):
            with pytest.raises(ApprovalNotFound):
                await call(unknown)


async def test_the_token_says_who_decides_and_whether_they_may(root: Path) -> None:
    tokens = 'ada = { token = "adas-token-0123456789", scopes = ["read", "admin"] }\n'
    tokens += 'caller = { token = "callers-token-0123456789", scopes = ["run", "read"] }\n'
    (root / "pyflue.toml").write_text(f"[server.tokens]\n{tokens}", encoding="utf-8")
    async with (
        serving(root) as url,
        a_client(url, token="callers-token-0123456789") as caller,
        a_client(url, token="adas-token-0123456789") as ada,
    ):
        run_id, approval_id = await asking(caller)
        with pytest.raises(Forbidden):
            await caller.approvals.approve(approval_id)
        with pytest.raises(RequestRefused, match="'ada'"):
            await ada.approvals.approve(approval_id, by="bob")
        assert (await ada.approvals.approve(approval_id))["decision"]["by"] == "ada"
        assert (await caller.runs.signal(run_id, "paid"))["status"] in {"delivered", "kept"}
        assert (await ended(caller, run_id))["result"]["by"] == "ada"


async def test_signals_are_kept_and_repeated(client: PyFlueClient) -> None:
    run_id, approval_id = await asking(client)
    sent = await client.runs.signal(run_id, "paid", 7, signal_id="p-1")
    assert sent == {"status": "kept", "run_id": run_id, "signal": "paid"}
    assert (await client.runs.signal(run_id, "paid", 7, signal_id="p-1"))["status"] == "repeated"
    with pytest.raises(SignalConflict):
        await client.runs.signal(run_id, "paid", 8, signal_id="p-1")
    with pytest.raises(SignalInvalid):
        await client.runs.signal(run_id, "x" * 200)
    assert (await client.runs.signal(run_id, "über %2e?#"))["signal"] == "über %2e?#"
    await client.approvals.reject(approval_id)
    assert (await ended(client, run_id))["result"]["paid"] == 7
    with pytest.raises(RunFinished):
        await client.runs.signal(run_id, "paid")
    with pytest.raises(RunNotFound):
        await client.runs.signal("workflow:asks:" + UNKNOWN, "paid")


async def test_steps_are_read_and_forked_from(client: PyFlueClient) -> None:
    run_id, approval_id = await asking(client)
    with pytest.raises(RunNotFinished):
        await client.runs.fork(run_id, "prepare")
    await client.approvals.approve(approval_id)
    await client.runs.signal(run_id, "paid", 1)
    await ended(client, run_id)
    page = await client.runs.steps(run_id, limit=1)
    assert [(step["step"], step["value"]) for step in page["steps"]] == [("prepare", "ready")]
    decided, paid = (await client.runs.steps(run_id, after=page["next_after"]))["steps"]
    assert (decided["step"], decided["kind"], decided["value"]["approved"]) == ("refund", "approval", True)
    assert (paid["step"], paid["kind"], paid["status"], paid["value"]) == ("paid", "signal", "completed", 1)
    assert (await client.runs.steps(run_id, after="paid"))["steps"] == []
    with pytest.raises(StepNotFound):
        await client.runs.fork(run_id, "none")

    forked = await client.runs.fork(run_id, "paid", payload_patch={"note": 1}, idempotency_key="f-1")
    again = await client.runs.fork(run_id, "paid", payload_patch={"note": 1}, idempotency_key="f-1")
    assert again == forked
    with pytest.raises(IdempotencyConflict):
        await client.runs.fork(run_id, "paid", idempotency_key="f-1")
    await client.runs.signal(forked["run_id"], "paid", 2)
    run = await ended(client, forked["run_id"])
    assert (run["forked_from"], run["payload"], run["result"]["paid"]) == (run_id, {"note": 1}, 2)


async def test_a_retry_can_be_repeated_with_its_key(client: PyFlueClient) -> None:
    run_id, _ = await asking(client)
    await client.runs.cancel(run_id)
    retried = await client.runs.retry(run_id, idempotency_key="r-1")
    assert await client.runs.retry(run_id, idempotency_key="r-1") == retried
    assert (await client.runs.retry(run_id))["run_id"] != retried["run_id"]
