"""What callers see while the journal cannot be written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from tests.promises import promise
from tests.server.harness import in_process, write_project


@promise("F10")
async def test_a_locked_journal_is_503_with_retry_after_while_reads_and_health_answer(root: Path) -> None:
    async with in_process(root, journal__busy_timeout_s=0.3) as here:
        other = apsw.Connection(str(root / ".pyflue" / "journal.db"))
        other.execute("BEGIN EXCLUSIVE")

        waiting = asyncio.ensure_future(here.client.post("/workflows/echo", json=1))
        assert (await here.client.get("/health")).status_code == 200
        assert (await here.client.get("/runs")).json() == {"runs": [], "next": None}
        assert not waiting.done()
        refused = await waiting
        waited = await here.client.post("/workflows/echo?wait=result", json=1)

        other.execute("ROLLBACK")
        other.close()
        assert [(answer.status_code, answer.headers["retry-after"]) for answer in (refused, waited)] == [(503, "1")] * 2
        assert refused.json()["error"]["type"] == "journal_busy"
        assert str(root) not in refused.text
        async with asyncio.timeout(5):
            assert (await here.client.post("/workflows/echo?wait=result", json=2)).json()["result"] == 2
        assert len((await here.client.get("/runs")).json()["runs"]) == 1


@promise("F08", "R8")
@pytest.mark.parametrize("mode", ["", "?wait=result"])
async def test_a_full_disk_is_507_and_the_server_recovers_without_a_restart(small_disk: Path, mode: str) -> None:
    root = small_disk / "project"
    write_project(root)
    async with in_process(root) as here:
        kept = (await here.client.post("/workflows/echo?wait=result", json="kept")).json()["run_id"]
        ballast = root / "ballast"
        with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

        refused = await here.client.post(f"/workflows/echo{mode}", json="y" * 20_000)

        assert refused.status_code == 507
        assert refused.json()["error"]["type"] == "journal_full"
        assert "x-flue-run-id" not in refused.headers
        listed = (await here.client.get("/runs")).json()["runs"]
        assert [run["run_id"] for run in listed] == [kept]

        ballast.unlink()
        again = await here.client.post("/workflows/echo?wait=result", json="again")
        assert again.json()["result"] == "again"
