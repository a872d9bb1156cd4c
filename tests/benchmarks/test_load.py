"""The load generator counts right: what it says it was answered is what the bare echo answered."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from benchmarks.bare_echo import app as bare_echo
from benchmarks.load import Plan, measure, post
from pyflue import codec

_ROOT = Path(__file__).parents[2]


class CountingEcho:
    """The bare echo, listening, with a count of its answers."""

    def __init__(self) -> None:
        self.answers = 0
        self.queries: list[bytes] = []
        self.first_takes_s = 0.0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not self.answers:
            await asyncio.sleep(self.first_takes_s)
        await bare_echo(scope, receive, send)
        if scope["type"] == "http":
            self.answers += 1
            self.queries.append(scope["query_string"])


@pytest.fixture
async def echo() -> AsyncIterator[CountingEcho]:
    echo = CountingEcho()
    server = uvicorn.Server(uvicorn.Config(echo, log_level="warning", access_log=False))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[echo.socket]))
        yield echo
        server.should_exit = True


async def load(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, figures and complaints of the generator."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load", *arguments, "--json",
        cwd=_ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, complaints = await process.communicate()
    return process.returncode or 0, codec.load(out) if out else {}, complaints.decode()


async def test_a_number_of_requests_is_sent_and_counted_exactly(echo: CountingEcho) -> None:
    _, figures, _ = await load(f"{echo.url}/echo", "--requests", "500", "--connections", "7", "--body", '{"a":1}')

    assert echo.answers == 500
    assert (figures["answers"], figures["connections"], figures["statuses"]) == (500, 7, {"200": 500})
    assert figures["sample"] == '{"a":1}'
    assert 0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"] <= figures["max_ms"]


async def test_a_timed_series_counts_no_more_than_was_answered_and_leaves_the_warm_up_out(echo: CountingEcho) -> None:
    _, figures, _ = await load(f"{echo.url}/echo", "--seconds", "0.3", "--warm-up", "0.3", "--connections", "2")

    assert 0 < figures["answers"] < echo.answers
    assert figures["per_second"] == pytest.approx(figures["answers"] / 0.3, rel=0.01)


async def test_no_more_is_sent_than_the_rate_allows(echo: CountingEcho) -> None:
    options = ["--seconds", "0.5", "--warm-up", "0", "--connections", "4", "--rate", "40"]
    _, figures, _ = await load(f"{echo.url}/echo", *options)

    assert 10 <= figures["answers"] <= echo.answers <= 20


async def test_at_a_rate_a_stall_counts_for_each_request_it_held_up(echo: CountingEcho) -> None:
    echo.first_takes_s = 0.4
    options = ["--requests", "20", "--connections", "1", "--rate", "100"]
    _, figures, _ = await load(f"{echo.url}/echo", *options)

    # The last of them was due 0.19 s after the first was sent.
    assert figures["answers"] == 20
    assert figures["p50_ms"] > 200


async def test_different_requests_are_each_sent_once(echo: CountingEcho) -> None:
    host, port, _ = post(echo.url, b"{}")
    each = [post(f"{echo.url}/echo?n={number}", b"{}")[2] for number in range(50)]
    series = await measure(Plan(host=host, port=port, connections=4, seconds=5, each=each))

    assert (series.answers, series.statuses) == (50, {"200": 50})
    assert sorted(echo.queries) == sorted(b"n=%d" % number for number in range(50))


async def test_answers_that_are_errors_are_told_apart(echo: CountingEcho) -> None:
    _, figures, _ = await load(f"{echo.url}/nowhere", "--requests", "5", "--connections", "1")

    assert figures["statuses"] == {"404": 5}


async def test_a_server_that_is_not_there_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    code, _, complaints = await load(f"http://127.0.0.1:{port}/echo", "--requests", "1")

    assert code == 1
    assert complaints.count("\n") == 1
    assert f"http://127.0.0.1:{port}/echo" in complaints
