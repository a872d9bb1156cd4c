"""The http node, against a server on loopback: methods, bodies, retries, and where it may not go."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

import pyflue.flowgram as fg
from pyflue.flowgram import network, retries
from pyflue.flowgram.nodes import http_request
from pyflue.workflows import Catalog
from tests.promises import promise
from tests.support import engine_on, journal_at, submission

from .graphs import Json, const, end, fields, graph, messages, node, ref, start, template


@dataclass
class Server:
    """Keeps what it is asked, and answers what it is told."""

    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    hold: asyncio.Event | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if "chunked" in headers.get("transfer-encoding", ""):
            body = await reader.readuntil(b"0\r\n\r\n")
        self.requests.append((line.rsplit(" ", 1)[0], headers, body))
        if self.hold is not None:
            await self.hold.wait()
        answer = self.answers.pop(0) if self.answers else ok()
        if answer:
            writer.write(answer)
            await writer.drain()
        writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def ok(body: bytes = b"fine", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    fg.allow_hosts(f"127.0.0.1:{server.port}")
    async with listening:
        yield server
        if server.hold is not None:
            server.hold.set()


def request(url: str | Json, method: str | None = "GET", types: Json | None = None, **data: Any) -> Json:
    api: Json = {"url": template(url) if isinstance(url, str) else url} | ({"method": method} if method else {})
    work = node("h", "http", api=api, outputs=fields(headers="object", statusCode="integer", body="string"), **data)
    values = {"code": ref("h", "statusCode"), "body": ref("h", "body")}
    return graph(
        [start(**(types or {"q": "string"})), work, end(values, code="integer", body="string")], "start -> h -> end"
    )


async def failure(made: Json, inputs: Json | None = None) -> str:
    task = fg.start(made, inputs or {})
    with pytest.raises(fg.NodeFailed) as failed:
        await task.wait(20)
    assert messages(task) == [("h", failed.value.message)]
    return failed.value.message


async def test_a_get_with_headers_and_parameters(server: Server) -> None:
    made = request(
        server.url + "/r?q=1&keep=yes",
        headers=fields(**{"X-One": "string"}),
        headersValues={"X-One": template("v-{{start.q}}")},
        params=fields(q="string", empty="string", nothing="string", n="integer"),
        paramsValues={"q": ref("start", "q"), "empty": const(""), "nothing": const(None), "n": const(3)},
        body={"bodyType": "JSON", "json": template("not sent")},
    )
    task = fg.start(made, {"q": "a b"})
    assert await task.wait() == {"code": 200, "body": "fine"}
    line, headers, body = server.requests[0]
    assert (line, headers["x-one"], body) == ("GET /r?keep=yes&q=a+b&empty=&n=3", "v-a b", b"")
    assert task.report().reports["h"].snapshots[0].inputs == {
        "method": "GET",
        "url": server.url + "/r?q=1&keep=yes",
        "headers": {"X-One": "v-a b"},
        "params": {"q": "a b", "empty": "", "n": "3"},
        "bodyType": "JSON",
        "body": "not sent",
        "timeout": 30000,
        "retryTimes": 0,
    }
    assert task.report().reports["h"].snapshots[0].outputs["headers"]["content-length"] == "4"


async def test_the_query_of_the_url_is_kept_and_get_is_the_default(server: Server) -> None:
    await fg.run(request(server.url + "/r?q=1", None), {})
    assert server.requests[0][0] == "GET /r?q=1"


@pytest.mark.parametrize(
    ("body", "content_type", "sent"),
    [
        ({"bodyType": "none"}, None, b""),
        ({"bodyType": "JSON", "json": template('{"a": "{{start.q}}"}')}, "application/json", b'{"a": "v"}'),
        ({"bodyType": "raw-text", "rawText": template("raw {{start.q}}")}, "text/plain", b"raw v"),
        ({"bodyType": "raw-text", "json": template("from json")}, "text/plain", b"from json"),
        ({"bodyType": "binary", "binary": template("bytes")}, "application/octet-stream", b"bytes"),
    ],
)
async def test_bodies_of_text(server: Server, body: Json, content_type: str | None, sent: bytes) -> None:
    await fg.run(request(server.url, "POST", body=body), {"q": "v"})
    assert (server.requests[0][1].get("content-type"), server.requests[0][2]) == (content_type, sent)


async def test_a_given_content_type_stays(server: Server) -> None:
    body = {"bodyType": "JSON", "json": template("{}")}
    given = {
        "headers": fields(**{"Content-Type": "string"}),
        "headersValues": {"Content-Type": const("application/x-mine")},
    }
    await fg.run(request(server.url, "PATCH", body=body, **given), {})
    assert (server.requests[0][0], server.requests[0][1]["content-type"]) == ("PATCH /", "application/x-mine")


async def test_forms_are_sent_as_what_they_are_called(server: Server) -> None:
    values = {"a": const("x y"), "b": ref("start", "q")}
    urlencoded = {
        "bodyType": "x-www-form-urlencoded",
        "xWwwFormUrlencoded": fields(a="string", b="string"),
        "xWwwFormUrlencodedValues": values,
    }
    await fg.run(request(server.url, "POST", body=urlencoded), {"q": "ü"})
    assert server.requests[0][1]["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(server.requests[0][2].decode()) == {"a": ["x y"], "b": ["ü"]}
    form = {"bodyType": "form-data", "formData": fields(a="string", b="string"), "formDataValues": values}
    await fg.run(request(server.url, "PUT", body=form), {"q": "ü"})
    kind, _, boundary = server.requests[1][1]["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    parts = server.requests[1][2].split(b"--" + boundary.encode())
    assert [part.strip() for part in parts[1:-1]] == [
        b'Content-Disposition: form-data; name="a"\r\n\r\nx y',
        'Content-Disposition: form-data; name="b"\r\n\r\nü'.encode(),
    ]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (request({"type": "template", "content": ""}), "HTTP url is required"),
        (request("http://x.example", "POST", body={"bodyType": "JSON"}), "HTTP json body is required"),
        (request("http://x.example", "POST", body={"bodyType": "raw-text"}), "HTTP raw-text body is required"),
        (request("http://x.example", "POST", body={"bodyType": "binary"}), "HTTP binary body is required"),
        (request("http://x.example", "POST", body={"bodyType": "xml"}), 'HTTP invalid body type "xml"'),
        (request("http://x.example", "TRACE"), 'HTTP invalid method "TRACE"'),
        (request(const(3)), "Invalid template value: {'type': 'constant', 'content': 3}"),
        (
            request("http://x.example", timeout={"timeout": "soon"}),
            "HTTP \"timeout\" must be a number from 1, got 'soon'",
        ),
    ],
)
async def test_what_is_wrong_with_a_request_is_told(made: Json, message: str) -> None:
    assert await failure(made) == message


async def test_any_answer_is_a_success(server: Server) -> None:
    server.answers = [
        ok(b"gone", "404 Not Found"),
        ok(b"broken", "500 Oh"),
        ok(b"", "302 Found", "location: /elsewhere"),
    ]
    made = request(server.url, timeout={"timeout": 5000, "retryTimes": 3})
    assert [await fg.run(made, {}) for _ in range(3)] == [
        {"code": 404, "body": "gone"},
        {"code": 500, "body": "broken"},
        {"code": 302, "body": ""},
    ]
    assert len(server.requests) == 3


async def test_a_request_without_an_answer_is_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def no_pause(delay: float) -> None:
        pauses.append(delay)

    monkeypatch.setattr(retries, "sleep", no_pause)
    server.answers = [b"", b"", ok(b"third")]
    assert await fg.run(request(server.url, timeout={"retryTimes": 2}), {}) == {"code": 200, "body": "third"}
    assert pauses == [1, 2]
    server.answers = [b"", b""]
    assert (await failure(request(server.url, timeout={"retryTimes": 1}))).startswith("HTTP request failed: ")


async def test_requests_are_counted_across_restarts(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "src" / "workflows"
    folder.mkdir(parents=True)
    (folder / "g.json").write_text(json.dumps(request(server.url, timeout={"retryTimes": 1})))
    server.answers = [b"", b"", ok(b"never asked for")]
    journal, catalog = journal_at(tmp_path), Catalog(tmp_path)
    async with engine_on(journal, catalog) as engine:
        handle = await engine.submit(submission(catalog.find("g"), {}))
        async with asyncio.timeout(5):
            with journal.watch(handle.run_id) as bell:
                while not await journal.events(handle.run_id, types=["step_retry"]):
                    await bell.wait()
    async with engine_on(journal, catalog) as engine:
        async with asyncio.timeout(10):
            run = await engine.wait(handle.run_id)
        steps = {step.key: (step.status.value, step.attempts) for step in await journal.steps(handle.run_id)}
    await journal.close()
    assert (run.status.value, steps["h"], len(server.requests)) == ("failed", ("failed", 2), 2)


async def test_retries_of_a_request_that_cannot_be_meant_are_refused(server: Server) -> None:
    for times in (-1, True, "3"):
        assert "retryTimes" in await failure(request(server.url, timeout={"retryTimes": times}))
    assert server.requests == []


async def test_a_silent_server_is_a_timeout_with_a_message(server: Server) -> None:
    server.hold = asyncio.Event()
    assert await failure(request(server.url, timeout={"timeout": 50})) == "HTTP request timed out after 50 ms"


async def test_an_answer_without_end_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_request, "LIMIT_BYTES", 1000)
    server.answers = [ok(b"x" * 1001)]
    assert await failure(request(server.url, timeout={"retryTimes": 2})) == "HTTP answer is larger than 1,000 bytes"
    assert len(server.requests) == 1


async def test_text_of_odd_encodings_is_read(server: Server) -> None:
    server.answers = [
        ok("ü".encode("latin-1"), "200 OK", "content-type: text/plain; charset=latin-1"),
        ok(b"\xff", "200 OK", "content-type: text/plain; charset=no-such-thing"),
    ]
    assert (await fg.run(request(server.url), {}))["body"] == "ü"
    assert (await fg.run(request(server.url), {}))["body"] == "\ufffd"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0",
        "2130706433",
        "0x7f000001",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[::127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "224.0.0.1",
        "[fe80::1]",
        "[fc00::1]",
    ],
)
async def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    message = await failure(request(f"http://{host}:9/latest", timeout={"retryTimes": 3}))
    assert "which is not public" in message


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file:///etc/passwd", "must begin with http:// or https://"),
        ("gopher://127.0.0.1/x", "must begin with http:// or https://"),
        ("//127.0.0.1/x", "must begin with http:// or https://"),
        ("http://public.example@127.0.0.1/", "must not hold a user name"),
        ("http://127.0.0.1:99999/", "HTTP url is invalid"),
        ("http:///x", "must begin with http:// or https://"),
    ],
)
async def test_urls_that_play_tricks_are_refused(url: str, told: str) -> None:
    assert told in await failure(request(url))


@promise("flowgram.network")
async def test_a_name_that_stands_for_a_private_address_is_refused_whatever_it_says_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.forget_hosts()
    asked: list[str] = []

    def entry(address: str, port: int) -> Any:
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))

    async def answers(name: str, port: int, **more: Any) -> Any:
        asked.append(name)
        # Public the first time, ours from then on: what was checked is what is connected to.
        return [entry("93.184.216.34" if len(asked) == 1 else "127.0.0.1", server.port)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answers)
    assert await network.addresses_of("rebinds.example", server.port) == ["93.184.216.34"]
    assert "which is not public" in await failure(request(f"http://rebinds.example:{server.port}/"))
    assert server.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(name: str, port: int, **more: Any) -> Any:
        assert name == "named.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    # Asked once: a second look-up of the name would fail.
    monkeypatch.setattr(network.asyncio.get_running_loop(), "getaddrinfo", answers)
    fg.allow_hosts("named.example")
    await fg.run(request(f"http://named.example:{server.port}/"), {})
    assert server.requests[0][1]["host"] == f"named.example:{server.port}"


async def test_each_hop_of_a_redirect_is_checked(server: Server) -> None:
    made = request(server.url)
    made["nodes"][1]["data"]["api"]["followRedirects"] = True
    server.answers = [ok(b"", "302 Found", "location: /next"), ok(b"there")]
    assert await fg.run(made, {}) == {"code": 200, "body": "there"}
    server.answers = [ok(b"", "302 Found", f"location: http://localhost:{server.port}/")]
    assert "which is not public" in await failure(made)
    assert len(server.requests) == 3


async def test_hosts_can_be_allowed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    network.forget_hosts()
    made = request(server.url)
    assert "which is not public" in await failure(made)
    for allowed in ("127.0.0.0/8", "*", f"127.0.0.1:{server.port}"):
        network.forget_hosts()
        fg.allow_hosts(allowed)
        assert (await fg.run(made, {}))["code"] == 200
    network.forget_hosts()
    fg.allow_hosts("127.0.0.1:1", "example.com")
    assert "which is not public" in await failure(made)
    monkeypatch.setenv(network.VARIABLE, "elsewhere.example, 127.0.0.1")
    assert (await fg.run(made, {}))["code"] == 200
