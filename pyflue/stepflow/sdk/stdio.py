"""Components behind pipes: one message on each line of standard input, answers on standard output.

`StepflowServer.start_stdio` and `StepflowStdioServer.run` end here. The main thread does nothing but read: whatever a
component does, the end of the input and signals are seen at once. Plain functions run in threads, coroutines in one
event loop in a thread; whoever has an answer writes it. (Measured: a line handed to a thread costs about as much as one
read by an event loop, and a server without coroutines starts without asyncio.) Only functions that say that they never
wait are called by the main thread.

Standard output belongs to the protocol. What components print, and what programs print that they start, goes to
standard error; and they cannot read what is meant for us. This stays so after the end of the input.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from .context import Waiting
from .dispatcher import Call, Dispatcher
from .threads import Loop, Threads

if TYPE_CHECKING:
    from .server import StepflowServer

_READ_BYTES = 64 * 1024
#: How long coroutines that are cancelled at the end may take to clean up.
_GRACE_S = 1.0
#: How long threads may take to notice that they are done.
_SETTLE_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StepflowStdioServer:
    """A component server that a runtime starts and speaks to through pipes."""

    def __init__(self, server: StepflowServer | None = None) -> None:
        if server is None:
            from .server import StepflowServer

            server = StepflowServer()
        #: Holds the components.
        self.server = server
        # As they are there; typed as they are there, too.
        self.component = server.component
        self.langchain_component = server.langchain_component
        self.get_component = server.get_component
        self.get_components = server.get_components

    def run(self) -> None:
        """Serve until standard input ends, or SIGTERM or Ctrl-C comes. Then nothing is worked on any more."""
        source, sink = _take_pipes()
        waiting = Waiting()
        conversation = _Conversation(self.server, _Pipe(sink, waiting, Threads()))
        stopped, restore = _heed_signals()
        try:
            for line in _lines(source):
                conversation.take(line)
                if stopped.is_set():
                    break  # a component has swallowed what the signal raised
        except _Stopped:
            pass
        finally:
            restore()
            waiting.end()
            conversation.end()


class _Conversation:
    """What is done with the lines."""

    def __init__(self, server: StepflowServer, pipe: _Pipe) -> None:
        self._pipe = pipe
        self._dispatcher = Dispatcher(server.components)
        self._server = server
        self._threads = pipe.threads
        self._loop = Loop()

    def take(self, line: bytes) -> None:
        """Begin to work on a line. Nothing is written here: a full pipe must not keep us from reading."""
        message = self._dispatcher.read(line)
        if isinstance(message, bytes):
            self._threads.submit(self._pipe.send, message)
        elif message.is_request:
            answer = self._dispatcher.answer(message)
            if isinstance(answer, bytes):
                self._threads.submit(self._pipe.send, answer)
            elif answer.entry.is_async:
                self._loop.spawn(self._run_async, answer)
            elif answer.entry.is_blocking:
                self._threads.submit(self._run, answer)
            else:
                self._run_here(answer)
        elif isinstance(message.method, str):
            self._dispatcher.note(message)
        else:
            self._pipe.waiting.answer(message)
        self._server.set_initialized(self._dispatcher.is_initialized)

    def end(self) -> None:
        """Stop what is under way. What cannot be stopped ends with the process, at once."""
        self._pipe.close()
        is_over = self._loop.end(_GRACE_S)
        # Threads that have just given their answer are let to finish, and code behind `run` to go on.
        is_idle = self._threads.settle(_SETTLE_S)
        if not (is_over and is_idle) and threading.current_thread() is threading.main_thread():
            _leave(0)

    def _run_here(self, call: Call) -> None:
        try:
            said = self._dispatcher.run(call, self._pipe)
        except SystemExit as stop:
            _leave(stop.code)
        else:
            if not self._pipe.send_at_once(said):
                self._threads.submit(self._pipe.send, said)

    def _run(self, call: Call) -> None:
        try:
            self._pipe.send(self._dispatcher.run(call, self._pipe))
        except SystemExit as stop:
            _leave(stop.code)

    async def _run_async(self, call: Call) -> None:
        try:
            self._pipe.send(await self._dispatcher.run_async(call, self._pipe))
        except SystemExit as stop:
            _leave(stop.code)


class _Pipe:
    """Where lines are written, by any thread."""

    def __init__(self, sink: int, waiting: Waiting, threads: Threads) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._is_closed = False
        self.waiting = waiting
        self.threads = threads

    def send(self, message: bytes) -> None:
        """Write a line, and wait until there is room for all of it."""
        with self._lock:
            self._write(message)

    def send_at_once(self, message: bytes) -> bool:
        """Write a line if that takes no waiting; whether it has been written."""
        if len(message) >= select.PIPE_BUF or not self._lock.acquire(blocking=False):
            return False
        try:
            # A pipe that is ready has room for so much.
            is_ready = _is_ready(self._sink, select.POLLOUT)
            if is_ready:
                self._write(message)
            return is_ready
        finally:
            self._lock.release()

    def _write(self, message: bytes) -> None:
        rest = memoryview(message + b"\n")
        while rest and not self._is_closed:
            try:
                rest = rest[os.write(self._sink, rest) :]
            except BlockingIOError:
                _until_ready(self._sink, select.POLLOUT)  # whoever has made the pipe has made it so
            except OSError:
                self._is_closed = True  # nobody reads any more; the input ends, too

    def close(self) -> None:
        """Write nothing more. Takes no lock: a thread may be stuck with it."""
        self._is_closed = True


class _Stopped(BaseException):
    """A signal that says to end."""


def _heed_signals() -> tuple[threading.Event, Callable[[], None]]:
    """End at SIGTERM and Ctrl-C, unless the program has its own way with them.

    Returns what says that one has come, and how to undo it.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        return stopped, lambda: None
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    ours = [number for number in _SIGNALS if signal.getsignal(number) in defaults]
    before = {number: signal.getsignal(number) for number in ours}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(_number: int, _frame: FrameType | None) -> None:
        restore()  # a second one ends the process whatever it does
        stopped.set()
        raise _Stopped

    for number in ours:
        signal.signal(number, stop)
    return stopped, restore


def _take_pipes() -> tuple[int, int]:
    """Keep standard input and output for the protocol, and give the program others in their place."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.dup2(nothing, 1)
    os.close(nothing)
    # What was printed before, and is still kept, goes to the new place.
    if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  (None without a standard output)
        sys.stdout.flush()
    if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]  (as above)
        sys.stdout = sys.stderr
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115  (for the rest of the process)
    # A process that is forked off must not hold the pipes open after us, or read from them.
    os.register_at_fork(after_in_child=lambda: _close(source, sink))
    return source, sink


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _lines(source: int) -> Iterator[bytes]:
    """The lines that come, without their ends; of a long one the pieces are put together once."""
    pieces: list[bytes] = []
    while True:
        try:
            data = os.read(source, _READ_BYTES)
        except BlockingIOError:
            _until_ready(source, select.POLLIN)
            continue
        except OSError:
            return
        if not data:
            return
        *whole, rest = data.split(b"\n")
        for line in whole:
            if pieces:
                pieces.append(line)
                line = b"".join(pieces)
                pieces.clear()
            if line.strip():
                yield line
        if rest:
            pieces.append(rest)


def _until_ready(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()


def _is_ready(descriptor: int, event: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(0))


def _leave(code: object) -> None:
    """End the process now, whatever its threads do; as `sys.exit` would with this code."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)  # noqa: T201  (what `sys.exit` does with a text)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit((code or 0) & 0xFF)
