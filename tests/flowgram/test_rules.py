"""Rules of FlowGram's runtime that concern several parts, each told by one small graph."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

import pyflue.flowgram as fg
from pyflue.flowgram import flowgram_dialect, retries
from pyflue.flowgram import report as reports
from pyflue.flowgram.document import read_document
from pyflue.flowgram.nodes import code
from tests.provider_server import provider_server, rate_limited, say
from tests.server.harness import client_of

from .graphs import (
    Log,
    const,
    edge,
    end,
    fields,
    graph,
    log_node,
    loop,
    messages,
    node,
    ref,
    start,
    statuses,
    typed,
)
from .test_conditions import compare, condition
from .test_http import Server, ok, request
from .test_llm import asking

ECHO = graph([start(msg="string"), end({"echo": ref("start", "msg")}, echo="string")], "start -> end")
NUMBERS = typed("array", items=typed("integer"))
BODY = [node("bs", "block-start"), node("be", "block-end")]


async def until(log: Log, name: str) -> None:
    """Until a node has started."""
    async with asyncio.timeout(5):
        await log.started.setdefault(name, asyncio.Event()).wait()


@asynccontextmanager
async def answering(server: Server) -> AsyncGenerator[Server]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    fg.allow_hosts(f"127.0.0.1:{server.port}")
    async with listening:
        yield server


# Branches


async def test_an_unported_edge_beside_the_port_that_is_taken_is_not_followed(log: Log) -> None:
    made = graph(
        [start(), log_node("b", takes="yes"), log_node("taken"), log_node("beside"), log_node("behind"), end()],
        "start -> b",
        "b.yes -> taken -> end",
        "b -> beside -> behind -> end",
    )
    task = fg.start(made, {})
    await task.wait()
    assert log.seen == ["b", "taken"]
    assert list(task.report().reports) == ["start", "b", "taken", "end"]


@pytest.mark.parametrize(("number", "branch", "followed"), [(3, "yes", "high"), (1, "else", "low")])
async def test_a_snapshot_tells_the_branch_that_was_taken(log: Log, number: int, branch: str, followed: str) -> None:
    made = graph(
        [start(n="integer"), condition(ref("start", "n"), "gt", const(2)), log_node("high"), log_node("low"), end()],
        "start -> if",
        "if.yes -> high -> end",
        "if.else -> low -> end",
    )
    task = fg.start(made, {"n": number})
    await task.wait()
    branches = {name: [s.branch for s in one.snapshots] for name, one in task.report().reports.items()}
    assert branches == {"start": [None], "if": [branch], followed: [None], "end": [None]}


@pytest.mark.parametrize("type_", ["object", "map", "array"])
async def test_null_of_any_container_is_empty(type_: str) -> None:
    assert await compare(type_, None, "is_empty") is True
    assert await compare(type_, None, "is_not_empty") is False


# The schema


def test_models_keep_fields_that_they_do_not_know() -> None:
    made = {
        "nodes": [{"id": "a", "type": "t", "mine": 1, "meta": {"position": {"x": 1, "y": 2}, "mine": 2}}],
        "edges": [{"sourceNodeID": "a", "targetNodeID": "a", "mine": 3}],
        "mine": 4,
    }
    kept = fg.WorkflowSchema.model_validate(made).model_dump(exclude_unset=True)
    assert kept == made


def test_models_need_neither_data_nor_nodes() -> None:
    empty: dict[str, Any] = {"nodes": [], "edges": [], "groups": None, "globalVariable": None}
    assert fg.WorkflowSchema.model_validate({}).model_dump() == empty
    bare = fg.WorkflowSchema.model_validate({"nodes": [{"id": "a", "type": "t"}]})
    assert bare.nodes[0].model_dump() == {
        "id": "a",
        "type": "t",
        "meta": {},
        "data": {},
        "blocks": None,
        "edges": None,
    }


async def test_groups_are_drawn_and_not_run() -> None:
    group = node("g", "group", parentID="root", blockIDs=["start", "nobody"])
    assert await fg.run({**ECHO, "groups": [group]}, {"msg": "x"}) == {"echo": "x"}


async def test_a_node_without_sound_outputs_stores_nothing(log: Log) -> None:
    broken = typed("object", properties={"v": {"title": "no type"}})
    for outputs in ({}, {"outputs": broken}, {"outputs": typed("string")}):
        made = graph(
            [start(), log_node("w", gives={"v": "x"}, **outputs), end({"v": ref("w", "v")}, v="string")],
            "start -> w -> end",
        )
        assert await fg.run(made, {}) == {}


def test_edges_have_ids_and_neighbours_are_told_once() -> None:
    made = graph([start(), node("if", "condition"), end()], "start -> if", "if.a -> end", "if.b -> end")
    made["edges"].append({**edge("start", "end", "p"), "targetPortID": "q"})
    nodes = read_document(made).nodes
    assert [one.id for one in nodes["end"].incoming] == ["if->a->end->", "if->b->end->", "start->p->end->q"]
    assert [one.id for one in nodes["end"].prev] == ["if", "start"]
    assert [one.id for one in nodes["if"].next] == ["end"]
    assert nodes["if"].ports == {"inputs": [], "outputs": ["a", "b"]}


@pytest.mark.parametrize("wrong", [const(3), {"type": "template", "content": "x"}, "start.xs"])
@pytest.mark.parametrize("place", ["loopFor", "loopOutputs", "left"])
async def test_where_only_a_reference_can_stand_nothing_else_is_taken(place: str, wrong: Any) -> None:
    over = wrong if place == "loopFor" else ref("start", "xs")
    collected = {"o": wrong} if place == "loopOutputs" else {}
    left = wrong if place == "left" else ref("start", "xs")
    made = graph(
        [start(xs=NUMBERS), condition(left, "is_not_empty"), loop(over, BODY, "bs -> be", collect=collected), end()],
        "start -> if",
        "if.yes -> loop -> end",
        "if.else -> end",
    )
    task = fg.start(made, {"xs": [1]})
    with pytest.raises(fg.NodeFailed):
        await task.wait()
    assert messages(task) == [("if" if place == "left" else "loop", f"Invalid ref value: {wrong!r}")]


# Values


async def test_what_a_node_gives_is_not_compared_with_the_type_that_it_declares(log: Log) -> None:
    made = graph(
        [
            start(),
            log_node("w", gives={"v": "text"}, outputs=fields(v="integer")),
            end({"v": ref("w", "v")}, v="integer"),
        ],
        "start -> w -> end",
    )
    assert await fg.run(made, {}) == {"v": "text"}


async def test_types_of_what_is_found_by_a_path_are_derived_from_it() -> None:
    given = {"yes": True, "one": 1}
    made = graph(
        [
            start(o="object"),
            end(
                {"b": ref("start", "o", "yes"), "i": ref("start", "o", "yes"), "not_b": ref("start", "o", "one")},
                b="boolean",
                i="integer",
                not_b="boolean",
            ),
        ],
        "start -> end",
    )
    assert await fg.run(made, {"o": given}) == {"b": True}


# Loops


async def test_blocks_begin_and_end_with_no_outputs() -> None:
    made = graph([start(xs=NUMBERS), loop(ref("start", "xs"), BODY, "bs -> be"), end()], "start -> loop -> end")
    task = fg.start(made, {"xs": [1, 2]})
    await task.wait()
    outputs = {name: [s.outputs for s in one.snapshots] for name, one in task.report().reports.items()}
    assert outputs == {"start": [{"xs": [1, 2]}], "loop": [{}], "bs": [{}, {}], "be": [{}, {}], "end": [{}]}


async def test_the_old_names_of_a_loops_fields_are_not_read() -> None:
    old = node("loop", "loop", batchFor=ref("start", "xs"), batchOutputs={"o": ref("loop_locals", "item")})
    old |= {"blocks": BODY, "edges": [edge("bs", "be")]}
    task = fg.start(graph([start(xs=NUMBERS), old, end()], "start -> loop -> end"), {"xs": [1]})
    with pytest.raises(fg.NodeFailed):
        await task.wait()
    assert messages(task) == [("loop", 'Loop "loopFor" is required')]


@pytest.mark.parametrize(
    ("items", "wanted", "given"),
    [
        (["a", 1], "string", ["a", 1]),
        ([1, "a"], "integer", [1, "a"]),
        ([1, "a"], "string", None),
    ],
)
async def test_items_of_a_collected_list_have_the_type_of_the_first(
    log: Log, items: list[Any], wanted: str, given: list[Any] | None
) -> None:
    first = loop(ref("start", "o", "xs"), BODY, "bs -> be", node_id="first", collect={"v": ref("first_locals", "item")})
    takes = log_node("w", inputs=fields(v=wanted), inputsValues={"v": ref("second_locals", "item")})
    second = loop(
        ref("first", "v"),
        [node("bs2", "block-start"), takes, node("be2", "block-end")],
        "bs2 -> w -> be2",
        node_id="second",
    )
    made = graph([start(o="object"), first, second, end()], "start -> first -> second -> end")
    await fg.run(made, {"o": {"xs": items}})
    assert [one.get("v") for one in log.inputs] == (given or [None, None])


async def test_a_nested_loop_goes_over_a_list_in_the_outer_item() -> None:
    inner = loop(
        ref("loop_locals", "item", "xs"),
        [node("is", "block-start"), node("ie", "block-end")],
        "is -> ie",
        node_id="inner",
        collect={"v": ref("inner_locals", "item")},
    )
    outer = loop(ref("start", "rows"), [*BODY, inner], "bs -> inner -> be", collect={"o": ref("inner", "v")})
    rows = typed("array", items=typed("object"))
    made = graph(
        [start(rows=rows), outer, end({"o": ref("loop", "o")}, o=typed("array"))],
        "start -> loop -> end",
    )
    assert await fg.run(made, {"rows": [{"xs": [1, 2]}, {"xs": []}, {"xs": ["a"]}]}) == {"o": [[1, 2], [], ["a"]]}


async def test_a_node_that_a_loop_comes_to_again_is_processing_again(log: Log) -> None:
    class Second(fg.INodeExecutor):
        type = "second"

        async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
            log.inputs.append({})
            if len(log.inputs) == 2:
                log.started["w"].set()
                await log.release["w"].wait()
            return fg.ExecutionResult()

    log.started["w"] = asyncio.Event()
    log.release["w"] = asyncio.Event()
    fg.register_executor(Second())
    body = [*BODY, node("w", "second")]
    made = graph([start(xs=NUMBERS), loop(ref("start", "xs"), body, "bs -> w -> be"), end()], "start -> loop -> end")
    task = fg.start(made, {"xs": [1, 2]})
    await until(log, "w")
    report = task.report().reports["w"]
    assert (report.status, report.terminated, report.endTime, len(report.snapshots)) == ("processing", False, None, 2)
    assert statuses(task) == {
        "start": "succeeded",
        "loop": "processing",
        "bs": "succeeded",
        "w": "processing",
        "be": "succeeded",
    }
    log.release["w"].set()
    await task.wait()
    assert task.report().reports["w"].status == "succeeded"


# The end of a run


async def test_a_task_that_is_cancelled_before_it_began_runs_nothing(log: Log) -> None:
    task = fg.start(graph([start(), log_node("a"), end()], "start -> a -> end"), {})
    assert task.cancel() is True
    assert (task.status, task.done(), task.result()) == (fg.WorkflowStatus.Cancelled, True, {})
    with pytest.raises(fg.GraphCancelled, match=rf"Run {task.id} was cancelled\."):
        await task.wait(5)
    assert await task.wait(raise_on_failure=False) == {}
    report = task.report()
    assert (log.seen, report.reports, report.messages, report.outputs) == ([], {}, [], {})
    assert (report.workflowStatus.status, report.workflowStatus.terminated) == ("canceled", True)


class Stubborn(fg.INodeExecutor):
    """Goes on until it is cancelled, and then gives or raises something all the same."""

    type = "stubborn"

    def __init__(self, log: Log) -> None:
        self._started = log.started.setdefault("w", asyncio.Event())

    async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
        self._started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ctx.node.data.get("raises"):
                raise RuntimeError("too late") from None
        return fg.ExecutionResult(outputs={"v": 1})


@pytest.mark.parametrize("data", [{}, {"raises": True}, {"raises": True, "retry": {"maxAttempts": 3, "delayMs": 0}}])
async def test_what_a_node_gives_after_its_run_was_cancelled_is_ignored(log: Log, data: dict[str, Any]) -> None:
    fg.register_executor(Stubborn(log))
    made = graph([start(), node("w", "stubborn", **data), log_node("after"), end()], "start -> w -> after -> end")
    task = fg.start(made, {})
    await until(log, "w")
    task.cancel()
    ended = task.report()
    with pytest.raises(fg.GraphCancelled):
        await task.wait(5)
    assert (log.seen, statuses(task), messages(task)) == ([], {"start": "succeeded", "w": "canceled"}, [])
    assert task.report() == ended
    assert ended.reports["w"].snapshots[0].outputs == {}


@pytest.mark.parametrize("raises", [False, True])
async def test_what_a_node_gives_after_another_has_failed_is_ignored(log: Log, raises: bool) -> None:
    fg.register_executor(Stubborn(log))
    log.failures_left["b"] = 1
    nodes = [start(), node("w", "stubborn", raises=raises), log_node("b", turns=3), log_node("after"), end()]
    task = fg.start(graph(nodes, "start -> w -> after -> end", "start -> b -> end"), {})
    with pytest.raises(fg.NodeFailed, match="b broke"):
        await task.wait(5)
    assert (log.seen, messages(task)) == (["b"], [("b", "b broke")])
    assert statuses(task) == {"start": "succeeded", "w": "canceled", "b": "failed"}


async def test_times_are_epoch_milliseconds_run_on_and_are_frozen_at_the_end(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_700_000_000_000]
    monkeypatch.setattr(reports, "now_ms", lambda: now[0])
    log.release["a"] = asyncio.Event()
    task = fg.start(graph([start(), log_node("a"), end()], "start -> a -> end"), {})
    await until(log, "a")
    for passed in (5, 12):
        now[0] = 1_700_000_000_000 + passed
        for status in (task.report().workflowStatus, task.report().reports["a"]):
            assert (status.startTime, status.endTime, status.timeCost) == (1_700_000_000_000, None, passed)
    log.release["a"].set()
    await task.wait()
    ended = task.report()
    now[0] += 1000
    assert task.report() == ended
    assert ended.workflowStatus.model_dump(mode="json") == {
        "status": "succeeded",
        "terminated": True,
        "startTime": 1_700_000_000_000,
        "endTime": 1_700_000_000_012,
        "timeCost": 12,
    }


def test_nothing_has_a_time_before_it_has_started() -> None:
    assert reports.Span().to_dict() == {
        "status": "pending",
        "terminated": False,
        "startTime": 0,
        "endTime": None,
        "timeCost": 0,
    }


async def test_messages_have_an_id_and_the_time(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "now_ms", lambda: 1_700_000_000_000)
    log.failures_left["a"] = 1
    task = fg.start(graph([start(), log_node("a"), end()], "start -> a -> end"), {})
    assert await task.wait(raise_on_failure=False) == {}
    first, again = (task.report().messages[0].model_dump() for _ in range(2))
    assert first == again
    assert isinstance(first["id"], str)
    assert first.pop("id")
    assert first == {"nodeID": "a", "type": "error", "message": "a broke", "timestamp": 1_700_000_000_000}


# http, llm, code


async def test_a_timeout_is_tried_again_and_each_attempt_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def no_pause(delay: float) -> None:
        pauses.append(delay)

    class SilentTwice(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self.requests) < 2:
                self.requests.append(("", {}, await reader.readuntil(b"\r\n\r\n")))
                await reader.read()  # until the client gives up
                writer.close()
            else:
                await super().serve(reader, writer)

    async with answering(SilentTwice()) as server:
        made = request(server.url, timeout={"timeout": 400, "retryTimes": 2})
        monkeypatch.setattr(retries, "sleep", no_pause)
        # One clock for all of them would have run out in the first.
        assert await fg.run(made, {}) == {"code": 200, "body": "fine"}
        assert (len(server.requests), pauses) == (3, [1, 2])


@pytest.mark.parametrize(("method", "sent"), [("DELETE", b"text"), ("HEAD", b"")])
async def test_a_delete_has_a_body_and_a_head_has_none(method: str, sent: bytes) -> None:
    async with answering(Server(answers=[ok(b"")])) as server:
        made = request(
            server.url + "/r", method, body={"bodyType": "raw-text", "rawText": {"type": "template", "content": "text"}}
        )
        assert await fg.run(made, {}) == {"code": 200, "body": ""}
        line, headers, body = server.requests[0]
        assert (line, body) == (f"{method} /r", sent)
        assert headers.get("content-type") == ("text/plain" if sent else None)


async def test_a_model_is_asked_three_times_at_most() -> None:
    fg.allow_hosts("127.0.0.1")
    limited = rate_limited(retry_after="0")
    async with provider_server([limited, limited, say("third")]) as server:
        assert await fg.run(asking(server.providers["openai"].base_url or ""), {"q": "x"}) == {"a": "third"}
        assert len(server.requests) == 3
    async with provider_server([limited, limited, limited, say("never asked for")]) as server:
        with pytest.raises(fg.NodeFailed):
            await fg.run(asking(server.providers["openai"].base_url or ""), {"q": "x"})
        assert len(server.requests) == 3


def test_a_script_has_a_minute() -> None:
    assert code.TIMEOUT_S == 60


# Validation and the API


def test_inputs_are_looked_at_only_if_the_graph_is_sound() -> None:
    broken = graph([start(msg="string"), end()], "start -> end", "start -> nobody")
    graph_only = fg.validate(broken).errors
    assert graph_only == ["Edge target node 'nobody' does not exist"]
    assert fg.validate(broken, {"msg": 3}).errors == graph_only


def test_a_time_has_to_be_text() -> None:
    made = graph([start(at="date-time"), end()], "start -> end")
    assert fg.validate(made, {"at": "2026-01-01T00:00:00Z"}).valid
    assert fg.validate(made, {"at": 5}).errors == ["JSON Schema validation failed: 5 is not of type 'string' (at at)"]


async def test_the_api_tells_the_time_validates_inputs_and_takes_any_payload() -> None:
    async with client_of(fg.create_app()) as client:
        told = (await client.get("/info")).json()["time"]
        assert datetime.fromisoformat(told).utcoffset() is not None
        answer = await client.post("/task/validate", json={"schema": json.dumps(ECHO), "inputs": {"msg": 3}})
        assert (answer.status_code, answer.json()) == (
            200,
            {
                "valid": False,
                "errors": ["JSON Schema validation failed: 3 is not of type 'string' (at msg)"],
                "warnings": [],
            },
        )
        headers = {"content-type": "application/json"}
        for payload in (5, "text", [1], None, {"json": 5}, {"json": [1]}):
            body = json.dumps(payload)
            said = (await client.post("/trpc/info", content=body, headers=headers)).json()
            assert said["result"]["data"]["runtime"] == "python"
            missing = await client.post("/trpc/task.validate", content=body, headers=headers)
            nothing = await client.post("/trpc/task.validate", json={})
            assert (missing.status_code, missing.json()) == (nothing.status_code, nothing.json())


def test_operations_have_flowgrams_ids_and_tags() -> None:
    told = {
        path: {method: (one["operationId"], one["tags"]) for method, one in methods.items()}
        for path, methods in flowgram_dialect().operations().items()
        if path.startswith(("/info", "/task"))
    }
    assert told == {
        "/info": {"get": ("ServerInfo", ["Info"])},
        "/task/run": {"post": ("TaskRun", ["Task"])},
        "/task/report": {"get": ("TaskReport", ["Task"])},
        "/task/result": {"get": ("TaskResult", ["Task"])},
        "/task/cancel": {"put": ("TaskCancel", ["Task"])},
        "/task/validate": {"post": ("TaskValidate", ["Task"])},
    }


# The library


def test_every_name_of_flowgram_runtime_is_there() -> None:
    names = (
        "SchemaInput Task register_executor reset run run_sync start validate ExecutionContext ExecutionResult "
        "FlowGramNode INodeExecutor IReport InvokeParams ValidationResult WorkflowInputs WorkflowOutputs "
        "WorkflowSchema WorkflowStatus WorkflowApplication __version__ create_app"
    )
    assert set(names.split()) - set(fg.__all__) == set()


async def test_an_executor_sees_its_node_the_variables_and_the_container() -> None:
    seen: list[fg.ExecutionContext] = []

    class Looks(fg.INodeExecutor):
        type = "looks"

        async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
            seen.append(ctx)
            return fg.ExecutionResult()

    fg.register_executor(Looks())
    looks = node("w", "looks", title="W", outputs=fields(v="string"), more=1)
    made = graph(
        [start(xs=NUMBERS), loop(ref("start", "xs"), [*BODY, looks], "bs -> w", "w.p -> be", "w -> be"), end()],
        "start -> loop -> end",
    )
    await fg.run(made, {"xs": [7]})
    (ctx,) = seen
    found = ctx.node
    assert (found.id, found.type, found.name, found.position) == ("w", "looks", "W", {"x": 0, "y": 0})
    assert (found.data, found.declare) == (looks["data"], {"outputs": fields(v="string")})
    assert found.ports == {"inputs": [], "outputs": ["p"]}
    assert {side: [one.id for one in listed] for side, listed in found.edges.items()} == {
        "inputs": ["bs->->w->"],
        "outputs": ["w->p->be->", "w->->be->"],
    }
    assert [[one.id for one in side] for side in (found.prev, found.next, found.children)] == [["bs"], ["be"], []]
    assert found.parent is not None
    assert (found.parent.id, [one.id for one in found.parent.children]) == ("loop", ["bs", "be", "w"])
    item = ctx.runtime.find("loop_locals", "item")
    assert item is not None
    assert (item.value, item.type) == (7, "integer")
    assert "looks" in ctx.container.get("Executor").types


async def test_a_new_application_knows_nothing_of_the_old_one(log: Log) -> None:
    old = fg.WorkflowApplication.instance()
    task_id = old.run({"schema": ECHO, "inputs": {"msg": "x"}})
    new = fg.WorkflowApplication.reset()
    assert new is fg.WorkflowApplication.instance()
    assert new is not old
    assert (new.tasks, new.report(task_id), new.cancel(task_id)) == ({}, None, False)
    assert "log" in old.executors.types
    assert "log" not in new.executors.types
    assert await old.tasks[task_id].wait() == {"echo": "x"}


async def test_a_server_says_what_its_configuration_says() -> None:
    config = fg.ServerConfig(
        name="n", title="t", description="d", runtime="r", version="v", port=1, host="h", base_path="/base"
    )
    assert (config.port, config.host) == (1, "h")
    assert (fg.ServerConfig().port, fg.ServerConfig().host, fg.ServerConfig().base_path) == (4000, "127.0.0.1", "")
    async with client_of(fg.create_app(config)) as client:
        said = (await client.get("/base/info")).json()
        assert said.pop("time")
        assert said == {"name": "n", "title": "t", "description": "d", "runtime": "r", "version": "v"}
        assert (await client.get("/info")).status_code == 404
