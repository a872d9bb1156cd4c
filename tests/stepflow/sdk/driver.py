"""The runtime's side of a component server, by hand: lines in, lines out."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVERS = Path(__file__).parent / "servers"
INITIALIZE = {"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": {"runtime_protocol_version": 1}}
WAIT_S = 20


class Server:
    """A server process. What it asks is answered by `runtime(method, params)`, unless a test does so itself."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Where output is not buffered, what is printed before a server runs cannot be held back any more.
            env={**{k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}, **(env or {})},
            cwd=cwd,
            bufsize=0,
        )
        self.runtime: Callable[[str, Any], dict[str, Any]] | None = None
        #: Requests of the server, in their order.
        self.asked: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._early: list[dict[str, Any]] = []
        self._errors: list[bytes] = []
        self._has_said = threading.Condition()
        #: Cleared, what the server writes stays in its pipe.
        self.reads = threading.Event()
        self.reads.set()
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        rest = memoryview(line)
        while rest:
            rest = rest[self.process.stdin.write(rest) :]

    def send(self, *messages: dict[str, Any]) -> None:
        self.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def next(self) -> dict[str, Any]:
        """The next message that the server writes."""
        if self._early:
            return self._early.pop(0)
        return self._next_read()

    def answer_to(self, request_id: object) -> dict[str, Any]:
        """The answer to one request; others are kept."""
        for message in self._early:
            if "method" not in message and message.get("id") == request_id:
                self._early.remove(message)
                return message
        while True:
            message = self._next_read()
            if "method" in message:
                self.asked.append(message)
                if self.runtime is not None:
                    answer = self.runtime(message["method"], message["params"])
                    self.send({"jsonrpc": "2.0", "id": message["id"], **answer})
                    continue
            elif message.get("id") == request_id:
                return message
            self._early.append(message)

    def call(self, method: str, params: Any = None, request_id: str | int = 1) -> dict[str, Any]:
        """Ask and wait; the answer without what is the same in all of them."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
        self.send(message if params is None else {**message, "params": params})
        answer = self.answer_to(request_id)
        assert answer.pop("jsonrpc") == "2.0"
        assert answer.pop("id") == request_id
        return answer

    def execute(self, component: str, given: Any = None, **more: Any) -> dict[str, Any]:
        return self.call("components/execute", {"component": component, "input": given, "attempt": 1, **more})

    def output(self, component: str, given: Any = None, **more: Any) -> Any:
        answer = self.execute(component, given, **more)
        assert set(answer) == {"result"}, answer
        assert set(answer["result"]) == {"output"}
        return answer["result"]["output"]

    def initialize(self) -> None:
        self.send(INITIALIZE, {"jsonrpc": "2.0", "method": "initialized", "params": {}})
        assert self.answer_to("init")["result"] == {"server_protocol_version": 1}

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> int:
        """The exit code, when all that it wrote was read."""
        code = self.process.wait(WAIT_S)
        for thread in self._threads:
            thread.join(WAIT_S)
        return code

    def wait_for(self, text: str) -> None:
        """Wait until it has written this on standard error."""
        with self._has_said:
            assert self._has_said.wait_for(lambda: text in self.errors, WAIT_S), self.errors

    @property
    def errors(self) -> str:
        return b"".join(self._errors).decode()

    @property
    def unread(self) -> list[dict[str, Any]]:
        """What it wrote beyond what was read; after `wait` only."""
        rest = list(self._early)
        while (message := self._lines.get(timeout=WAIT_S)) is not None:
            rest.append(message)
        return rest

    def close(self) -> None:
        self.reads.set()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        for thread in self._threads:
            thread.join(WAIT_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _next_read(self) -> dict[str, Any]:
        message = self._lines.get(timeout=WAIT_S)
        assert message is not None, f"the server has ended:\n{self.errors}"
        return message

    def _read(self) -> None:
        assert self.process.stdout is not None
        # Anything that is no JSON on a line of its own breaks the protocol, and this.
        pieces: list[bytes] = []
        while data := os.read(self.process.stdout.fileno(), 1 << 20):
            self.reads.wait()
            *whole, rest = data.split(b"\n")
            for line in whole:
                self._lines.put(json.loads(b"".join([*pieces, line])))
                pieces.clear()
            pieces.append(rest)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while data := os.read(self.process.stderr.fileno(), 1 << 16):
            with self._has_said:
                self._errors.append(data)
                self._has_said.notify_all()


@contextmanager
def served(name: str, *, initialize: bool = True, **more: Any) -> Iterator[Server]:
    """A server of `servers/`."""
    server = Server([sys.executable, str(SERVERS / name)], **more)
    try:
        if initialize:
            server.initialize()
        yield server
    finally:
        server.close()


class Blobs:
    """A runtime that knows blobs."""

    def __init__(self, **blobs: Any) -> None:
        self.blobs: dict[str, Any] = dict(blobs)
        self.reads: list[str] = []

    def __call__(self, method: str, params: Any) -> dict[str, Any]:
        match method:
            case "blobs/put":
                blob_id = f"{len(self.blobs):064x}"
                self.blobs[blob_id] = params["data"]
                return {"result": {"blob_id": blob_id}}
            case "blobs/get":
                self.reads.append(params["blob_id"])
                if params["blob_id"] not in self.blobs:
                    return {"error": {"code": -32011, "message": "not found"}}
                return {"result": {"data": self.blobs[params["blob_id"]], "blob_type": "data"}}
            case _:
                return {"error": {"code": -32601, "message": f"no method {method}"}}
