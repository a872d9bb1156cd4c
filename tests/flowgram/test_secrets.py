"""Keys that are written into graphs: wherever somebody looks at a run, they are not to be seen."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

import pyflue.flowgram as fg
from pyflue import codec
from pyflue.flowgram.document import read_document
from pyflue.flowgram.masking import _NAMES, Secrets, secrets_of
from tests.cli.cli_project import Cli
from tests.cli.conftest import cli as cli  # the command line, called in process
from tests.promises import promise
from tests.server.harness import in_process

from .graphs import Json, Log, const, end, fields, graph, log_node, node, ref, start, template, typed

#: Each stands in another place of the graph.
PLANTED = {name: f"sk-planted-{name}-4711" for name in ("key", "bearer", "default", "global", "url", "parameter")}


def leaky() -> Json:
    """A graph that holds keys, whose last node fails with all of them in what it says."""
    return graph(
        [
            start(n="integer", token=typed("string", default=PLANTED["default"])),
            log_node(
                "w",
                inputs=fields(apiKey="string", secret="string"),
                inputsValues={"apiKey": const(PLANTED["key"]), "secret": ref("global", "password")},
            ),
            node(
                "h",
                "http",
                api={"method": "GET", "url": template(f"http://127.0.0.1:9/x?api_key={PLANTED['url']}&q=1")},
                headers=fields(Authorization="string"),
                headersValues={"Authorization": const(f"Bearer {PLANTED['bearer']}")},
                params=fields(token="string"),
                paramsValues={"token": const(PLANTED["parameter"])},
            ),
            log_node("says"),
            end(),
        ],
        "start -> w -> says -> h -> end",
        globalVariable=fields(password=typed("string", default=PLANTED["global"])),
    )


class Says(fg.INodeExecutor):
    """Fails with every key in its words."""

    type = "log"

    async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
        if ctx.node.id == "says":
            raise RuntimeError(f"refused: {' '.join(PLANTED.values())}")
        return fg.ExecutionResult()


@promise("flowgram.secrets")
async def test_keys_in_a_graph_of_a_request_are_not_shown_by_any_answer_about_its_run(tmp_path: Path, log: Log) -> None:
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    for executor in (log, Says()):  # the request of the http node is made, and refused; then the one before fails
        fg.register_executor(executor)
        async with in_process(tmp_path) as here:
            run_id = await started(here.client)
            paths = [f"/runs/{run_id}", "/runs?limit=10", f"/runs/{run_id}/steps", f"/runs/{run_id}/events"]
            paths += [f"{prefix}/task/report?taskID={run_id}" for prefix in ("", "/api")]
            texts = [(await here.client.get(path)).text for path in paths]
            record = json.loads(texts[0])
    assert (record["payload"], record["status"]) == ({"inputs": {"n": 1}}, "failed")
    assert [text for text in texts if "planted" in text] == []
    assert "***" in texts[-1]
    assert log.inputs[0] == {"apiKey": PLANTED["key"], "secret": PLANTED["global"]}  # the nodes themselves have them


async def started(client: httpx2.AsyncClient) -> str:
    """A run of the graph that has ended."""
    body = {"schema": json.dumps(leaky()), "inputs": {"n": 1}}
    answer = await client.post("/task/run", json=body)
    assert answer.status_code == 200, answer.text
    run_id = answer.json()["taskID"]
    async with asyncio.timeout(20):
        while (await client.get("/task/result", params={"taskID": run_id})).json() is None:
            await asyncio.sleep(0.01)
    return run_id


@promise("flowgram.secrets")
def test_keys_in_a_graph_of_a_request_are_not_shown_by_the_command_line(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    (tmp_path / "pyflue.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    fg.register_executor(Says())

    async def run() -> str:
        async with in_process(tmp_path) as here:
            return await started(here.client)

    run_id = asyncio.run(run())
    for arguments in (
        ("runs", "show", run_id),
        ("runs", "show", run_id, "--json"),
        ("runs", "steps", run_id),
        ("runs", "steps", run_id, "--json"),
        ("runs", "list", "--json"),
        ("logs", run_id),
        ("logs", run_id, "--format", "json"),
    ):
        shown = cli(*arguments)
        assert shown.exit_code == 0, shown.output
        assert "planted" not in shown.output


def test_a_retry_of_such_a_run_has_the_graph(tmp_path: Path, cli: Cli, log: Log) -> None:
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    log.failures_left["w"] = 1
    schema = graph([start(n="integer"), log_node("w"), end({"n": ref("start", "n")}, n="integer")], "start -> w -> end")

    async def run() -> Any:
        async with in_process(tmp_path) as here:
            task = (await here.client.post("/task/run", json={"schema": json.dumps(schema), "inputs": {"n": 3}})).json()
            for wanted in ("failed", "completed"):
                async with asyncio.timeout(10):
                    while (record := (await here.client.get(f"/runs/{task['taskID']}")).json())["status"] != wanted:
                        await asyncio.sleep(0.01)
                if wanted == "failed":
                    again = await here.client.post(f"/runs/{task['taskID']}/retry")
                    task = {"taskID": again.json()["run_id"]}
            return record["result"]

    assert asyncio.run(run()) == {"n": 3}
    assert log.seen == ["w", "w"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"at {PLANTED['bearer']}", "at ***"),
        (f"Authorization: Bearer {PLANTED['bearer']}", "Authorization: ***"),
        (f"GET http://x/?api_key={PLANTED['url']}&q=1", "GET http://x/?api_key=***&q=1"),
        (f"{PLANTED['global']}/{PLANTED['default']}", "***/***"),
    ],
)
def test_keys_are_found_where_graphs_hold_them(text: str, shown: str) -> None:
    assert secrets_of(read_document(leaky()), {}).text(text) == shown


@pytest.mark.parametrize("name", sorted(_NAMES))
def test_written_json_is_masked_as_the_value_is(name: str) -> None:
    for spelt in (name, name.upper(), "-".join(name), f"_{name[:3]} {name[3:]}"):
        value = {"a": [{spelt: "planted-4711", "other": 1}]}
        assert codec.load(Secrets().masked_json(value)) == {"a": [{spelt: "***", "other": 1}]}
    assert codec.load(Secrets().masked_json({"plain": ["x", None, 1.5]})) == {"plain": ["x", None, 1.5]}
    assert codec.load(Secrets(["planted-4711"]).masked_json({"plain": "planted-4711"})) == {"plain": "***"}
    assert "planted" not in codec.load(Secrets().masked_json({name: "planted-4711", "odd": {1}}))["odd"]
