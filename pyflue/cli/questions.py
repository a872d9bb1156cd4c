"""Asking whoever sits at the terminal: the next line, and whether a tool may be called.

Used by `agents chat`. A question about an approval waits beside the events of the answer that it belongs to. It goes
away if somebody else decides meanwhile, or nobody in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TextIO, cast

import click

from .. import codec
from ..errors import PyFlueError
from ..journal import EventType
from .events import EventJson
from .output import paint, say, shown
from .waits import answered_by

_YES = frozenset({"y", "yes"})
_NO = frozenset({"n", "no"})
#: Characters of a request that are shown.
_LONGEST = 4000


class Decides(Protocol):
    """Says what was decided, `approved` or not, to those who wait for it."""

    def __call__(self, approval_id: str, *, approved: bool, reason: str | None) -> Awaitable[None]:
        """
        Raises:
            ApprovalClosed, ApprovalNotFound, Forbidden, …
        """
        ...


class Approver:
    """Asks about the approvals of one answer, one after the other, for as long as it is entered."""

    def __init__(self, decide: Decides, out: TextIO, *, server: str | None, before: Callable[[], None]) -> None:
        """`before` is called before each question, so that it begins on a line of its own."""
        self._decide = decide
        self._out = out
        self._server = server
        self._before = before
        #: What is asked, by the step that waits for it.
        self._open: dict[str, Mapping[str, Any]] = {}
        self._bell = asyncio.Event()
        #: The step that is asked about, and the task that does.
        self._asking: tuple[str, asyncio.Task[None]] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Approver:
        self._task = asyncio.get_running_loop().create_task(self._ask_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def takes(self, event: EventJson) -> bool:
        """Take note of an event; whether it is told here."""
        data = event["data"]
        step = str(data.get("step", ""))
        if event["type"] == EventType.APPROVAL_REQUESTED:
            self._open[step] = data
            self._bell.set()
            return True
        if event["type"] == EventType.STEP_END and self._open.pop(step, None) is not None:
            self._withdraw(step, "nobody decided in time" if data.get("status") == "expired" else "decided elsewhere")
        return False

    def _withdraw(self, step: str, why: str) -> None:
        if self._asking is not None and self._asking[0] == step:
            self._asking[1].cancel()
            click.echo(file=self._out)
            say(paint(f"· {why}", dim=True))

    async def _ask_all(self) -> None:
        while True:
            while not self._open:
                self._bell.clear()
                await self._bell.wait()
            step, asked = next(iter(self._open.items()))
            question = asyncio.get_running_loop().create_task(self._ask(asked))
            self._asking = step, question
            try:
                await question
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # the answer has ended, and not only the question
            finally:
                self._asking = None
                self._open.pop(step, None)

    async def _ask(self, asked: Mapping[str, Any]) -> None:
        self._before()
        # What was typed before it was asked is no answer to it.
        _forget_typed()
        answer = await self._answer(f"approve {_shown(asked)}? [y/n] ")
        while answer is not None and answer.lower() not in _YES | _NO:
            answer = await self._answer("y or n? ")
        if answer is None:
            click.echo(file=self._out)
            wait = {"kind": "approval", "approval_id": asked.get("approval_id")}
            say(f"left open; it can still be decided: {answered_by('', wait, server=self._server)}")
            return
        reason = await self._answer("reason (Enter for none): ")
        # From here on its end is ours: it is no news.
        self._open.pop(str(asked.get("step", "")), None)
        try:
            await self._decide(str(asked.get("approval_id")), approved=answer.lower() in _YES, reason=reason or None)
        except PyFlueError as error:
            say(f"{paint('error:', fg='red', bold=True)} {shown(error.message)}")
            if error.hint:
                say(f"{paint('hint:', fg='cyan')} {shown(error.hint)}")

    async def _answer(self, question: str) -> str | None:
        click.echo(paint(question, bold=True), file=self._out, nl=False)
        line = await next_line()
        return None if line is None else line.strip()


async def next_line() -> str | None:
    """The next line of stdin; None at its end."""
    loop = asyncio.get_running_loop()
    try:
        number = sys.stdin.fileno()
        arrived = asyncio.Event()
        loop.add_reader(number, arrived.set)
    except (OSError, ValueError, NotImplementedError):  # a regular file, or no file at all: reading it never waits
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    try:
        data = b""
        while not data.endswith(b"\n"):
            arrived.clear()
            await arrived.wait()
            # Byte by byte: what comes after the line stays where it is.
            byte = os.read(number, 1)
            if not byte:
                break
            data += byte
        return data.decode(errors="replace").rstrip("\n") if data else None
    finally:
        loop.remove_reader(number)


def _shown(asked: Mapping[str, Any]) -> str:
    """What is asked, on one line: nearly all of it, as nobody should agree to what they do not see."""
    request: Any = asked.get("request")
    if isinstance(request, Mapping) and "arguments" in request:
        request = cast("Mapping[str, Any]", request)["arguments"]
    text = codec.encode(request).decode()
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text) - _LONGEST:,} characters more: `pyflue approvals show`)"
    return shown(f"{asked.get('name')} {text}")


def _forget_typed() -> None:
    """Drop what was typed on the terminal and not read yet."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import termios

        with contextlib.suppress(termios.error):
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
