"""kill -9 of real servers while runs step, branch, sleep, wait for signals and people, and call one another.

The short form kills a dozen times; `PYFLUE_TEST_KILLS=1000 pytest -m campaign tests/reliability/test_durable_kills.py`
is the long one. `PYFLUE_TEST_SEED` repeats a campaign, as far as processes can be repeated.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from pyflue.errors import PyFlueError
from pyflue.journal import Event, Journal, Run, RunStatus
from tests.promises import promise

from .processes import Server, all_runs, make_project, reading, running, until_final, value, whole_record

KILLS = int(os.environ.get("PYFLUE_TEST_KILLS", "12"))
RUNS = max(200, 10 * KILLS if KILLS > 100 else 0)

#: What a step does leaves a line: its run, its key, and the attempt at the run.
EFFECT = """
    import asyncio
    import random

    async def effect(ctx, takes_s=0.02):
        with LOG.open("a") as log:
            log.write(f"{ctx.step_id} {ctx.attempt}\\n")
        await asyncio.sleep(takes_s)
        return "done"
"""
#: Some of everything, in an order that the payload says.
MIXED = (
    EFFECT
    + """
    async def branch(ctx, number):
        await asyncio.sleep(random.random() * 0.03)
        first = await ctx.step("one", effect, ctx)
        await ctx.sleep(0.05 * number)
        return [first, await ctx.step("two", effect, ctx)]

    async def run(ctx):
        ctx.log.info("begun")
        values = [await ctx.step("first", effect, ctx)]
        for what in ctx.payload["parts"]:
            if what == "branches":
                values.append(await asyncio.gather(*[branch(ctx, number) for number in range(3)]))
            elif what == "sleep":
                await ctx.sleep(ctx.payload["sleep_s"])
            elif what == "signal":
                values.append(await ctx.wait_for("go"))
            elif what == "approval":
                values.append((await ctx.approve("ship", {"number": ctx.payload["number"]})).data)
            elif what == "child":
                values.append(await ctx.call("child", {"number": ctx.payload["number"]}))
            await ctx.step("between", effect, ctx)
        ctx.log.info("ended")
        return [*values, await ctx.step("last", effect, ctx)]
"""
)
CHILD = (
    EFFECT
    + """
    async def run(ctx):
        await ctx.step("first", effect, ctx)
        await ctx.sleep(0.1)
        await ctx.step("last", effect, ctx)
        return ctx.payload["number"]
"""
)
PARTS = ("branches", "sleep", "signal", "approval", "child")


class Campaign:
    """Those who start runs, and answer what they wait for, whichever server is there."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.payloads: dict[str, dict[str, Any]] = {}
        self._unsignalled: list[str] = []

    def _payload(self) -> dict[str, Any]:
        chance = self.chance
        parts = chance.choices(PARTS, k=chance.randint(1, 4))
        # A second wait for the same signal would need a second signal.
        parts = [part for at, part in enumerate(parts) if part != "signal" or "signal" not in parts[:at]]
        return {"number": len(self.payloads), "parts": parts, "sleep_s": chance.choice([0.0, 0.3, 1.5])}

    async def work(self, server: Server, count: int) -> None:
        """Start runs and give answers, until the server is gone."""
        try:
            for _ in range(count):
                if len(self.payloads) < RUNS:
                    await self._start(server)
            while True:
                await self._answer(server)
                await asyncio.sleep(0.05)
        except (PyFlueError, OSError):
            return

    async def _start(self, server: Server) -> None:
        payload = self._payload()
        answer = await server.client.workflows.invoke("mixed", payload)
        self.payloads[answer["run_id"]] = payload
        if "signal" in payload["parts"]:
            self._unsignalled.append(answer["run_id"])

    async def _answer(self, server: Server) -> None:
        while self._unsignalled and self.chance.random() < 0.9:
            run_id = self._unsignalled[-1]
            await server.client.runs.signal(run_id, "go", run_id, signal_id="the-one")
            self._unsignalled.pop()
        for approval in (await server.client.approvals.list(limit=50))["approvals"]:
            if self.chance.random() < 0.7:
                await server.client.approvals.approve(approval["approval_id"], by="ann")

    def take_in(self, runs: list[Run]) -> None:
        """Take on runs that were accepted by a server that died with its answer under way: they want signals too."""
        for run in runs:
            if run.workflow == "mixed" and run.run_id not in self.payloads:
                self.payloads[run.run_id] = payload = value(run.payload)
                if "signal" in payload["parts"]:
                    self._unsignalled.append(run.run_id)

    def expected(self, run_id: str) -> list[object]:
        """What a run comes to."""
        payload = self.payloads[run_id]
        values: dict[str, object] = {
            "branches": [["done", "done"]] * 3,
            "signal": run_id,
            "approval": {"number": payload["number"]},
            "child": payload["number"],
        }
        return ["done", *[values[part] for part in payload["parts"] if part in values], "done"]


