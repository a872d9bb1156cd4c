"""kill -9 of a real server, between and inside of nodes and loop iterations: each finished node runs once."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from pyflue.flowgram import network
from tests.promises import promise
from tests.reliability.processes import reading, running, until_final, value, whole_record

from .graphs import Json, end, fields, graph, loop, node, ref, start, template, typed

KILLS = 4
ITEMS = 24


class Counting:
    """A server that counts what it is asked, and takes its time."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
            self.seen[line.split(" ")[1]] += 1
            await asyncio.sleep(0.03)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the one who asked was killed
        finally:
            writer.close()


def asks(node_id: str, path: str, port: int) -> Json:
    api = {"method": "GET", "url": template(f"http://127.0.0.1:{port}{path}")}
    return node(node_id, "http", api=api, outputs=fields(body="string"))


def work(port: int) -> Json:
    numbers = typed("array", items=typed("integer"))
    body = [
        node("bs", "block-start"),
        asks("a", "/a/{{loop_locals.index}}", port),
        asks("b", "/b/{{loop_locals.index}}", port),
        node("be", "block-end"),
    ]
    return graph(
        [
            start(xs=numbers),
            asks("first", "/first", port),
            loop(ref("start", "xs"), body, "bs -> a -> be", "bs -> b -> be", collect={"o": ref("a", "body")}),
            asks("last", "/last", port),
            end({"o": ref("loop", "o")}, o=typed("array", items=typed("string"))),
        ],
        "start -> first -> loop -> last -> end",
    )


@promise("flowgram.kill")
@pytest.mark.parametrize("way", ["file", "request"])
async def test_a_killed_graph_goes_on_with_each_finished_node_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv(network.VARIABLE, "127.0.0.1")
    counting, chance = Counting(), random.Random(7)
    listening = await asyncio.start_server(counting.serve, "127.0.0.1", 0)
    schema = work(listening.sockets[0].getsockname()[1])
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    (tmp_path / "src" / "workflows" / "work.json").write_text(json.dumps(schema))
    inputs = {"xs": list(range(ITEMS))}
    finished: dict[str, int] = {}
    run_id = ""
    async with listening:
        for kill in range(KILLS):
            async with running(tmp_path) as server, httpx2.AsyncClient(base_url=server.url) as client:
                asked = sum(counting.seen.values())
                if kill == 0 and way == "file":
                    run_id = (await client.post("/workflows/work", json=inputs)).json()["run_id"]
                elif kill == 0:
                    run = await client.post("/api/task/run", json={"schema": json.dumps(schema), "inputs": inputs})
                    run_id = run.json()["taskID"]
                async with asyncio.timeout(20):
                    while sum(counting.seen.values()) == asked:
                        await asyncio.sleep(0.005)
                await asyncio.sleep(0.08 + chance.random() * 0.1)  # long enough for a record: else it would be suspect
                await server.kill()
            async with reading(tmp_path) as journal:
                steps = await journal.steps(run_id)
            paths = {path_of(step.key) for step in steps if step.status.value == "completed"} - {None}
            finished |= {str(path): counting.seen[str(path)] for path in paths if path not in finished}
        async with running(tmp_path), reading(tmp_path) as journal:
            (run,) = await until_final(journal, [run_id])
            assert (run.status.value, value(run.result)) == ("completed", {"o": ["ok"] * ITEMS})
            await whole_record(journal, run)
    assert {path: counting.seen[path] for path in finished} == finished
    assert 1 <= len(finished) < 2 * ITEMS + 2
    assert set(counting.seen) == {"/first", "/last", *(f"/{name}/{index}" for name in "ab" for index in range(ITEMS))}
    assert max(counting.seen.values()) <= 1 + KILLS


def path_of(key: str) -> str | None:
    """What the node of a step asks for."""
    if key in ("first", "last"):
        return f"/{key}"
    head, _, name = key.rpartition("/")
    return f"/{name}/{head[5:-1]}" if name in ("a", "b") else None
