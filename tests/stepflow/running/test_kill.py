"""kill -9 of a real server while its flows call components of other processes: what is recorded is not done again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.promises import promise
from tests.reliability.processes import reading, running, until_final, value, whole_record

KILLS = 4
ITEMS = 30

COMPONENTS = """
import os, pathlib, time
from pyflue.stepflow import StepflowStdioServer

here = pathlib.Path(__file__).parent
server = StepflowStdioServer()


@server.component
def work(input: dict) -> dict:
    with open(here / "began.txt", "a") as file:
        file.write(f"{os.getpid()} {input['name']}\\n")
    time.sleep(0.06)
    return {"name": input["name"]}


if __name__ == "__main__":
    server.run()
"""
CONFIG = f'''
plugins:
  builtin: {{type: builtin}}
  python: {{type: stepflow, transport: stdio, command: "{sys.executable}", args: ["components.py"]}}
routes:
  "/python/{{*component}}": [{{plugin: python}}]
  "/{{*component}}": [{{plugin: builtin}}]
'''
ONE = {
    "steps": [{"id": "w", "component": "/python/work", "input": {"name": {"$input": None}}}],
    "output": {"$step": "w", "path": "name"},
}
FLOW = {
    "steps": [
        {"id": "first", "component": "/python/work", "input": {"name": "first"}},
        {
            "id": "each",
            "component": "/map",
            "input": {"workflow": {"$literal": ONE}, "items": {"$input": "items"}, "max_concurrency": 2},
        },
        {"id": "last", "component": "/python/work", "input": {"name": "last", "after": {"$step": "each"}}},
    ],
    "output": [{"$step": "first", "path": "name"}, {"$step": "each", "path": "successful"}, {"$step": "last"}],
}


def seen(root: Path) -> Counter[str]:
    """How often each piece of work was begun."""
    path = root / "began.txt"
    return Counter(line.split()[1] for line in path.read_text().splitlines()) if path.exists() else Counter()


async def gone(root: Path) -> None:
    """Return when no component server is left."""
    pids = {int(line.split()[0]) for line in (root / "began.txt").read_text().splitlines()}
    async with asyncio.timeout(5):
        while any(_is_alive(pid) for pid in pids):
            await asyncio.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


@promise("stepflow.kill")
@pytest.mark.parametrize("way", ["file", "request"])
async def test_a_killed_flow_goes_on_with_each_recorded_step_once(tmp_path: Path, way: str) -> None:
    chance = random.Random(11)
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    (tmp_path / "src" / "workflows" / "work.json").write_text(json.dumps(FLOW))
    (tmp_path / "stepflow-config.yml").write_text(CONFIG)
    (tmp_path / "components.py").write_text(COMPONENTS)
    given = {"items": [f"item-{number}" for number in range(ITEMS)]}
    finished: dict[str, int] = {}
    run_id = ""
    for kill in range(KILLS):
        async with running(tmp_path) as server, httpx2.AsyncClient(base_url=server.url) as client:
            before = sum(seen(tmp_path).values())
            if kill == 0 and way == "file":
                run_id = (await client.post("/workflows/work", json=given)).json()["run_id"]
            elif kill == 0:
                stored = (await client.post("/api/v1/flows", json={"flow": FLOW})).json()["flowId"]
                await client.post("/api/v1/runs", json={"flowId": stored, "input": [given], "wait": False})
                run_id = (await client.get("/runs")).json()["runs"][0]["run_id"]
            async with asyncio.timeout(20):
                while sum(seen(tmp_path).values()) == before:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.08 + chance.random() * 0.1)  # long enough for a record: else it would be suspect
            await server.kill()
        await gone(tmp_path)
        begun = seen(tmp_path)
        async with reading(tmp_path) as journal:
            for step in await journal.steps(run_id):
                name = _work_of(step.key)
                if name is not None and step.status.value == "completed" and name not in finished:
                    finished[name] = begun[name]
    async with running(tmp_path), reading(tmp_path) as journal:
        (run,) = await until_final(journal, [run_id])
        expected = ["first", ITEMS, {"name": "last"}]
        shown = value(run.result)
        assert run.status.value == "completed"
        assert (shown if way == "file" else shown[0]["result"]) == expected
        await whole_record(journal, run)
    await gone(tmp_path)
    begun = seen(tmp_path)
    assert {name: begun[name] for name in finished} == finished
    assert 1 <= len(finished) < ITEMS + 2
    assert set(begun) == {"first", "last", *given["items"]}
    assert max(begun.values()) <= 1 + KILLS


def _work_of(key: str) -> str | None:
    """The piece of work that a step did."""
    key = key.removeprefix("[0]/")
    if key in ("first", "last"):
        return key
    head, _, name = key.rpartition("/")
    return f"item-{head[5:-1]}" if name == "w" else None
