"""The routes about approvals."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.promises import promise
from tests.server.harness import InProcess, event_of, finished, in_process, waiting, write_project

ADMIN = "admin-token-0123456789"
TOKENS = f"""
[server.tokens]
starter = {{ token = "starter-token-0123456789", scopes = ["run"] }}
reader = {{ token = "reader-token-0123456789", scopes = ["read"] }}
ada = {{ token = "{ADMIN}", scopes = ["admin"] }}
"""
UNKNOWN = "01KAJ5V3W8Y3N5QZ6E4T9R2M1B"
WORKFLOWS = {
    "ask": """
async def run(ctx):
    decision = await ctx.approve(
        "ship",
        request=ctx.payload.get("request"),
        timeout_s=ctx.payload.get("timeout_s"),
        schema=ctx.payload.get("schema"),
    )

    async def act():
        with open(ctx.payload["effects"], "a") as file:
            file.write(f"{decision.approved}\\n")

    if "effects" in ctx.payload:
        await ctx.step("act", act)
    return {"approved": decision.approved, "by": decision.by, "reason": decision.reason, "data": decision.data}
""",
    "ask_edit": """
from pydantic import BaseModel

class Refund(BaseModel):
    amount: int

async def run(ctx):
    decision = await ctx.approve("refund", request={"amount": 700}, schema=Refund)
    return decision.data.amount if decision.approved else None
