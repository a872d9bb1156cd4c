"""More rules of FlowGram's runtime, each told by one small graph: the schema, values, control, the API, the editor."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pydantic
import pytest

import pyflue.flowgram as fg
from pyflue.flowgram.conditions import RULES, UNARY
from pyflue.flowgram.nodes import code
from tests.cli.cli_project import Cli
from tests.cli.conftest import cli as cli  # the command line, called in process
from tests.promises import promise
from tests.provider_server import provider_server, say
from tests.provider_server.script import Answer
from tests.reliability.processes import running
from tests.server.harness import client_of, in_process

from .graphs import (
    Json,
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
    template,
    typed,
)
from .test_api import client as client  # a project's server, and the library's application
from .test_api import get, result, run
from .test_code import error_of, scripted, value_of
from .test_conditions import chosen, compare, condition
from .test_http import Server, request
from .test_llm import asking
from .test_rules import BODY, ECHO, NUMBERS, answering
from .test_values import given as given_by

# The schema


@pytest.mark.parametrize(
    "missing",
    [
        {"nodes": [{"type": "t"}]},
        {"nodes": [{"id": "a"}]},
        {"nodes": [], "edges": [{"sourceNodeID": "a"}]},
        {"nodes": [], "edges": [{"targetNodeID": "a"}]},
        {"nodes": [{"id": "l", "type": "loop", "blocks": [{"id": "a"}]}]},
    ],
)
def test_ids_types_and_the_ends_of_edges_are_all_that_models_need(missing: Json) -> None:
    with pytest.raises(pydantic.ValidationError):
        fg.WorkflowSchema.model_validate(missing)
    bare = {"nodes": [], "edges": [{"sourceNodeID": "a", "targetNodeID": "b"}]}
    (drawn,) = fg.WorkflowSchema.model_validate(bare).edges
    assert drawn.model_dump() == {
        "sourceNodeID": "a",
        "targetNodeID": "b",
        "sourcePortID": None,
        "targetPortID": None,
    }


async def test_schemas_may_hold_whatever_the_editor_writes_into_them() -> None:
    written: Json = {
        "type": "object",
        "required": ["name"],
        "extra": {"index": 0},
        "properties": {
            "name": typed("string", title="N", description="d", enum=["a", "b"], extra={"formComponent": "x"}),
            "tags": typed("array", items=typed("string"), default='["t"]', extra={"index": 1, "weak": True}),
            "more": typed("map", additionalProperties=typed("integer")),
            "at": typed("date-time"),
            "none": typed("null"),
            "deep": typed("object", properties={"x": typed("number")}, required=["x"]),
        },
    }
    first = node("start", "start", outputs=written)
    names = ("name", "tags", "more", "at", "none", "deep")
    last = end({name: ref("start", name) for name in names}, **{n: written["properties"][n] for n in names})
    made = graph([first, last], "start -> end")
    given = {"name": "a", "more": {"k": 1}, "at": "2026-01-01T00:00:00Z", "none": None, "deep": {"x": 1.5}}
    assert fg.validate(made, given) == fg.ValidationResult(valid=True)
    assert await fg.run(made, given) == {**given, "tags": ["t"]}
    assert not fg.validate(made, {**given, "deep": {}}).valid


@pytest.mark.parametrize("value", [{}, {"content": "x"}, [], 3])
async def test_a_value_without_a_type_fails_its_node(value: Any) -> None:
    with pytest.raises(fg.NodeFailed) as failed:
        await given_by(value, "string")
    assert (failed.value.node_id, failed.value.message) == ("end", f"Invalid flow value type: {value!r}")


async def test_a_null_is_nothing_in_a_template_and_fractions_stay() -> None:
    made = graph(
        [
            start(text="string", x="number"),
            end({"v": template("<{{start.text}}|{{start.x}}|{{start.text.deep}}>")}, v="string"),
        ],
        "start -> end",
    )
    assert await fg.run(made, {"x": 2.5}) == {"v": "<|2.5|>"}


async def test_branches_of_the_same_name_are_ports_of_their_own_nodes(log: Log) -> None:
    first = {**condition(ref("start", "n"), "gt", const(0)), "id": "one"}
    second = {**condition(ref("start", "n"), "gt", const(5)), "id": "two"}
    made = graph(
        [start(n="integer"), first, second, *map(log_node, ("a", "b", "c", "d")), end()],
        "start -> one",
        "start -> two",
        "one.yes -> a -> end",
        "one.else -> b -> end",
        "two.yes -> c -> end",
        "two.else -> d -> end",
    )
    await fg.run(made, {"n": 3})
    assert sorted(log.seen) == ["a", "d"]


async def test_a_node_knows_where_it_is_drawn_and_that_the_graph_is_above_it() -> None:
    seen: list[Any] = []

    class Looks(fg.INodeExecutor):
        type = "looks"

        async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
            seen.append((ctx.node, ctx.runtime.find("loop_locals", "index")))
            return fg.ExecutionResult()

    fg.register_executor(Looks())
    drawn = {**node("a", "looks"), "meta": {"position": {"x": 12.5, "y": -3}}}
    bare = {"id": "b", "type": "looks"}
    made = graph(
        [start(xs=NUMBERS), drawn, loop(ref("start", "xs"), [*BODY, bare], "bs -> b -> be"), end()],
        "start -> a -> loop -> end",
    )
    await fg.run(made, {"xs": [7, 8]})
    (a, _), (b, first), (_, second) = seen
    assert (a.position, b.position) == ({"x": 12.5, "y": -3}, {"x": 0, "y": 0})
    assert [(one.value, one.type) for one in (first, second)] == [(0, "number"), (1, "number")]
    top = a.parent
    assert (top.id, top.type, top.parent) == ("root", "root", None)
    assert [one.id for one in top.children] == ["start", "a", "loop", "end"]
    assert (b.parent.id, b.parent.parent) == ("loop", top)


# Variables


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (True, "boolean"),
        (1, "integer"),
        (1.5, "number"),
        ("text", "string"),
        ([1], "array"),
        ({"k": 1}, "object"),
        (datetime(2026, 1, 1, tzinfo=UTC), "date-time"),
    ],
)
async def test_each_kind_of_value_below_a_path_has_its_type(log: Log, value: Any, type_: str) -> None:
    wanted = "boolean" if type_ != "boolean" else "string"
    made = graph(
        [
            start(),
            log_node("w", gives={"o": {"v": value}}, outputs=fields(o="object")),
            log_node("same", inputs=fields(v=type_), inputsValues={"v": ref("w", "o", "v")}),
            end({"v": ref("w", "o", "v")}, v=wanted),
        ],
        "start -> w -> same -> end",
    )
    task = fg.start(made, {})
    assert await task.wait() == {}
    assert messages(task) == [("end", f"Input 'v' is declared as {wanted}, but was given {type_}")]
    assert log.inputs[1] == {"v": value}


async def test_a_variable_that_was_never_set_and_a_node_that_was_skipped_have_no_value(log: Log) -> None:
    made = graph(
        [
            start(n="integer"),
            condition(ref("start", "n"), "gt", const(0)),
            log_node("w", gives={"v": "x"}, outputs=fields(v="string")),
            end({"skipped": ref("w", "v"), "unknown": ref("start", "zz")}, skipped="string", unknown="string"),
        ],
        "start -> if",
        "if.yes -> w -> end",
        "if.else -> end",
    )
    assert await fg.run(made, {"n": 0}) == {}
    assert await chosen(condition(ref("start", "zz"), "is_empty"), {"n": 1}, n="integer")


async def test_defaults_of_global_variables_are_read_as_json_where_that_is_declared() -> None:
    declared = fields(xs={**NUMBERS, "default": "[1, 2]"}, text=typed("string", default="[1]"), none="string")
    values = {name: ref("global", name) for name in ("xs", "text", "none")}
    made = graph(
        [start(), end(values, xs=NUMBERS, text="string", none="string")], "start -> end", globalVariable=declared
    )
    assert await fg.run(made, {}) == {"xs": [1, 2], "text": "[1]", "none": None}


async def test_variables_of_all_scopes_around_an_iteration_are_seen_in_it(log: Log) -> None:
    values = {"outer": ref("loop_locals", "item"), "inner": ref("inner_locals", "item"), "x": ref("start", "x")}
    work = log_node("w", inputs=fields(outer="string", inner="integer", x="string"), inputsValues=values)
    inner = loop(
        ref("start", "xs"), [node("is", "block-start"), work, node("ie", "block-end")], "is -> w -> ie", node_id="inner"
    )
    names = typed("array", items=typed("string"))
    made = graph(
        [
            start(names=names, xs=NUMBERS, x="string"),
            loop(ref("start", "names"), [*BODY, inner], "bs -> inner -> be"),
            end(),
        ],
        "start -> loop -> end",
    )
    await fg.run(made, {"names": ["a", "b"], "xs": [1, 2], "x": "all"})
    assert log.inputs == [{"outer": name, "inner": number, "x": "all"} for name in "ab" for number in (1, 2)]


async def test_a_variable_nodes_own_variables_need_no_declared_outputs() -> None:
    assign = [{"operator": "declare", "left": "own", "right": const("x")}]
    made = graph(
        [start(), node("v", "variable", assign=assign), end({"own": ref("v", "own")}, own="string")],
        "start -> v -> end",
    )
    assert await fg.run(made, {}) == {"own": "x"}


# Scheduling


async def test_nothing_follows_an_end_or_a_break(log: Log) -> None:
    for last in ("end", "break"):
        made = graph(
            [start(), node("stop", "break"), log_node("after"), end()],
            f"start -> {'end' if last == 'end' else 'stop'}",
            f"{'end' if last == 'end' else 'stop'} -> after",
        )
        task = fg.start(made, {})
        assert await task.wait() == {}
        assert task.status is fg.WorkflowStatus.Succeeded
    assert log.seen == []


@pytest.mark.parametrize("last", ["block-end", "break", "continue"])
async def test_nothing_follows_the_end_of_an_iteration(log: Log, last: str) -> None:
    body = [node("bs", "block-start"), node("stop", last), log_node("after")]
    made = graph(
        [start(xs=NUMBERS), loop(ref("start", "xs"), body, "bs -> stop -> after"), end()], "start -> loop -> end"
    )
    assert await fg.run(made, {"xs": [1, 2]}) == {}
    assert log.seen == []


async def test_iterations_follow_one_another(log: Log) -> None:
    body = [*BODY, log_node("slow", turns=3), log_node("then")]
    made = graph(
        [start(xs=NUMBERS), loop(ref("start", "xs"), body, "bs -> slow -> then -> be"), end()], "start -> loop -> end"
    )
    await fg.run(made, {"xs": [1, 2, 3]})
    assert log.seen == ["slow", "then"] * 3


@pytest.mark.parametrize(("type_", "lines"), [("root", []), ("comment", ["start -> x"]), ("group", ["start -> x"])])
def test_names_of_types_without_an_executor_cannot_be_run(type_: str, lines: list[str]) -> None:
    made = graph([start(), node("x", type_), end()], "start -> end", *lines)
    told = f"Node 'x' has an unknown type {type_!r}: No executor found for it"
    assert fg.validate(made).errors == [told]
    with pytest.raises(fg.GraphInvalid) as invalid:
        fg.run_sync(made, {})
    assert invalid.value.errors == [told]


# Conditions

#: For each operator that has a right side: a value on the left, and one on the right that makes it hold.
HOLDS: dict[str, dict[str, tuple[Any, Any]]] = {
    "string": {"eq": ("a", "a"), "neq": ("a", "b"), "contains": ("ab", "a"), "not_contains": ("ab", "x")},
    "number": {"eq": (2.5, 2.5), "neq": (2.5, 3), "gt": (2.5, 1), "gte": (2.5, 1), "lt": (2.5, 3), "lte": (2.5, 3)},
    "integer": {"eq": (2, 2), "neq": (2, 3), "gt": (2, 1), "gte": (2, 1), "lt": (2, 3), "lte": (2, 3)},
    "boolean": {"eq": (True, True), "neq": (True, False)},
    "date-time": {
        "eq": ("2026-01-02", "2026-01-02"),
        "neq": ("2026-01-02", "2026-01-01"),
        "gt": ("2026-01-02", "2026-01-01"),
        "gte": ("2026-01-02", "2026-01-01"),
        "lt": ("2026-01-01", "2026-01-02"),
        "lte": ("2026-01-01", "2026-01-02"),
    },
    "null": {"eq": (None, None)},
}
for _type in ("string", "number", "integer", "boolean"):
    _left = HOLDS[_type]["eq"][0]
    HOLDS[_type] |= {"in": (_left, [_left]), "nin": (_left, [])}
#: What the table says the right side has to be.
WANTED = {
    (type_, operator): "array" if operator in ("in", "nin") else type_
    for type_, operators in HOLDS.items()
    for operator in operators
}
ALL_TYPES = ["string", "number", "integer", "boolean", "object", "map", "array", "date-time", "null"]


def test_each_operator_with_a_right_side_is_looked_at_below() -> None:
    assert set(WANTED) == {
        (type_, operator) for type_, rules in RULES.items() for operator in rules if operator not in UNARY
    }


@promise("flowgram.rules")
@pytest.mark.parametrize(("type_", "operator"), list(WANTED))
async def test_a_right_side_has_to_be_of_the_type_of_the_table(log: Log, type_: str, operator: str) -> None:
    left, right = HOLDS[type_][operator]
    taken: list[str] = []
    for declared in ALL_TYPES:
        # What a node gives is not compared with its declared type: the value holds whatever its type is called.
        made = graph(
            [
                start(),
                log_node("w", gives={"a": left, "b": right}, outputs=fields(a=type_, b=declared)),
                condition(ref("w", "a"), operator, ref("w", "b")),
                log_node("yes"),
                end(),
            ],
            "start -> w -> if",
            "if.yes -> yes -> end",
            "if.else -> end",
        )
        log.seen.clear()
        await fg.run(made, {})
        if "yes" in log.seen:
            taken.append(declared)
    wanted = WANTED[type_, operator]
    assert taken == (["number", "integer"] if wanted in ("number", "integer") else [wanted])


@pytest.mark.parametrize(
    ("type_", "left", "operator", "right", "expected"),
    [
        *[(type_, None, operator, None, False) for type_ in ("number", "integer") for operator in HOLDS[type_]],
        *[("date-time", None, operator, None, False) for operator in HOLDS["date-time"]],
        ("integer", None, "nin", ["a"], False),
        ("integer", 2, "neq", None, True),
        ("date-time", "2026-01-01", "neq", None, False),
        ("date-time", None, "neq", "2026-01-01", False),
        ("string", None, "eq", None, False),
        ("string", None, "neq", None, True),
        ("string", "a", "neq", None, True),
        ("string", "a", "contains", None, False),
        ("string", "a", "not_contains", None, False),
        ("string", None, "not_contains", "a", True),
        ("string", None, "in", None, False),
        ("string", None, "nin", None, True),
        ("boolean", None, "eq", None, True),
        ("boolean", None, "neq", None, False),
        ("boolean", True, "neq", None, True),
        ("boolean", False, "eq", None, True),
        ("null", None, "eq", None, True),
    ],
)
async def test_what_holds_of_nulls(type_: str, left: Any, operator: str, right: Any, expected: bool) -> None:
    wanted = WANTED[type_, operator]
    types = {"a": type_, "b": typed("array", items=typed("string")) if wanted == "array" else wanted}
    given = {name: value for name, value in (("a", left), ("b", right)) if value is not None}
    assert await chosen(condition(ref("start", "a"), operator, ref("start", "b")), given, **types) is expected


@pytest.mark.parametrize("operator", ["in", "nin"])
@pytest.mark.parametrize("right", ["no list", 3, True])
async def test_what_can_hold_nothing_fails_the_node(operator: str, right: Any) -> None:
    with pytest.raises(fg.NodeFailed) as failed:
        await compare("string", "a", operator, right)
    told = f'Condition operator "{operator}" cannot compare str and {type(right).__name__}'
    assert failed.value.message == told


@pytest.mark.parametrize(("operator", "left"), [("is_true", True), ("is_false", False)])
async def test_operators_without_a_right_side_ignore_one(operator: str, left: bool) -> None:
    for right in ("x", 3, not left):
        assert await compare("boolean", left, operator, right) is True
        assert await compare("boolean", not left, operator, right) is False


# http


async def test_headers_parameters_and_fields_are_sent_as_text() -> None:
    names = {
        "s": const("x"),
        "n": const(3),
        "b": const(True),
        "o": const({"k": 1}),
        "l": const(["p"]),
        "none": const(None),
    }
    texts = {"s": "x", "n": "3", "b": "true", "o": '{"k": 1}', "l": '["p"]'}
    async with answering(Server()) as server:
        form = {"bodyType": "x-www-form-urlencoded", "xWwwFormUrlencodedValues": names}
        made = request(
            server.url, "POST", headersValues={f"x-{n}": v for n, v in names.items()}, paramsValues=names, body=form
        )
        assert await fg.run(made, {}) == {"code": 200, "body": "fine"}
        ((line, headers, body),) = server.requests
    assert dict(parse_qsl(urlsplit(line.split(" ")[1]).query)) == texts
    assert {name[2:]: value for name, value in headers.items() if name.startswith("x-")} == texts
    assert dict(parse_qsl(body.decode())) == texts


# llm


async def test_without_a_system_prompt_there_is_one_message_and_the_key_is_in_no_report() -> None:
    fg.allow_hosts("127.0.0.1")
    async with provider_server([say("Hello.")]) as server:
        url = server.providers["openai"].base_url or ""
        task = fg.start(asking(url, systemPrompt=None), {"q": "hello"})
        assert await task.wait() == {"a": "Hello."}
        (asked,) = server.requests
        assert [(m["role"], m["content"]) for m in asked.body["messages"]] == [("user", "Say hello")]
        assert asked.path.endswith("/chat/completions")
        assert asked.headers["authorization"] == "Bearer sk-secret-1"
        assert not {"tools", "tool_choice"} & set(asked.body)
    shown = task.report().reports["w"].snapshots[0]
    assert (shown.inputs["apiKey"], shown.inputs["modelName"], shown.outputs) == ("***", "m1", {"result": "Hello."})
    assert "sk-secret-1" not in task.report().model_dump_json()


async def test_an_answer_without_a_choice_fails_the_node() -> None:
    fg.allow_hosts("127.0.0.1")
    empty: Json = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m1", "choices": []}
    broken = Answer(raw=f"data: {json.dumps(empty)}\n\ndata: [DONE]\n\n".encode())
    async with provider_server([broken, broken, broken]) as server:
        task = fg.start(asking(server.providers["openai"].base_url or ""), {"q": "x"})
        assert await task.wait(raise_on_failure=False) == {}
    assert statuses(task) == {"start": "succeeded", "w": "failed"}
    assert [node_id for node_id, text in messages(task) if text] == ["w"]


# code


async def test_math_and_random_are_there_without_an_import() -> None:
    assert await value_of("def main(p):\n    return [math.floor(2.5), 0 <= random.random() < 1]") == {
        "result": [2, True]
    }
    assert await value_of("math = 3\ndef main(p):\n    random = 4\n    return [math, random]") == {"result": [3, 4]}


@pytest.mark.parametrize("limits", [{}, {"timeoutMs": 600_000, "memoryMb": 64}])
async def test_a_script_has_limits_that_it_does_not_ask_for(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any]
) -> None:
    monkeypatch.setattr(code, "TIMEOUT_S", 0.2)
    endless = "def main(p):\n    while True:\n        pass"
    assert await error_of(endless, **limits) == "Code execution exceeded 0.2s timeout"
    assert "MemoryError" in await error_of("def main(p):\n    return len('a' * (10 * 1024 ** 3))", **limits)


@promise("flowgram.code")
@pytest.mark.parametrize(
    "attempt",
    [
        "while True:\n        pass",
        "x = 'a' * (10 * 1024 ** 3)",
        "x = 9 ** (10 ** 9)",
        "x = 1\n    while True:\n        x = x * 3 + 1",
        "return list(range(200_000))",
        "return list(range(120_000))",  # about as long as a result may be
        "import socket",
        "import os\n    return os.environ['PATH']",
        "return open('/etc/passwd').read()",
    ],
)
async def test_a_hostile_script_holds_up_no_thread_of_this_process(attempt: str) -> None:
    await value_of("def main(p):\n    return 1")  # the library is imported and its workers are there
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.process_time()
            await asyncio.sleep(0.002)
            longest = max(longest, time.process_time() - before)

    began = time.monotonic()
    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(10):
            made = scripted(f"def main(p):\n    {attempt}\n    return 1", timeoutMs=300, memoryMb=64)
            await fg.run(made, {"a": 3}, raise_on_failure=False)
    finally:
        watching.cancel()
    assert time.monotonic() - began < 5
    # Of all threads, also of those that wait for the script and read its result: others on the machine do not count.
    assert longest < 0.05


def test_a_program_ends_although_its_script_does_not() -> None:
    made = scripted("def main(p):\n    while True:\n        pass")
    program = (
        "import pyflue.flowgram as fg\n"
        "try:\n"
        f"    fg.run_sync({made!r}, {{'a': 1}}, timeout=1)\n"
        "except TimeoutError:\n"
        "    print('timed out')\n"
    )
    # The script itself has a minute.
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=20)
    assert ran.stdout == "timed out\n"


# The report and the API


async def test_cancelling_a_run_that_has_ended_changes_nothing(client: httpx2.AsyncClient) -> None:
    task_id = await run(client, ECHO, {"msg": "x"})
    await result(client, task_id)
    before = await get(client, "/task/report", task_id)
    assert (await client.put("/task/cancel", json={"taskID": task_id})).json() == {"success": True}
    after = await get(client, "/task/report", task_id)
    assert (after["workflowStatus"], after["outputs"]) == (before["workflowStatus"], {"echo": "x"})
    assert after["workflowStatus"]["status"] == "succeeded"


@promise("flowgram.rules")
async def test_what_goes_on_beside_a_failure_is_cancelled_before_the_run_ends(
    client: httpx2.AsyncClient, log: Log
) -> None:
    log.failures_left["bad"] = 1
    log.release = {"slow": asyncio.Event(), "bad": asyncio.Event()}
    body = [*BODY, log_node("slow")]
    made = graph(
        [start(xs=NUMBERS), loop(ref("start", "xs"), body, "bs -> slow -> be"), log_node("bad"), end()],
        "start -> loop -> end",
        "start -> bad -> end",
    )
    task_id = await run(client, made, {"xs": [1, 2]})
    async with asyncio.timeout(5):
        for name in log.release:
            await log.started.setdefault(name, asyncio.Event()).wait()
    log.release["bad"].set()
    assert await result(client, task_id) == {}
    assert log.cancelled == ["slow"]
    report = await get(client, "/task/report", task_id)
    assert report["workflowStatus"]["status"] == "failed"
    assert {name: (one["status"], one["terminated"]) for name, one in report["reports"].items()} == {
        "start": ("succeeded", True),
        "loop": ("canceled", True),
        "bs": ("succeeded", True),
        "slow": ("canceled", True),
        "bad": ("failed", True),
    }
    assert [(one["nodeID"], one["message"]) for one in report["messages"]] == [("bad", "bad broke")]
    assert all(one["endTime"] is not None for one in report["reports"].values())


async def test_messages_have_all_their_fields_in_both_forms(client: httpx2.AsyncClient, log: Log) -> None:
    log.failures_left["w"] = 1
    made = graph(
        [
            start(o="object"),
            log_node("w", inputs=fields(n="number"), inputsValues={"n": ref("start", "o", "n")}),
            end(),
        ],
        "start -> w -> end",
    )
    task_id = await run(client, made, {"o": {"n": "text"}})
    assert await result(client, task_id) == {}
    report = await get(client, "/task/report", task_id)
    assert set(report) == {"id", "inputs", "outputs", "workflowStatus", "reports", "messages"}
    listed = report["messages"]
    warning = "Input 'n' is declared as number, but was given string"
    assert sorted((one["nodeID"], one["type"], one["message"]) for one in listed) == [
        ("w", "error", "w broke"),
        ("w", "warn", warning),
    ]
    grouped = (await get(client, "/api/task/report", task_id))["messages"]
    assert {name: [one["message"] for one in ones] for name, ones in grouped.items()} == {
        "log": [],
        "info": [],
        "debug": [],
        "error": ["w broke"],
        "warning": [warning],
    }
    assert [one["type"] for one in (*grouped["error"], *grouped["warning"])] == ["error", "warning"]
    now = time.time() * 1000
    for one in (*listed, *grouped["error"], *grouped["warning"]):
        assert set(one) == {"id", "nodeID", "type", "message", "timestamp"}
        assert now - 60_000 < one["timestamp"] <= now + 1000
    shown = report["reports"]["w"]
    assert set(shown) == {"id", "status", "terminated", "startTime", "endTime", "timeCost", "snapshots"}


async def test_a_start_node_that_declares_nothing_is_no_error_of_the_server(client: httpx2.AsyncClient) -> None:
    made = graph([{"id": "start", "type": "start"}, end()], "start -> end")
    validated = await client.post("/task/validate", json={"schema": json.dumps(made)})
    assert (validated.status_code, validated.json()["valid"]) == (200, True)
    assert await result(client, await run(client, made)) == {}


async def test_a_task_id_has_to_be_given(client: httpx2.AsyncClient) -> None:
    for path in ("/task/report", "/api/task/result"):
        missing = {"type": "missing", "loc": ["query", "taskID"], "msg": "Field required"}
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (422, {"detail": [missing]})
    for body, told in (
        ({}, ("missing", "Field required")),
        ({"taskID": 3}, ("string_type", "Input should be a valid string")),
    ):
        answer = await client.put("/task/cancel", json=body)
        problem = {"type": told[0], "loc": ["body", "taskID"], "msg": told[1]}
        assert (answer.status_code, answer.json()) == (422, {"detail": [problem]})


async def test_a_graph_without_the_shape_of_one_is_the_trouble_of_its_own_call(client: httpx2.AsyncClient) -> None:
    payload: Json = {"0": {"schema": '{"nodes": 3}'}, "1": {"schema": json.dumps(ECHO)}, "2": {"schema": {}}}
    answer = await client.post("/trpc/task.validate,task.validate,task.validate?batch=1", json=payload)
    assert (answer.status_code, answer.json()) == (
        200,
        [
            {"error": {"message": "Invalid workflow schema: Schema.nodes must be an array", "code": -32603}},
            {"result": {"data": {"valid": True, "errors": None, "warnings": []}}},
            {"error": {"message": "Input should be a valid string", "code": -32603}},
        ],
    )


async def test_trpc_inputs_that_cannot_be_read_fail_the_whole_request(client: httpx2.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for answer in (
        await client.post("/trpc/info", content=b"{broken", headers=headers),
        await client.post("/trpc/info,info?batch=1", content=b"{broken", headers=headers),
        await client.get("/trpc/info", params={"input": "{broken"}),
    ):
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("Invalid input: ")
    batch = {"0": {"schema": "{broken"}}
    answer = await client.post("/trpc/task.validate,info?batch=1", json=batch)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Invalid schema JSON: ")


@pytest.mark.parametrize("is_wrapped", [False, True])
async def test_every_trpc_procedure_answers_as_its_path_does(client: httpx2.AsyncClient, is_wrapped: bool) -> None:
    async def call(name: str, payload: Json) -> Any:
        body = {"json": payload} if is_wrapped else payload
        answer = (await client.post(f"/trpc/{name}", json=body)).json()
        assert set(answer) == {"result"}
        assert set(answer["result"]) == {"data"}
        return answer["result"]["data"]

    graph_of = {"schema": json.dumps(ECHO), "inputs": {"msg": "x"}}
    assert await call("task.validate", graph_of) == {"valid": True, "errors": None, "warnings": []}
    task_id = (await call("task.run", graph_of))["taskID"]
    assert await result(client, task_id) == {"echo": "x"}
    asked = {"taskID": task_id}
    assert await call("task.result", asked) == {"echo": "x"}
    by_path, by_call = await get(client, "/task/report", task_id), await call("task.report", asked)
    assert by_call == by_path
    assert await call("task.cancel", asked) == {"success": True}
    assert await call("/task/cancel", {"taskID": "nobody"}) == {"success": False}
    assert (await call("info", {}))["runtime"] == "python"


# The editor

#: As the editor's demo saves graphs: titles, positions, a canvas in the loop, a comment, a group and a global variable.
DRAWN: Json = {
    "nodes": [
        {
            "id": "start_0",
            "type": "start",
            "meta": {"position": {"x": 180, "y": 601.2}},
            "data": {
                "title": "Start",
                "outputs": {
                    "type": "object",
                    "properties": {
                        "query": {"key": 5, "name": "query", "isPropertyRequired": False, "type": "string"}
                        | {"default": "Hello", "extra": {"index": 0}},
                        "rows": {
                            "type": "array",
                            "items": {"type": "object", "properties": {"n": {"type": "integer"}}},
                            "extra": {"index": 1},
                        },
                    },
                },
            },
        },
        {
            "id": "condition_0",
            "type": "condition",
            "meta": {"position": {"x": 640, "y": 318.9}},
            "data": {
                "title": "Condition",
                "conditions": [
                    {
                        "key": "if_0",
                        "value": {
                            "left": {"type": "ref", "content": ["start_0", "query"]},
                            "operator": "contains",
                            "right": {"type": "constant", "content": "Hello", "schema": {"type": "string"}},
                        },
                    },
                    {"key": "if_f0rOAt", "value": {"type": "expression", "content": ""}},
                ],
            },
        },
        {
            "id": "loop_Ycnsk",
            "type": "loop",
            "meta": {"position": {"x": 1480, "y": 90}, "canvasPosition": {"x": 1020, "y": 432}},
            "data": {
                "title": "Loop_1",
                "loopFor": {"type": "ref", "content": ["start_0", "rows"]},
                "loopOutputs": {"ns": {"type": "ref", "content": ["loop_Ycnsk_locals", "item", "n"]}},
                "outputs": {"type": "object", "required": [], "properties": {"ns": {"type": "array"}}},
            },
            "blocks": [
                {"id": "block_start_x", "type": "block-start", "meta": {"position": {"x": 32, "y": 0}}, "data": {}},
                {"id": "block_end_x", "type": "block-end", "meta": {"position": {"x": 192, "y": 0}}, "data": {}},
            ],
            "edges": [{"sourceNodeID": "block_start_x", "targetNodeID": "block_end_x"}],
        },
        {
            "id": "variable_o",
            "type": "variable",
            "meta": {"position": {"x": 100, "y": 1}},
            "data": {
                "title": "Variable",
                "assign": [
                    {
                        "operator": "assign",
                        "left": {"type": "ref", "content": ["global", "userId"]},
                        "right": {"type": "ref", "content": ["start_0", "query"]},
                    }
                ],
                "outputs": {"type": "object", "properties": {}},
            },
        },
        {
            "id": "comment_1",
            "type": "comment",
            "meta": {"position": {"x": 0, "y": 573}},
            "data": {"size": {"width": 240, "height": 150}, "note": "hi ~"},
        },
        {
            "id": "group_1",
            "type": "group",
            "meta": {"position": {"x": -1.5, "y": -3}},
            "data": {"parentID": "root", "blockIDs": ["condition_0"], "title": "G", "color": "Violet"},
        },
        {
            "id": "end_0",
            "type": "end",
            "meta": {"position": {"x": 2220, "y": 601.2}},
            "data": {
                "title": "End",
                "inputsValues": {
                    "success": {"type": "constant", "content": True, "schema": {"type": "boolean"}},
                    "ns": {"type": "ref", "content": ["loop_Ycnsk", "ns"], "extra": {"index": 1}},
                    "user": {"type": "template", "content": "{{global.userId}}"},
                },
                "inputs": {
                    "type": "object",
                    "properties": {
                        "success": {"type": "boolean"},
                        "ns": {"type": "array", "items": {"type": "integer"}},
                        "user": {"type": "string"},
                    },
                },
            },
        },
    ],
    "edges": [
        {"sourceNodeID": "start_0", "targetNodeID": "condition_0"},
        {"sourceNodeID": "condition_0", "targetNodeID": "loop_Ycnsk", "sourcePortID": "if_0"},
        {"sourceNodeID": "condition_0", "targetNodeID": "variable_o", "sourcePortID": "if_f0rOAt"},
        {"sourceNodeID": "condition_0", "targetNodeID": "variable_o", "sourcePortID": "else"},
        {"sourceNodeID": "loop_Ycnsk", "targetNodeID": "variable_o"},
        {"sourceNodeID": "variable_o", "targetNodeID": "end_0"},
    ],
    "globalVariable": {"type": "object", "required": [], "properties": {"userId": {"type": "string"}}},
}


@promise("flowgram.editor")
async def test_the_requests_of_the_upstream_editor_are_answered_by_a_running_server(tmp_path: Path) -> None:
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    inputs = {"query": "Hello Flow.", "rows": [{"n": 1}, {"n": 2}]}
    # Its client writes these fields in this order, joins the id to the query as it is, and takes `code` for an error.
    body = json.dumps({"schema": json.dumps(DRAWN), "inputs": inputs})
    headers = {"Content-Type": "application/json", "Accept": "*/*", "Sec-Fetch-Mode": "cors"}
    async with running(tmp_path) as server, httpx2.AsyncClient(base_url=server.url) as http:
        validated = (await http.post("/api/task/validate", content=body, headers=headers)).json()
        assert (validated["valid"], validated["errors"]) == (True, None)
        ran = (await http.post("/api/task/run", content=body, headers=headers)).json()
        assert set(ran) == {"taskID"}
        async with asyncio.timeout(20):
            while True:
                report = (await http.get(f"/api/task/report?taskID={ran['taskID']}", headers=headers)).json()
                if report["workflowStatus"]["terminated"]:
                    break
                await asyncio.sleep(0.01)
        outputs = {"success": True, "ns": [1, 2], "user": "Hello Flow."}
        assert (report["inputs"], report["outputs"], "code" in report) == (inputs, outputs, False)
        assert report["messages"]["error"] == []
        shown = {name: (one["status"], len(one["snapshots"])) for name, one in report["reports"].items()}
        assert shown == {
            "start_0": ("succeeded", 1),
            "condition_0": ("succeeded", 1),
            "loop_Ycnsk": ("succeeded", 1),
            "block_start_x": ("succeeded", 2),
            "block_end_x": ("succeeded", 2),
            "variable_o": ("succeeded", 1),
            "end_0": ("succeeded", 1),
        }
        assert (await http.get(f"/api/task/result?taskID={ran['taskID']}")).json() == outputs
        cancel = json.dumps({"taskID": ran["taskID"]})
        assert (await http.put("/api/task/cancel", content=cancel, headers=headers)).json() == {"success": True}
        wrong = json.dumps({"schema": json.dumps({**DRAWN, "nodes": DRAWN["nodes"][1:]}), "inputs": inputs})
        refused = (await http.post("/api/task/validate", content=wrong, headers=headers)).json()
        assert refused["valid"] is False
        assert "Workflow must have a start node" in refused["errors"]


# The library and the command line


async def test_the_executor_that_was_registered_last_is_asked() -> None:
    def giving(value: int) -> fg.INodeExecutor:
        class Gives(fg.INodeExecutor):
            type = "gives"

            async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
                return fg.ExecutionResult(outputs={"v": value}, shown_inputs={"instead": "of them"})

        return Gives()

    made = graph(
        [start(), node("w", "gives", outputs=fields(v="integer")), end({"v": ref("w", "v")}, v="integer")],
        "start -> w -> end",
    )
    for value in (1, 2):
        fg.register_executor(giving(value))
        task = fg.start(made, {})
        assert await task.wait() == {"v": value}
    assert task.report().reports["w"].snapshots[0].inputs == {"instead": "of them"}


def test_the_statuses_have_flowgrams_names_and_values() -> None:
    assert {one.name: one.value for one in fg.WorkflowStatus} == {
        "Pending": "pending",
        "Processing": "processing",
        "Succeeded": "succeeded",
        "Failed": "failed",
        "Cancelled": "canceled",
    }


async def test_the_librarys_application_answers_origins_that_are_named_and_no_others() -> None:
    async with client_of(fg.create_app()) as http:
        answer = await http.get("/info", headers={"origin": "http://localhost:3000"})
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)


def test_a_graph_is_drawn_with_its_loops(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "src" / "workflows"
    folder.mkdir(parents=True)
    choice = condition(ref("start", "n"), "gt", const(0))
    made = graph(
        [start(n="integer", xs=NUMBERS), choice, loop(ref("start", "xs"), BODY, "bs -> be"), end()],
        "start -> if",
        "if.yes -> loop -> end",
        "if.else -> end",
    )
    (folder / "g.json").write_text(json.dumps(made))
    (tmp_path / "pyflue.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert cli("workflows", "show", "g", "--graph", "mermaid").stdout.splitlines() == [
        "flowchart TD",
        '    n0["start"]',
        '    n1["if"]',
        '    n2["loop"]',
        '    n3(("end"))',
        '    n4["bs"]',
        '    n5["be"]',
        "    n0 --> n1",
        '    n1 -->|"yes"| n2',
        '    n1 -->|"else"| n3',
        "    n2 --> n3",
        '    n2 -->|"each item"| n4',
        "    n4 --> n5",
    ]


async def test_a_run_of_a_project_ends_with_the_same_report_as_one_of_the_library(tmp_path: Path, log: Log) -> None:
    """What both know: which nodes ran, how often, with what, and how it ended."""
    body = [*BODY, log_node("w", gives={"v": "x"}, outputs=fields(v="string"))]
    made = graph(
        [
            start(xs=NUMBERS),
            loop(ref("start", "xs"), body, "bs -> w -> be", collect={"o": ref("w", "v")}),
            condition(ref("loop", "o"), "is_not_empty"),
            end({"o": ref("loop", "o")}, o=typed("array", items=typed("string"))),
        ],
        "start -> loop -> if",
        "if.yes -> end",
    )
    made["edges"].append(edge("if", "end", "else"))
    for given in ([1, 2], []):
        task = fg.start(made, {"xs": given})
        await task.wait()
        (tmp_path / "src" / "workflows").mkdir(parents=True, exist_ok=True)
        async with in_process(tmp_path) as here:
            task_id = await run(here.client, made, {"xs": given})
            await result(here.client, task_id)
            told = await get(here.client, "/task/report", task_id)
        assert told_of(told) == told_of(task.report_dict())


def told_of(report: Json) -> Any:
    """A report without ids and times."""
    return {
        **{name: report[name] for name in ("inputs", "outputs", "messages")},
        "status": report["workflowStatus"]["status"],
        "reports": {
            name: (one["status"], [{k: v for k, v in shot.items() if k != "id"} for shot in one["snapshots"]])
            for name, one in report["reports"].items()
        },
    }