def check_effects(run: Run, events: list[Event], lines: list[tuple[str, int]]) -> int:
    """No recorded step was done again; returns how many were in flight when their attempt died, and done again."""
    begun_at: dict[int, int] = {}
    recorded_at: dict[str, int] = {}
    for event in events:
        data = value(event.data)
        if event.type == "run_start":
            begun_at[1] = event.index
        elif event.type == "run_resumed":
            begun_at[data["attempt"]] = event.index
        elif event.type == "step_end":
            assert data["step"] not in recorded_at, (run.run_id, data)
            recorded_at[data["step"]] = event.index
    done: dict[str, list[int]] = defaultdict(list)
    for key, attempt in lines:
        done[key].append(attempt)
    for key, attempts in done.items():
        assert len(set(attempts)) == len(attempts), (run.run_id, key, attempts)
        for attempt in attempts:
            assert begun_at[attempt] < recorded_at[key], (run.run_id, key, attempts)
    return sum(len(attempts) - 1 for attempts in done.values())


async def check_steps(journal: Journal, run: Run, events: list[Event]) -> None:
    """The events tell what the tables hold."""
    history = await journal.history(run.run_id)
    recorded = Counter(record.key for record in (*history.steps, *history.waits))
    told = Counter(value(event.data)["step"] for event in events if event.type == "step_end")
    assert recorded == told, run.run_id


@pytest.mark.campaign
@pytest.mark.timeout(180 + 6 * KILLS)
@promise("R2", "R3", "R4", "R6", "F02", "F03", "F04")
async def test_durable_runs_survive_kills_at_random_moments(tmp_path: Path) -> None:
    seed = int(os.environ.get("PYFLUE_TEST_SEED", "0")) or random.randrange(10**9)
    print(f"PYFLUE_TEST_SEED={seed} PYFLUE_TEST_KILLS={KILLS}")
    campaign = Campaign(random.Random(seed))
    root = make_project(tmp_path, mixed=MIXED, child=CHILD)
    for _ in range(KILLS):
        async with running(root) as server:
            working = asyncio.create_task(campaign.work(server, -(-RUNS // KILLS)))
            # A kill is not waited for, it comes at some moment: this is what the test is about.
            await asyncio.sleep(campaign.chance.uniform(0.05, 1.2))
            await server.kill()
            await working
    async with running(root) as server, reading(root) as journal:
        working = asyncio.create_task(campaign.work(server, RUNS))
        while len(campaign.payloads) < RUNS and not working.done():
            await asyncio.sleep(0.1)
        campaign.take_in(await all_runs(journal))
        mixed = await until_final(journal, list(campaign.payloads), timeout_s=120)
        known = await all_runs(journal)
        assert not working.done(), "nobody gave answers any more"
        working.cancel()
        assert Counter(run.status for run in known) == {RunStatus.COMPLETED: len(known)}
        for run in mixed:
            assert value(run.result) == campaign.expected(run.run_id), run.run_id
        lines: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for line in (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines():
            step_id, attempt = line.split(" ")
            run_id, key = step_id.split("/", 1)
            lines[run_id].append((key, int(attempt)))
        again = attempts = 0
        for run in known:
            events = await whole_record(journal, run)
            again += check_effects(run, events, lines[run.run_id])
            attempts += run.attempt
            await check_steps(journal, run, events)
            if run.workflow == "mixed":
                said = [value(event.data)["message"] for event in events if event.type == "log"]
                assert said == ["begun", "ended"]
        children = [run for run in known if run.parent_run_id is not None]
        assert len(children) == sum(payload["parts"].count("child") for payload in campaign.payloads.values())
    print(f"{len(known)} runs, {attempts} attempts, {KILLS} kills; {again} steps in flight were done again")


@promise("F02", "R2", "R3")
async def test_a_run_that_kills_its_process_in_step_3_of_5_does_only_that_one_again(tmp_path: Path) -> None:
    five = """
        import os
        import signal

        def line(number, attempt):
            with LOG.open("a") as log:
                log.write(f"{number}\\n")
            if number == 3 and attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        async def run(ctx):
            return [await ctx.step(f"line {number}", line, number, ctx.attempt) for number in range(1, 6)]
    """
    root = make_project(tmp_path, five=five)
    async with running(root) as server:
        run_id = (await server.client.workflows.invoke("five", {}))["run_id"]
        await server.process.wait()
    async with running(root), reading(root) as journal:
        (run,) = await until_final(journal, [run_id])
        await whole_record(journal, run)
    assert (run.status, run.attempt, value(run.result)) == (RunStatus.COMPLETED, 2, [1, 2, 3, 4, 5])
    assert (tmp_path / "log.txt").read_text().split() == ["1", "2", "3", "3", "4", "5"]
