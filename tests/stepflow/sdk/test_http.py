"""A component server over HTTP, as a runtime sees it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from .driver import SERVERS, WAIT_S, Blobs, Server

HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


class HttpServer(Server):
    """A server process that says its port on standard output."""

    def __init__(self, *arguments: str) -> None:
        super().__init__([sys.executable, *arguments])
        self.port = self.next()["port"]

    @contextmanager
    def post(
        self, message: Any, headers: dict[str, str | None] | None = None, path: str = "/", method: str = "POST"
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        given = {name: text for name, text in {**HEADERS, **(headers or {})}.items() if text is not None}
        try:
            connection.request(method, path, body, given)
            yield connection.getresponse()
        finally:
            connection.close()

    def answer(self, message: Any, headers: dict[str, str | None] | None = None) -> tuple[int, Any]:
        with self.post(message, headers) as response:
            body = response.read()
            assert response.headers["content-type"] == "application/json"
            return response.status, json.loads(body)

    def result(self, component: str, given: Any) -> dict[str, Any]:
        status, answer = self.answer(execute(component, given))
        assert status == 200
        return answer


def execute(component: str, given: Any, request_id: str | int = 1) -> dict[str, Any]:
    about = {"run_id": "run-1", "step_id": "step-1", "flow_id": "flow-1"}
    params = {"component": component, "input": given, "attempt": 1, "observability": about}
    return {"jsonrpc": "2.0", "id": request_id, "method": "components/execute", "params": params}


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


@contextmanager
def running(*arguments: str) -> Iterator[HttpServer]:
    server = HttpServer(*arguments)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with running(str(SERVERS / "http_components.py"), "localhost", "0") as started:
        yield started


def test_a_request_is_answered_with_json(server: HttpServer) -> None:
    message = {"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": {"runtime_protocol_version": 1}}
    assert server.answer(message) == (200, {"jsonrpc": "2.0", "id": "i", "result": {"server_protocol_version": 1}})
    assert server.result("/add", {"a": 1, "b": 2}) == {"jsonrpc": "2.0", "id": 1, "result": {"output": 3}}


def test_it_needs_no_initialize_because_any_instance_may_get_any_request(server: HttpServer) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "components/list", "params": {}}
    _, answer = server.answer(message)
    assert {info["component"] for info in answer["result"]["components"]} >= {"/udf", "/add", "/use"}


def test_errors_of_components_are_answers_like_others(server: HttpServer) -> None:
    failed = {"code": -32003, "message": "Component execution failed: it broke"}
    assert server.result("/fail", None) == {"jsonrpc": "2.0", "id": 1, "error": failed}
    assert server.result("/nothing", None)["error"]["code"] == -32001
    assert server.result("/add", "text")["error"]["code"] == -32002
    # One component of a server for many does not end it.
    text = "Component execution failed: it wanted to end the process (SystemExit: 5)"
    assert server.result("/leave", None)["error"] == {"code": -32003, "message": text}
    assert server.result("/add", {"a": 1, "b": 2})["result"] == {"output": 3}


def test_what_a_component_asks_comes_as_events_and_is_answered_by_posts(server: HttpServer) -> None:
    runtime = Blobs()
    with server.post(execute("/use", {"kept": True})) as response:
        assert response.status == 200
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["stepflow-instance-id"] == "instance-1"
        seen: list[str] = []
        for event in events(response):
            if "method" not in event:
                answer = event
                continue
            seen.append(event["method"])
            assert event["params"]["observability"] == {"run_id": "run-1", "flow_id": "flow-1", "step_id": "step-1"}
            reply = {"jsonrpc": "2.0", "id": event["id"], **runtime(event["method"], event["params"])}
            with server.post(reply, {"Stepflow-Instance-Id": "instance-1"}) as accepted:
                assert (accepted.status, accepted.read()) == (202, b"")
    assert seen == ["blobs/put", "blobs/get"]
    output = {"blob": "0" * 64, "data": {"kept": True}, "session_id": "instance-1", "step_id": "step-1"}
    assert answer == {"jsonrpc": "2.0", "id": 1, "result": {"output": output}}


def test_a_plain_function_with_a_context_answers_by_events_too(server: HttpServer) -> None:
    with server.post(execute("/block_and_see", None)) as response:
        assert [event["result"]["output"] for event in events(response)] == [{"thread": True, "run_id": "run-1"}]


def test_a_function_that_never_waits_needs_no_thread(server: HttpServer) -> None:
    with server.post(execute("/see_at_once", None)) as response:
        assert [event["result"]["output"] for event in events(response)] == [{"thread": False, "run_id": "run-1"}]


def test_notifications_and_answers_are_accepted_without_a_body(server: HttpServer) -> None:
    for message in (
        {"jsonrpc": "2.0", "method": "initialized", "params": {}},
        {"jsonrpc": "2.0", "id": "nobody waits", "result": {}},
        {"jsonrpc": "2.0", "id": "nobody waits", "error": {"code": -32011, "message": "not found"}},
    ):
        with server.post(message) as response:
            assert (response.status, response.read()) == (202, b"")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": None}, 415),
        ({"Accept": "application/json"}, 406),
        ({"Accept": "text/event-stream"}, 406),
        ({"Accept": None}, 406),
        ({"Stepflow-Instance-Id": "another"}, 404),
        ({"Host": "attacker.example"}, 421),
        ({"Host": "localhost.attacker.example:80"}, 421),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_requests_of_another_form_or_from_elsewhere_are_refused(
    server: HttpServer, headers: dict[str, str | None], status: int
) -> None:
    found, answer = server.answer(execute("/add", {"a": 1, "b": 2}), headers)
    assert found == status
    assert (answer["id"], answer["error"]["code"]) == (None, -32600)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Accept": "text/event-stream;q=0.5, application/json"},
        {"Host": "localhost"},
        {"Host": "[::1]:8080"},
        {"Origin": "http://localhost:3000"},
    ],
)
def test_requests_may_be_written_in_several_ways(server: HttpServer, headers: dict[str, str | None]) -> None:
    assert server.answer(execute("/add", {"a": 1, "b": 2}), headers)[0] == 200


@pytest.mark.parametrize(
    ("body", "code"), [(b"{", -32700), (b"[]", -32600), (b'{"id":1}', -32600), (b'{"id":null,"method":"x"}', -32600)]
)
def test_a_body_that_is_no_message_is_refused(server: HttpServer, body: bytes, code: int) -> None:
    status, answer = server.answer(body)
    assert (status, answer["error"]["code"]) == (400, code)


def test_other_addresses_are_refused_with_an_error_of_the_protocol(server: HttpServer) -> None:
    for path, method, status in (("/nothing", "POST", 404), ("/", "GET", 405), ("/health", "POST", 405)):
        with server.post(b"", path=path, method=method) as response:
            assert response.status == status
            assert json.loads(response.read())["error"]["code"] == -32600


def test_health_tells_which_instance_this_is(server: HttpServer) -> None:
    with server.post(b"", path="/health", method="GET") as response:
        assert response.status == 200
        told = json.loads(response.read())
    assert datetime.fromisoformat(told.pop("timestamp")).tzinfo is not None
    assert told == {"status": "healthy", "instanceId": "instance-1", "service": "pyflue-stepflow-server"}
    with server.post(b"", {"Host": "attacker.example"}, path="/health", method="GET") as response:
        assert response.status == 421


@pytest.mark.parametrize("component", ["/endless", "/endless_with_context"])
def test_a_caller_that_goes_away_cancels_the_component(component: str) -> None:
    with running(str(SERVERS / "http_components.py"), "localhost", "0") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
        connection.request("POST", "/", json.dumps(execute(component, None)), HEADERS)
        if component == "/endless":
            server.wait_for("began")
        else:
            next(events(connection.getresponse()))
        connection.close()
        server.wait_for("cancelled")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number: signal.Signals) -> None:
    with running("-m", "pyflue.stepflow.sdk", "--http", "--port", "0") as server:
        assert server.answer({"jsonrpc": "2.0", "id": 1, "method": "components/list"})[0] == 200
        server.process.send_signal(number)
        assert server.wait() in (-signal.SIGTERM, 130)
        assert "Traceback" not in server.errors
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), WAIT_S)


def test_it_is_bound_to_this_machine_only_and_any_name_will_do_if_it_is_bound_to_all(server: HttpServer) -> None:
    with running(str(SERVERS / "http_components.py"), "0.0.0.0", "0") as open_to_all:
        assert open_to_all.answer(execute("/add", {"a": 1, "b": 2}), {"Host": "any.example"})[0] == 200
    assert server.answer(execute("/add", {"a": 1, "b": 2}), {"Host": "any.example"})[0] == 421


def test_an_address_that_is_taken_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server([sys.executable, "-m", "pyflue.stepflow.sdk", "--http", "--port", str(port)])
        try:
            assert server.wait() == 1
            assert server.errors.startswith(f"Cannot listen on localhost:{port}: ")
            assert server.errors.count("\n") == 1
        finally:
            server.close()


def test_answers_do_not_wait_for_acknowledgements(server: HttpServer) -> None:
    """A server whose sockets do not know that they are TCP answers 25 requests a second on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    body = json.dumps(execute("/add", {"a": 1, "b": 2}))
    began = time.monotonic()
    for _ in range(100):
        connection.request("POST", "/", body, HEADERS)
        connection.getresponse().read()
    connection.close()
    assert time.monotonic() - began < 3


def test_large_messages_go_both_ways(server: HttpServer) -> None:
    text = "x" * (20 * 1024 * 1024)
    runtime = Blobs()
    with server.post(execute("/use", text)) as response:
        for event in events(response):
            if "method" in event:
                reply = {"jsonrpc": "2.0", "id": event["id"], **runtime(event["method"], event["params"])}
                with server.post(reply) as accepted:
                    assert accepted.status == 202
            else:
                assert event["result"]["output"]["data"] == text