""",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    write_project(tmp_path, WORKFLOWS)
    return tmp_path


@pytest.fixture
async def guarded(root: Path) -> AsyncGenerator[InProcess, None]:
    (root / "pyflue.toml").write_text(TOKENS, encoding="utf-8")
    async with in_process(root) as here:
        yield here


async def asked(here: InProcess, payload: dict[str, Any] | None = None, *, workflow: str = "ask") -> tuple[str, str]:
    """The ids of a run that waits for an approval, and of that."""
    run_id = (await here.client.post(f"/workflows/{workflow}", json=payload or {})).json()["run_id"]
    run = await waiting(here, run_id)
    return run_id, run["waiting_for"][0]["approval_id"]


async def decide(client: httpx2.AsyncClient, approval_id: str, **decision: Any) -> httpx2.Response:
    return await client.post(f"/approvals/{approval_id}", json=decision)


async def test_a_waiting_run_says_what_it_waits_for(here: InProcess) -> None:
    run_id, approval_id = await asked(here, {"timeout_s": 3600})
    run = (await here.client.get(f"/runs/{run_id}")).json()
    (wait,) = run["waiting_for"]
    assert (run["status"], wait["kind"], wait["name"], wait["step"]) == ("waiting", "approval", "ship", "ship")
    assert wait["since"] < wait["due_at"]
    await decide(here.client, approval_id, approved=False)
    assert (await finished(here.client, run_id))["waiting_for"] == []


async def test_an_open_approval_is_listed_shown_and_approved(here: InProcess) -> None:
    run_id, approval_id = await asked(here, {"request": {"order": 7, "text": "<b>\x1b[31m"}})
    listed = (await here.client.get("/approvals")).json()
    (shown,) = listed["approvals"]
    assert listed["next"] is None
    answer = await here.client.get(f"/approvals/{approval_id}")
    assert (answer.json(), answer.headers["x-flue-run-id"]) == (shown, run_id)
    assert "\x1b" not in answer.text
    digest, created_at = shown.pop("digest"), shown.pop("created_at")
    assert (len(digest) > 20, created_at.endswith("Z")) == (True, True)
    assert shown == {
        "approval_id": approval_id,
        "run_id": run_id,
        "workflow": "ask",
        "name": "ship",
        "step": "ship",
        "state": "open",
        "request": {"order": 7, "text": "<b>\x1b[31m"},
        "schema": None,
        "due_at": None,
        "decision": None,
    }

    decided = (await decide(here.client, approval_id, approved=True, reason="It is paid.", by="Ada")).json()
    assert decided["decision"].pop("at").endswith("Z")
    decision = {"approved": True, "by": "Ada", "reason": "It is paid.", "data": shown["request"]}
    assert decided == {
        **shown, "digest": digest, "created_at": created_at, "state": "approved", "decision": decision
    }  # fmt: skip
    run = await finished(here.client, run_id)
    assert (run["status"], run["result"]) == ("completed", decision)
    assert (await here.client.get("/approvals")).json() == {"approvals": [], "next": None}


async def test_a_rejected_run_goes_on_with_the_decision(here: InProcess) -> None:
    run_id, approval_id = await asked(here, {"request": 1})
    assert (await decide(here.client, approval_id, approved=False)).json()["state"] == "rejected"
    result = {"approved": False, "by": "anonymous", "reason": None, "data": None}
    assert (await finished(here.client, run_id))["result"] == result


async def test_what_is_approved_can_be_edited_if_it_fits_the_schema(here: InProcess) -> None:
    run_id, approval_id = await asked(here, workflow="ask_edit")
    shown = (await here.client.get(f"/approvals/{approval_id}")).json()
    assert shown["schema"]["required"] == ["amount"]
    refused = await decide(here.client, approval_id, approved=True, data={"amount": "many"})
    error = refused.json()["error"]
    assert (refused.status_code, error["type"]) == (422, "decision_invalid")
    assert [problem["path"] for problem in error["details"]] == ["$.amount"]
    assert (await decide(here.client, approval_id, approved=True, data={"amount": 5})).status_code == 200
    assert (await finished(here.client, run_id))["result"] == 5


async def test_the_first_decision_counts_and_the_same_once_more_is_welcome(here: InProcess) -> None:
    _, approval_id = await asked(here)
    first = await decide(here.client, approval_id, approved=True, by="Ada")
    again = await decide(here.client, approval_id, approved=True, by="Bob")
    assert (again.status_code, again.json()) == (200, first.json())
    for other in ({"approved": False}, {"approved": True, "data": 7}):
        refused = await decide(here.client, approval_id, **other)
        error = refused.json()["error"]
        assert (refused.status_code, error["type"], error["details"]) == (409, "approval_closed", first.json())


@promise("F20")
async def test_an_approval_of_a_cancelled_run_is_closed(here: InProcess) -> None:
    run_id, approval_id = await asked(here)
    assert (await here.client.post(f"/runs/{run_id}/cancel")).status_code == 200
    refused = await decide(here.client, approval_id, approved=True)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["details"]["state"]) == (409, "approval_closed", "cancelled")
    assert error["run_id"] == refused.headers["x-flue-run-id"] == run_id


async def test_an_approval_whose_time_is_over_is_closed(client: httpx2.AsyncClient) -> None:
    run_id = (await client.post("/workflows/ask", json={"timeout_s": 0.01})).json()["run_id"]
    run = await finished(client, run_id)
    assert (run["status"], run["error"]["type"]) == ("failed", "wait_timed_out")
    (approval,) = (await client.get("/approvals?state=expired")).json()["approvals"]
    refused = await decide(client, approval["approval_id"], approved=True)
    assert (refused.status_code, refused.json()["error"]["details"]["state"]) == (409, "expired")


@promise("F20")
async def test_of_parallel_decisions_one_wins_and_takes_effect_once(root: Path, here: InProcess) -> None:
    for attempt in range(10):
        effects = root / f"effects-{attempt}"
        run_id, approval_id = await asked(here, {"effects": str(effects), "schema": {}})
        answers = await asyncio.gather(
            *(decide(here.client, approval_id, approved=number % 2 == 0, data={"by": number}) for number in range(16))
        )
        assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 15}
        (won,) = (answer.json() for answer in answers if answer.status_code == 200)
        for answer in answers:
            if answer.status_code == 409:
                assert answer.json()["error"]["details"]["decision"] == won["decision"]
        result = (await finished(here.client, run_id))["result"]
        assert result["data"] == won["decision"]["data"]
        assert effects.read_text() == f"{won['decision']['approved']}\n"


@promise("F20")
@pytest.mark.parametrize("rival", ["cancel", "expiry"])
async def test_a_decision_that_races_the_end_of_its_approval_counts_or_is_refused(
    root: Path, here: InProcess, rival: str
) -> None:
    """All readers see one outcome, and the effect fits it."""
    rng = random.Random(20)
    outcomes: set[int] = set()
    for attempt in range(60):
        effects = root / f"effects-{attempt}"
        payload: dict[str, Any] = {"effects": str(effects)}
        if rival == "expiry":
            payload["timeout_s"] = 0.02
        run_id = (await here.client.post("/workflows/ask", json=payload)).json()["run_id"]
        approval_id = (await event_of(here, run_id, "approval_requested"))["approval_id"]

        async def decide_later(approval_id: str = approval_id) -> httpx2.Response:
            await asyncio.sleep(rng.random() * (0.04 if rival == "expiry" else 0.004))
            return await decide(here.client, approval_id, approved=True)

        async def cancel_later(run_id: str = run_id) -> None:
            await asyncio.sleep(rng.random() * 0.004)
            await here.client.post(f"/runs/{run_id}/cancel")

        async with asyncio.TaskGroup() as tasks:
            deciding = tasks.create_task(decide_later())
            if rival == "cancel":
                tasks.create_task(cancel_later())
        answer = deciding.result()
        outcomes.add(answer.status_code)
        run = await finished(here.client, run_id)
        approval = (await here.client.get(f"/approvals/{approval_id}")).json()
        if answer.status_code == 200:
            assert approval == answer.json()
            assert approval["state"] == "approved"
            assert run["status"] in ({"completed"} if rival == "expiry" else {"completed", "cancelled"})
        else:
            assert answer.json()["error"]["type"] == "approval_closed"
            assert (approval["state"], approval["decision"]) == (
                "expired" if rival == "expiry" else "cancelled",
                None,
            )
            assert run["status"] == ("failed" if rival == "expiry" else "cancelled")
            assert not effects.exists()
        if run["status"] == "completed":
            assert effects.read_text() == "True\n"
    assert outcomes == {200, 409}


async def test_a_list_of_approvals_is_filtered_and_paged_newest_first(here: InProcess) -> None:
    made = [await asked(here) for _ in range(4)] + [await asked(here, workflow="ask_edit")]
    ids = [approval_id for _, approval_id in made]
    await decide(here.client, ids[0], approved=True)
    await decide(here.client, ids[1], approved=False)

    async def listed(query: str) -> list[str]:
        return [found["approval_id"] for found in (await here.client.get(f"/approvals?{query}")).json()["approvals"]]

    assert await listed("") == [ids[4], ids[3], ids[2]]
    assert await listed("state=approved,rejected") == [ids[1], ids[0]]
    assert await listed("workflow=ask&state=open&state=approved") == [ids[3], ids[2], ids[0]]
    assert await listed("name=refund") == [ids[4]]
    assert await listed(f"run_id={made[3][0]}") == [ids[3]]
    first = (await here.client.get("/approvals?limit=2")).json()
    assert [found["approval_id"] for found in first["approvals"]] == [ids[4], ids[3]]
    second = (await here.client.get(f"/approvals?limit=2&before={first['next']}")).json()
    assert [found["approval_id"] for found in second["approvals"]] == [ids[2]]
    assert second["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "before=x", "before=r1", "state=done", "approved=true", "state="]
)
async def test_a_filter_that_makes_no_sense_is_refused(client: httpx2.AsyncClient, query: str) -> None:
    answer = await client.get(f"/approvals?{query}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_query")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.approved"),
        ({"approved": "yes"}, "$.approved"),
        ({"approved": 1}, "$.approved"),
        ({"approved": True, "aproved": True}, "$.aproved"),
        ({"approved": True, "reason": 7}, "$.reason"),
        ({"approved": True, "reason": "x" * 2001}, "$.reason"),
        ({"approved": True, "by": ""}, "$.by"),
        ([], "$"),
    ],
)
async def test_a_decision_that_says_something_else_is_refused_by_name(
    client: httpx2.AsyncClient, body: Any, path: str
) -> None:
    answer = await client.post(f"/approvals/{UNKNOWN}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request")
    assert path in [problem["path"] for problem in error["details"]]
    assert path in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"approved": true, "data": NaN}', 400, "invalid_json"),
        (b'{"approved": true, "data": ' + b"[" * 200 + b"]" * 200 + b"}", 400, "too_deep"),
        (b'{"approved": true}', 404, "approval_not_found"),
    ],
)
async def test_an_impossible_decision_is_refused(
    client: httpx2.AsyncClient, body: bytes, status: int, kind: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post(f"/approvals/{UNKNOWN}", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)


async def test_an_unknown_approval_is_404(client: httpx2.AsyncClient) -> None:
    for approval_id in (UNKNOWN, "x", "%2e%2e", "' OR 1=1 --"):
        answer = await client.get(f"/approvals/{approval_id}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "approval_not_found")


async def test_with_tokens_the_decider_is_the_token(guarded: InProcess) -> None:
    guarded.client.headers["authorization"] = f"Bearer {ADMIN}"
    run_id, approval_id = await asked(guarded)
    refused = await decide(guarded.client, approval_id, approved=True, by="bob")
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request")
    assert "'ada'" in refused.json()["error"]["message"]
    assert (await decide(guarded.client, approval_id, approved=True, by="ada")).status_code == 200
    assert (await finished(guarded.client, run_id))["result"]["by"] == "ada"


async def test_a_decision_with_the_one_token_of_the_server_names_its_setting(root: Path) -> None:
    async with in_process(root, server__token=ADMIN) as here:
        here.client.headers["authorization"] = f"Bearer {ADMIN}"
        run_id, approval_id = await asked(here)
        assert (await decide(here.client, approval_id, approved=True)).status_code == 200
        assert (await finished(here.client, run_id))["result"]["by"] == "server.token"


async def test_an_approval_survives_a_restart_of_the_server(root: Path) -> None:
    async with in_process(root) as here:
        run_id, approval_id = await asked(here, {"request": 1})
    async with in_process(root) as here:
        (listed,) = (await here.client.get("/approvals")).json()["approvals"]
        assert (listed["approval_id"], listed["run_id"]) == (approval_id, run_id)
        assert (await here.client.get(f"/runs/{run_id}")).json()["status"] == "waiting"
        await decide(here.client, approval_id, approved=True)
        run = await finished(here.client, run_id)
    assert (run["status"], run["result"]["approved"], run["attempt"]) == ("completed", True, 2)


async def test_waiting_for_the_result_of_a_waiting_run_ends_with_202(root: Path) -> None:
    async with in_process(root, server__wait_s=0.05) as here:
        answer = await here.client.post("/workflows/ask?wait=result", json={})
        assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
        run = await waiting(here, answer.json()["run_id"])
        assert run["waiting_for"][0]["name"] == "ship"
