"""A component server over standard input and output, as a runtime sees it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from .driver import INITIALIZE, WAIT_S, Server, served


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served("components.py") as started:
        yield started


def test_a_component_gets_its_input_by_its_type_and_answers_its_output(server: Server) -> None:
    assert server.execute("/add", {"a": 1, "b": 2}) == {"result": {"output": {"sum": 3}}}
    assert server.execute("/add", {"a": 1}) == {"result": {"output": {"sum": 11}}}
    assert server.output("/math/twice", {"a": 4}) == {"sum": 8}
    assert server.output("/mirror", {"x": 1.5, "y": 2}) == {"x": 2.0, "y": 1.5}
    assert server.output("/greet", {"name": "World"}) == "Hello, World!"


@pytest.mark.parametrize(
    "value", [None, True, 0, 2.0, 1e300, 2**70, "", "ä\u2028\n😀", [], {}, {"a": [{"b": None}], "": 1}]
)
def test_json_goes_through_unchanged(server: Server, value: object) -> None:
    answered = server.output("/echo", value)
    assert json.dumps(answered) == json.dumps(value)


def test_parameters_in_a_name_are_given_by_name_and_the_most_specific_name_wins(server: Server) -> None:
    assert server.output("/files/csv/a/b.csv") == {"kind": "csv", "path": "a/b.csv"}
    assert server.output("/files/special/41") == {"number": 42}
    assert server.output("/files/special/a/b") == {"kind": "special", "path": "a/b"}
    assert server.execute("/files/csv") == {
        "error": {
            "code": -32001,
            "message": "Component '/files/csv' not found",
            "data": {"component": "/files/csv"},
        }
    }


def test_a_parameter_that_does_not_fit_its_type_is_a_validation_error(server: Server) -> None:
    answer = server.execute("/files/special/many")
    assert answer == {
        "error": {
            "code": -32002,
            "message": "Input validation failed: Expected `int`, got `str` - in the path, for `number`",
        }
    }


def test_an_input_that_does_not_fit_is_a_validation_error_that_says_where(server: Server) -> None:
    assert server.execute("/add", {"a": "one"}) == {
        "error": {"code": -32002, "message": "Input validation failed: Expected `int`, got `str` - at `$.a`"}
    }
    assert server.execute("/add", {}) == {
        "error": {"code": -32002, "message": "Input validation failed: Object missing required field `a`"}
    }


@pytest.mark.parametrize(
    ("component", "given", "message", "data"),
    [
        ("/fail", "it broke", "it broke", None),
        ("/fail", "silent", "ValueError", None),
        ("/fail", "key", "KeyError: 'who'", None),
        ("/fail", "unprintable", "name ?", None),
        ("/fail", "quit", "KeyboardInterrupt", None),
        ("/fail", "data", "no such thing", {"code": 404, "message": "no such thing", "data": {"hint": "look"}}),
        ("/fail_async", "gone", "gone", None),
        ("/fail_async", "cancelled", "CancelledError", None),
        ("/unwritable", None, "object cannot be written as JSON", None),
    ],
)
def test_whatever_a_component_raises_is_an_execution_error(
    server: Server, component: str, given: str | None, message: str, data: object
) -> None:
    error = {"code": -32003, "message": f"Component execution failed: {message}"}
    assert server.execute(component, given) == {"error": error if data is None else {**error, "data": data}}


def test_a_component_that_skips_answers_the_outcome_as_older_releases_do(server: Server) -> None:
    assert server.output("/skip") == {"outcome": "skipped", "reason": "nothing to do"}
    assert server.output("/skip_async") == {"outcome": "skipped", "reason": "Component requested step skip"}


def test_components_are_listed_with_description_and_schemas(server: Server) -> None:
    listed = server.call("components/list", {})["result"]["components"]
    by_name = {info["component"]: info for info in listed}
    assert by_name["/add"] == {
        "component": "/add",
        "description": "Add two numbers.\n\nThe second one is 10 if it is not given.",
        "input_schema": {
            "$ref": "#/$defs/AddInput",
            "$defs": {
                "AddInput": {
                    "title": "AddInput",
                    "type": "object",
                    "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 10}},
                    "required": ["a"],
                }
            },
        },
        "output_schema": {
            "$ref": "#/$defs/AddOutput",
            "$defs": {
                "AddOutput": {
                    "title": "AddOutput",
                    "type": "object",
                    "properties": {"sum": {"type": "integer"}},
                    "required": ["sum"],
                }
            },
        },
    }
    assert by_name["/echo"] == {"component": "/echo"}
    assert by_name["/math/twice"]["description"] == "Doubles."
    assert {"/udf", "/files/{kind}/{*path}"} <= by_name.keys()


def test_one_component_can_be_asked_about(server: Server) -> None:
    listed = server.call("components/list")["result"]["components"]
    assert [
        server.call("components/info", {"component": info["component"]})["result"]["info"] for info in listed
    ] == listed
    assert server.call("components/info", {"component": "/nothing"}) == {
        "error": {"code": -32001, "message": "Component '/nothing' not found", "data": {"component": "/nothing"}}
    }


def test_an_output_schema_is_inferred_from_the_annotation(server: Server) -> None:
    asked = {"component": "/greet", "input_schema": {}}
    assert server.call("components/infer_schema", asked) == {"result": {"output_schema": {"type": "string"}}}
    asked = {"component": "/echo", "input_schema": {}}
    assert server.call("components/infer_schema", asked) == {"result": {"output_schema": None}}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", {"id": None, "code": -32700}),
        (b'"\xff"', {"id": None, "code": -32700}),
        (b"[" * 100_000, {"id": None, "code": -32700}),
        (b"[]", {"id": None, "code": -32600}),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"components/list"}', {"id": None, "code": -32600}),
        (b'{"jsonrpc":"2.0","id":null,"method":"components/list"}', {"id": None, "code": -32600}),
        (b'{"jsonrpc":"2.0","id":7,"method":5}', {"id": 7, "code": -32600}),
        (b'{"jsonrpc":"1.0","id":7,"method":"components/list"}', {"id": 7, "code": -32600}),
        (b'{"jsonrpc":"2.0","id":"a"}', {"id": "a", "code": -32600}),
        (b'{"jsonrpc":"2.0","id":7,"method":"components/fly"}', {"id": 7, "code": -32601}),
        (b'{"jsonrpc":"2.0","id":7,"method":"components/execute"}', {"id": 7, "code": -32602}),
        (b'{"jsonrpc":"2.0","id":7,"method":"components/info","params":[]}', {"id": 7, "code": -32602}),
        (b'{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}', {"id": 7, "code": -32602}),
    ],
)
def test_a_message_that_is_wrong_is_answered_with_an_error(
    server: Server, line: bytes, expected: dict[str, object]
) -> None:
    server.write(line + b"\n")
    answer = server.next()
    assert {"id": answer["id"], "code": answer["error"]["code"]} == expected


def test_notifications_empty_lines_and_answers_to_nothing_are_not_answered(server: Server) -> None:
    server.write(b"\n   \r\n")
    server.send({"jsonrpc": "2.0", "method": "something/new", "params": {}}, {"jsonrpc": "2.0", "id": 99, "result": {}})
    assert server.output("/echo", "next") == "next"


def test_nothing_is_served_before_initialize() -> None:
    with served("components.py", initialize=False) as server:
        refused = {"error": {"code": -32001, "message": "Server not initialized"}}
        assert server.execute("/add", {"a": 1}) == refused
        assert server.call("components/list") == refused
        assert server.call("components/info", {"component": "/add"}) == refused
        assert server.call("components/infer_schema", {"component": "/add"}) == refused
        server.send(INITIALIZE)
        assert server.answer_to("init")["result"] == {"server_protocol_version": 1}
        assert server.output("/add", {"a": 1}) == {"sum": 11}


def test_blocking_components_run_at_the_same_time(server: Server) -> None:
    params = {"component": "/meet", "input": None}
    server.send(*({"jsonrpc": "2.0", "id": f"m{i}", "method": "components/execute", "params": params} for i in (1, 2)))
    assert [server.answer_to(f"m{i}")["result"] for i in (1, 2)] == [{"output": "met"}] * 2


def test_coroutines_run_at_the_same_time_and_answers_come_as_they_are_ready(server: Server) -> None:
    for request_id, name in (("c", "/come"), ("d", "/open_door")):
        params = {"component": name, "input": None}
        server.send({"jsonrpc": "2.0", "id": request_id, "method": "components/execute", "params": params})
    assert [server.next()["id"], server.next()["id"]] == ["d", "c"]


def test_many_requests_at_once_are_all_answered_once(server: Server) -> None:
    count = 500
    messages = [
        {
            "jsonrpc": "2.0",
            "id": number,
            "method": "components/execute",
            "params": {"component": "/add" if number % 2 else "/math/twice", "input": {"a": number, "b": number}},
        }
        for number in range(count)
    ]
    server.send(*messages)
    answers = {answer["id"]: answer["result"]["output"]["sum"] for answer in (server.next() for _ in range(count))}
    assert answers == {number: 2 * number for number in range(count)}


def test_functions_that_never_wait_are_called_by_the_thread_that_reads(server: Server) -> None:
    lengths = (0, 10, 5_000, 300_000)  # what does not fit into a pipe is not waited for there
    for length in lengths:
        params = {"component": "/repeat", "input": length}
        server.send({"jsonrpc": "2.0", "id": length, "method": "components/execute", "params": params})
    assert server.output("/add", {"a": 1}) == {"sum": 11}
    assert [server.answer_to(length)["result"]["output"] for length in lengths] == ["x" * length for length in lengths]


def test_answers_that_nobody_reads_do_not_keep_such_a_server_from_reading() -> None:
    with served("components.py") as server:
        server.reads.clear()
        params = {"component": "/repeat", "input": 2_000}
        # The requests alone are more than a pipe holds, and their answers are far more.
        for number in range(2_000):
            server.send({"jsonrpc": "2.0", "id": number, "method": "components/execute", "params": params})
        server.reads.set()
        assert {server.next()["id"] for _ in range(2_000)} == set(range(2_000))


def test_a_signal_that_such_a_function_has_swallowed_ends_the_process() -> None:
    with served("components.py") as server:
        params = {"component": "/signal_itself", "input": None}
        server.send({"jsonrpc": "2.0", "id": 1, "method": "components/execute", "params": params})
        assert server.wait() == 0


def test_messages_of_fifty_megabytes_go_both_ways(server: Server) -> None:
    length = 50 * 1024 * 1024
    assert server.output("/size", "y" * length) == length
    assert server.output("/large", length) == "x" * length


def test_what_components_and_their_children_print_goes_to_standard_error() -> None:
    with served("components.py") as server:
        assert server.output("/talk", "printed by a component") == "printed by a component"
        server.end_input()
        assert server.wait() == 0
        assert server.unread == []
        for text in (
            "printed before the server runs",
            "printed by a component",
            "and past the redirection",
            "and as bytes",
            "from a child",
            "after the end",
        ):
            assert text in server.errors


def test_neither_components_nor_their_children_can_read_what_is_meant_for_the_server(server: Server) -> None:
    assert server.output("/listen") == {"child": "", "own": ""}


def test_the_end_of_the_input_cancels_what_is_under_way_and_ends_the_process() -> None:
    with served("components.py") as server:
        _begin(server, "/wait_and_clean", "waiting")
        server.end_input()
        assert server.wait() == 0
        assert server.unread == []
        assert "cleaned" in server.errors
        assert "after the end" in server.errors


def test_a_process_that_was_forked_off_does_not_keep_the_pipes_open() -> None:
    with served("components.py") as server:
        child = server.output("/fork")
        try:
            server.end_input()
            assert server.wait() == 0
            assert server.unread == []  # the end of its output was seen
            os.kill(child, 0)  # while the child is still there
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("component", ["/block", "/block_loop"])
def test_a_component_that_cannot_be_stopped_does_not_keep_the_process(component: str) -> None:
    with served("components.py") as server:
        _begin(server, component, "blocking")
        server.end_input()
        assert server.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("component", ["/wait_and_clean", "/block", "/block_loop"])
def test_a_signal_ends_the_process_without_a_trace(number: signal.Signals, component: str) -> None:
    with served("components.py") as server:
        _begin(server, component, "ing")
        server.process.send_signal(number)
        assert server.wait() == 0
        assert server.unread == []
        assert "Traceback" not in server.errors


@pytest.mark.parametrize(
    ("component", "given", "code"),
    [("/crash", 3, 3), ("/crash_async", "farewell", 1), ("/crash_at_once", 4, 4), ("/die", None, 7)],
)
def test_a_component_that_exits_ends_the_process_with_its_code(component: str, given: object, code: int) -> None:
    with served("components.py") as server:
        params = {"component": component, "input": given}
        server.send({"jsonrpc": "2.0", "id": 1, "method": "components/execute", "params": params})
        assert server.wait() == code
        assert ("farewell" in server.errors) == (given == "farewell")


def test_pydantic_models_are_read_written_and_described() -> None:
    item = {"name": "tea", "unitPrice": 2.5}
    with served("pydantic_components.py") as server:
        assert server.output("/total", {"items": [item, item]}) == {"name": "total", "unitPrice": 5.0}
        assert server.output("/names", [item]) == ["tea"]
        assert server.output("/unwrap", {"item": item}) == {"item": item}
        assert server.execute("/total", {"items": [{"name": "x", "unitPrice": 0}]}) == {
            "error": {
                "code": -32002,
                "message": "Input validation failed: Input should be greater than 0 - at `$.items[0].unitPrice`",
            }
        }
        assert "price" in server.execute("/unwrap", {"item": {"name": "x"}})["error"]["message"].lower()
        listed = server.call("components/list")["result"]["components"]
        schemas = {info["component"]: (info["input_schema"], info["output_schema"]) for info in listed}
        item_schema = {
            "title": "Item",
            "type": "object",
            "properties": {
                "name": {"title": "Name", "type": "string"},
                "unitPrice": {"title": "Unitprice", "type": "number", "exclusiveMinimum": 0},
            },
            "required": ["name", "unitPrice"],
        }
        assert schemas["/total"][1] == item_schema
        assert schemas["/names"] == (
            {"$defs": {"Item": item_schema}, "type": "array", "items": {"$ref": "#/$defs/Item"}},
            {"type": "array", "items": {"type": "string"}},
        )
        assert schemas["/unwrap"][0]["$defs"]["Wrapped"]["properties"] == {"item": {"type": "object", "title": "Item"}}


def test_the_command_serves_user_defined_functions() -> None:
    server = Server([sys.executable, "-m", "pyflue.stepflow.sdk"])
    try:
        server.initialize()
        listed = server.call("components/list")["result"]["components"]
        assert [info["component"] for info in listed] == ["/udf"]
        server.end_input()
        assert server.process.wait(WAIT_S) == 0
    finally:
        server.close()


def _begin(server: Server, component: str, sign: str) -> None:
    """Call a component that does not end, and wait until it says on standard error that it has begun."""
    params = {"component": component, "input": None}
    server.send({"jsonrpc": "2.0", "id": "endless", "method": "components/execute", "params": params})
    server.wait_for(sign)
