"""A process that serves for long, with the garbage collector as `pyflue serve` sets it, keeps nothing of runs."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import httpx2
import pytest

from pyflue import memory
from pyflue.memory import settle_memory
from tests.server.harness import in_process, write_project

WORKFLOWS = {
    "plain": """
async def run(ctx):
    ctx.log.info("begun")
    doubled = await ctx.step("double", lambda: [ctx.payload["number"]] * 2)
    await ctx.sleep(0)
    return {"doubled": doubled, "items": [{"n": n} for n in range(20)]}
""",
    "fails": """
async def run(ctx):
    await ctx.step("break", lambda: 1 / 0)
""",
    "agent": """
from pyflue.agents import create_agent, tool
from pyflue.agents.models.scripted import ScriptedModel

@tool
def look(number: int) -> str:
    \"\"\"Look something up.\"\"\"
    return f"found {number}"

def answer(request):
    asked = sum(message.role == "assistant" for message in request.messages) % 2
    if asked == 0:
        return {"tool_calls": [("look", {"number": 1}), ("write", {"path": "a.txt", "content": "x"})]}
    return "Done."

agent = create_agent(lambda: {"model": ScriptedModel(answer, id="scripted/looks"), "tools": [look]})

async def run(ctx):
    session = await (await ctx.init(agent)).session()
    await session.prompt("Go")
    return (await session.prompt(f"Go on with {ctx.payload}")).text
""",
}
#: What may be more than before, whatever the number of runs: caches that fill, a connection of a reader.
SLACK_OBJECTS = 400


@pytest.fixture
def settled() -> Iterator[None]:
    threshold = gc.get_threshold()
    settle_memory()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[httpx2.AsyncClient, None]:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    write_project(tmp_path, WORKFLOWS)
    async with in_process(tmp_path) as here:
        yield here.client


async def invoke(client: httpx2.AsyncClient, workflow: str, count: int) -> None:
    status = 500 if workflow == "fails" else 200
    for first in range(0, count, 10):
        answers = await asyncio.gather(
            *(
                client.post(f"/workflows/{workflow}?wait=result", json={"number": number})
                for number in range(first, first + 10)
            )
        )
        assert [answer.status_code for answer in answers] == [status] * 10, answers[0].text


def kinds() -> Counter[str]:
    """How many objects there are of each type."""
    return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(("workflow", "count"), [("plain", 400), ("fails", 400), ("agent", 200)])
async def test_nothing_stays_of_runs_that_are_over(client: httpx2.AsyncClient, workflow: str, count: int) -> None:
    await invoke(client, workflow, 50)  # what is imported and cached at first use
    gc.collect()
    before = kinds()

    await invoke(client, workflow, count)
    await asyncio.sleep(0)
    gc.collect()

    more = kinds() - before
    assert more.total() < SLACK_OBJECTS, more.most_common(10)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(("workflow", "most_objects"), [("plain", 10), ("agent", 170)])
async def test_little_of_a_run_is_left_to_the_collector(
    client: httpx2.AsyncClient, workflow: str, most_objects: int
) -> None:
    """It looks seldom, so what only it can free would pile up meanwhile."""
    await invoke(client, workflow, 50)
    gc.collect()
    gc.disable()
    try:
        before = kinds()
        await invoke(client, workflow, 100)
        await asyncio.sleep(0)
        more = kinds() - before
    finally:
        gc.enable()
    assert more.total() < 100 * most_objects, more.most_common(10)


@pytest.mark.usefixtures("settled")
def test_what_is_loaded_is_not_looked_through_again() -> None:
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] == 150_000
    assert gc.isenabled()


class Held:
    """Something that only the collector frees."""

    itself: Held
    data: bytes


@pytest.mark.usefixtures("settled")
async def test_large_things_in_cycles_are_freed_before_many_of_them_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_LOOK_EVERY_S", 0.01)
    is_freed = asyncio.Event()
    memory.watch_memory(asyncio.get_running_loop())

    held = Held()
    held.itself, held.data = held, b"x" * 256 * 1024**2
    weakref.finalize(held, is_freed.set)
    del held

    async with asyncio.timeout(10):
        await is_freed.wait()
