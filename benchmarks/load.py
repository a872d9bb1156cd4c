"""The load generator: HTTP requests over a fixed number of connections, as fast as they are answered or at a rate.

`http_series.py` runs it in a process of its own; people run it by hand (`python -m benchmarks.load URL`). It sends
bytes prepared beforehand on raw sockets and reads no more of an answer than its status and `Content-Length`, so that
on a small machine the server and not the generator is what is measured. It knows nothing about PyFlue.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

from pyflue import codec

#: A server that has not answered a started request by then is taken for dead.
_GRACE_S = 30.0


class UnexpectedAnswer(Exception):
    """The server closed the connection, or sent something this generator does not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, and for how long: `seconds` after a warm-up, or exactly `requests` in all without one.

    With `each`, exactly those requests instead, one after the other; with a `rate`, no more than so many a second.
    """

    host: str
    port: int
    request: bytes = b""
    connections: int
    seconds: float = 0.0
    warm_up_s: float = 0.0
    requests: int | None = None
    each: Sequence[bytes] = ()
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What was measured: times in milliseconds from the first byte sent to the last byte read.

    At a rate, a request that was due while its connection still waited for an answer counts from when it was due: a
    server that stalls is not spared the requests that it held up.
    """

    connections: int
    answers: int
    seconds: float
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    #: Share of one core that the generator itself used; close to 1, it was the bottleneck.
    generator_cpu: float
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    #: The body of the last answer, to see that the right thing was measured.
    sample: str = ""


class _Meter:
    """Hands out the requests, and counts the answers of all connections."""

    def __init__(self, plan: Plan) -> None:
        self._request = plan.request
        self._each = iter(plan.each) if plan.each else None
        self._interval_ns = 0 if plan.rate is None else int(1e9 / plan.rate)
        self._due_ns = 0
        self.latencies_ns: list[int] = []
        self.statuses: Counter[str] = Counter()
        self.body = b""
        self.first_ns = time.perf_counter_ns() + int(plan.warm_up_s * 1e9)
        self.last_ns = self.first_ns + int(plan.seconds * 1e9)
        self.left = len(plan.each) if plan.each else plan.requests

    def next_request(self, now_ns: int) -> tuple[bytes, int] | None:
        """What to send next, and when; None if nothing is left to be sent."""
        due_ns = now_ns
        if self._interval_ns:
            due_ns = self._due_ns = self._due_ns + self._interval_ns if self._due_ns else now_ns
        if self.left is None:
            return (self._request, due_ns) if due_ns < self.last_ns else None
        if self.left == 0:
            return None
        self.left -= 1
        return (self._request if self._each is None else next(self._each)), due_ns

    def count(self, sent_ns: int, now_ns: int, status: str, body: bytes) -> None:
        # Only requests sent and answered inside the window count; the warm-up and the tail do not.
        if self.left is not None or (sent_ns >= self.first_ns and now_ns <= self.last_ns):
            self.latencies_ns.append(now_ns - sent_ns)
            self.statuses[status] += 1
            self.body = body


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at a time."""

    def __init__(self, meter: _Meter, finished: asyncio.Future[None]) -> None:
        self._meter = meter
        self._finished = finished
        self._received = b""
        self._sent_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send(time.perf_counter_ns())

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            self._received = received
            return
        try:
            end = head_end + 4 + _content_length(received, head_end)
        except UnexpectedAnswer as error:
            self._stop(error)
            return
        if len(received) < end:
            self._received = received
            return
        self._received = b""
        now_ns = time.perf_counter_ns()
        self._meter.count(self._sent_ns, now_ns, received[9:12].decode(), received[head_end + 4 : end])
        self._send(now_ns)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(UnexpectedAnswer(f"The server closed the connection ({exc or 'without an error'})."))

    def _send(self, now_ns: int) -> None:
        following = self._meter.next_request(now_ns)
        if following is None:
            self._stop(None)
            return
        request, due_ns = following
        if due_ns > now_ns:
            self._finished.get_loop().call_later((due_ns - now_ns) / 1e9, self._send_late, request)
        else:
            self._sent_ns = due_ns
            self._transport.write(request)

    def _send_late(self, request: bytes) -> None:
        # Counted from now: how punctual this generator's timers are is nothing the server can help.
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(request)

    def _stop(self, error: UnexpectedAnswer | None) -> None:
        if not self._finished.done():
            if error is None:
                self._finished.set_result(None)
            else:
                self._finished.set_exception(error)
        self._transport.close()


def _content_length(received: bytes, head_end: int) -> int:
    head = received[:head_end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise UnexpectedAnswer(f"An answer without Content-Length: {received[:200]!r}")
    line_end = head.find(b"\r\n", at + 2)
    return int(head[at + 17 : line_end if line_end >= 0 else head_end])


def post(url: str, body: bytes) -> tuple[str, int, bytes]:
    """Host, port and the whole request, as bytes, that posts JSON to a URL."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    target = parts.path or "/"
    if parts.query:
        target += "?" + parts.query
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return host, port, head.encode("ascii") + body


