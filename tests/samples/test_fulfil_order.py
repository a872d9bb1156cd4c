"""The sample workflows `fulfil_order` and `ship_parcel`, through the command line and servers that are killed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.processes import Server, start

from .sample_runs import ROOT, RunSample

_LAMPS = [{"item": "lamp", "count": 2}]
_DESKS = [{"item": "desk", "count": 4}]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shop's file; the journal is a new one, too."""
    monkeypatch.setenv("PYFLUE_JOURNAL_URL", f"sqlite:///{tmp_path / 'journal.db'}")
    monkeypatch.setenv("SHOP_DB", str(tmp_path / "shop.db"))
    return tmp_path / "shop.db"


def stock(shop: Path) -> dict[str, int]:
    with sqlite3.connect(shop) as db:
        return dict(db.execute("SELECT item, count FROM stock"))


def done_in(shop: Path) -> list[str]:
    """What the shop was made to do, in order."""
    with sqlite3.connect(shop) as db:
        return [kind for (kind,) in db.execute("SELECT kind FROM answers ORDER BY rowid")]


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = await start(ROOT)
    try:
        yield server
    finally:
        await server.kill()


async def waiting_for(server: Server, run_id: str, kind: str) -> dict[str, Any]:
    """What a run waits for, once it does."""
    async for event in server.client.runs.stream(run_id):
        if event["type"] == "run_waiting":
            for wait in event["data"]["waits"]:
                if wait["kind"] == kind:
                    return wait
    raise AssertionError(f"{run_id} never waited for a {kind}")


async def end_of(server: Server, run_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        async for _ in server.client.runs.stream(run_id):
            pass
    return await server.client.runs.get(run_id)


async def order(server: Server, **fields: Any) -> str:
    accepted = await server.client.workflows.invoke("fulfil_order", {"customer": "Ada", "packing_s": 0.1, **fields})
    return accepted["run_id"]


def steps(events: list[Any]) -> list[str]:
    return [event["name"] for event in events]


def test_a_small_order_is_charged_and_shipped_by_a_child(shop: Path, run_sample: RunSample) -> None:
    ran = run_sample("fulfil_order", {"customer": "Ada", "lines": _LAMPS, "packing_s": 0.1})

    assert ran.result == {
        "status": "shipped",
        "total_cents": 9_800,
        "charge_id": "ch_0001",
        "tracking": "AD000001",
        "reason": None,
    }
    assert steps(ran.events["step_end"]) == ["reserve stock", "charge", "ship_parcel"]
    assert done_in(shop) == ["Reservation", "Charge", "Label", "Done"]
    assert stock(shop)["lamp"] == 48


def test_a_bank_that_does_not_answer_is_asked_again(shop: Path, run_sample: RunSample) -> None:
    ran = run_sample("fulfil_order", {"customer": "Ada", "card": "tok_busy", "lines": _LAMPS, "packing_s": 0})

    assert ran.result["status"] == "shipped"
    assert [retry["error"]["message"] for retry in ran.events["step_retry"]] == ["The bank did not answer."] * 2
    assert done_in(shop).count("Charge") == 1


def test_a_declined_card_is_not_tried_again_and_the_goods_go_back(shop: Path, run_sample: RunSample) -> None:
    ran = run_sample("fulfil_order", {"customer": "Ada", "card": "tok_declined", "lines": _LAMPS})

    assert (ran.result["status"], ran.result["charge_id"]) == ("declined", None)
    assert "step_retry" not in ran.events
    assert stock(shop)["lamp"] == 50


def test_more_than_there_is_fails_with_a_type_of_its_own(shop: Path, run_sample: RunSample) -> None:
    ran = run_sample("fulfil_order", {"customer": "Ada", "lines": [*_LAMPS, {"item": "desk", "count": 51}]})

    assert (ran.exit_code, ran.error["type"]) == (1, "out_of_stock")
    assert stock(shop) == {"desk": 50, "lamp": 50, "chair": 50}


async def test_a_large_order_waits_for_a_person_who_may_change_the_price(shop: Path) -> None:
    async with serving() as server:
        run_id = await order(server, lines=_DESKS)
        wait = await waiting_for(server, run_id, "approval")
        asked = await server.client.approvals.get(wait["approval_id"])
        await server.client.approvals.approve(wait["approval_id"], data={"total_cents": 80_000}, by="Bob")
        run = await end_of(server, run_id)

    assert asked["request"] == {"customer": "Ada", "total_cents": 99_600}
    assert (run["result"]["status"], run["result"]["total_cents"]) == ("shipped", 80_000)


async def test_a_rejected_order_gives_its_goods_back(shop: Path) -> None:
    async with serving() as server:
        run_id = await order(server, lines=_DESKS)
        wait = await waiting_for(server, run_id, "approval")
        await server.client.approvals.reject(wait["approval_id"], reason="Not this customer.")
        run = await end_of(server, run_id)

    assert (run["result"]["status"], run["result"]["reason"]) == ("rejected", "Not this customer.")
    assert done_in(shop) == ["Reservation", "Done"]
    assert stock(shop)["desk"] == 50


async def test_a_server_that_is_killed_twice_on_the_way_changes_nothing(shop: Path) -> None:
    async with serving() as server:
        run_id = await order(server, lines=_DESKS, packing_s=1)
        wait = await waiting_for(server, run_id, "approval")

    async with serving() as server:
        assert (await server.client.runs.get(run_id))["status"] == "waiting"
        await server.client.approvals.approve(wait["approval_id"], by="Bob")
        child = await waiting_for(server, run_id, "child")
        packing = await waiting_for(server, child["name"], "timer")

    async with serving() as server:
        run = await end_of(server, run_id)
        parcel = await server.client.runs.get(child["name"])
        events = (await server.client.runs.events(run_id, types=["step_start", "step_end"]))["events"]

    assert packing["name"] == "packing"
    assert (run["status"], run["result"]["status"]) == ("completed", "shipped")
    assert (parcel["status"], parcel["parent_run_id"]) == ("completed", run_id)
    # Each step was begun once and ended once, and the shop was asked for each thing once.
    assert [event["data"]["name"] for event in events] == [
        name for name in ("reserve stock", "large order", "charge", "ship_parcel") for _ in range(2)
    ]
    assert done_in(shop) == ["Reservation", "Charge", "Label", "Done"]