async def measure(plan: Plan) -> Series:
    """Send as planned and count the answers.

    Raises:
        UnexpectedAnswer: a connection broke, or an answer was not plain HTTP/1.1 with a `Content-Length`.
    """
    loop = asyncio.get_running_loop()
    meter = _Meter(plan)
    ends: list[asyncio.Future[None]] = []
    started, cpu_before = time.perf_counter(), time.process_time()
    async with asyncio.timeout(plan.warm_up_s + plan.seconds + _GRACE_S):
        for _ in range(plan.connections):
            finished: asyncio.Future[None] = loop.create_future()
            ends.append(finished)
            await loop.create_connection(lambda finished=finished: _Connection(meter, finished), plan.host, plan.port)
        await asyncio.gather(*ends)
    elapsed = time.perf_counter() - started
    return _series(plan, meter, elapsed, (time.process_time() - cpu_before) / elapsed)


def _series(plan: Plan, meter: _Meter, elapsed_s: float, generator_cpu: float) -> Series:
    latencies = sorted(meter.latencies_ns)
    if not latencies:
        raise UnexpectedAnswer("Not one answer came in the time that was measured.")
    seconds = plan.seconds if meter.left is None else elapsed_s
    return Series(
        connections=plan.connections,
        answers=len(latencies),
        seconds=round(seconds, 3),
        per_second=round(len(latencies) / seconds, 1),
        p50_ms=_milliseconds(statistics.median_low(latencies)),
        p90_ms=_milliseconds(latencies[int(len(latencies) * 0.90)]),
        p99_ms=_milliseconds(latencies[int(len(latencies) * 0.99)]),
        max_ms=_milliseconds(latencies[-1]),
        generator_cpu=round(generator_cpu, 2),
        statuses=dict(meter.statuses),
        sample=meter.body[:200].decode(errors="replace"),
    )


def _milliseconds(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)


def run(plan: Plan) -> Series:
    """`measure` on a uvloop of its own."""
    import uvloop  # the generator's process only: importing this module stays cheap

    return uvloop.run(measure(plan))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Post one JSON body over and over.")
    parser.add_argument("url", help="such as http://127.0.0.1:2024/workflows/echo?wait=result")
    parser.add_argument("--connections", type=int, default=32, help="connections, one request at a time each (32)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure (10)")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds of load before that (1)")
    parser.add_argument("--requests", type=int, help="send exactly so many instead, without a warm-up")
    parser.add_argument("--rate", type=float, help="requests per second (as fast as they are answered)")
    parser.add_argument(
        "--body", default='{"text": "PyFlue workflows are finite operations."}', help="the JSON to post"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    options = parser.parse_args(arguments)
    host, port, request = post(options.url, options.body.encode())
    plan = Plan(
        host=host,
        port=port,
        request=request,
        connections=options.connections,
        seconds=options.seconds,
        warm_up_s=0.0 if options.requests else options.warm_up,
        requests=options.requests,
        rate=options.rate,
    )
    try:
        series = run(plan)
    except (UnexpectedAnswer, OSError, TimeoutError) as error:
        sys.exit(f"{options.url}: {error or 'no answer in time'}")
    if options.json:
        print(codec.encode(asdict(series)).decode())
        return
    print(
        f"{series.per_second:,.0f}/s over {series.seconds:g} s on {series.connections} connections   "
        f"p50 {series.p50_ms:g} ms   p90 {series.p90_ms:g} ms   p99 {series.p99_ms:g} ms   max {series.max_ms:g} ms\n"
        f"statuses {series.statuses}   generator {series.generator_cpu:.0%} of a core\nlast answer {series.sample}"
    )


if __name__ == "__main__":
    main()
