"""Tool calls: run what the model asks for, once per run, and tell it what came of it.

Every call is a durable call. Its result is recorded, together with the files it changed. A tool that is not idempotent
leaves a mark before it begins: if the run finds the mark and no result, what came of the call is *unknown*, the model
is told so, and the call is not repeated. Names and arguments are the model's, and hostile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from .. import codec
from ..clock import to_ms, whole_us
from ..codec import Raw
from ..engine import raised, values, waits
from ..engine.calls import Call
from ..engine.scopes import inside
from ..errors import BudgetExceeded, JournalError, PyFlueError, ReplayMismatch, RunStopped, WaitTimedOut
from ..journal import Attached, EventType, FileRecord, NewStep, Step, StepStatus
from ..typed import Misfit
from .answers import problems_told
from .asking import Asked
from .bounded import bounded_misfits
from .content import Block, Text, ToolResult, ToolUse, Usage, block_from_dict, block_to_dict
from .file_tools import ToolRefused, told_to_model
from .metering import Meter
from .models.parts import clean
from .operations import Operation, OperationAborted
from .redaction import redacted, restored, secrets_in
from .toolbox import Toolbox, UsableTool

#: What ends an operation, whichever tool it comes out of.
_ENDS_OPERATION = (RunStopped, JournalError, BudgetExceeded, ReplayMismatch, OperationAborted)
_UNKNOWN = (
    "The outcome of this call is unknown: the program was interrupted while it ran. It was not repeated. "
    "Find out whether it was done before you call it again."
)
_SHOWN_CHARACTERS = 64 * 1024
#: How many neighbours run side by side: a model may ask for thousands.
_MOST_AT_ONCE = 32
_NOTHING = Usage()


async def run_tools(operation: Operation, toolbox: Toolbox, asked: Asked) -> tuple[Block, ...]:
    """The results of a turn's tool uses, in their order. Neighbours that may run side by side do.

    Raises:
        BudgetExceeded, and what ends the run.
    """
    scope = asked.call.scope.inner(asked.call.key)
    calls: list[_ToolCall] = []
    with inside(scope):
        # Keys go by the order in the turn, not by who comes first.
        for use in asked.tool_uses:
            tool = toolbox.find(use.name)
            call = operation.calls.begin(use.name if tool is not None else "unknown_tool", "tool")
            calls.append(_ToolCall(operation, asked, use, tool, call))
        results: list[ToolResult] = []
        for group in _groups(calls):
            if len(group) == 1:
                results.append(await group[0].run())
            else:
                results += await _together(group)
    return tuple(results)


def _groups(calls: Sequence[_ToolCall]) -> Sequence[list[_ToolCall]]:
    """Neighbours that may run side by side, each of the others by itself."""
    groups: list[list[_ToolCall]] = []
    for call in calls:
        if call.is_parallel and groups and groups[-1][-1].is_parallel and len(groups[-1]) < _MOST_AT_ONCE:
            groups[-1].append(call)
        else:
            groups.append([call])
    return groups


async def _together(calls: Sequence[_ToolCall]) -> list[ToolResult]:
    for call in [call for call in calls if call.has_failed]:
        await call.run()  # it raises again, before the others begin anew what it had ended
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call.run()) for call in calls]
    except BaseExceptionGroup as errors:
        # Only what ends the operation comes out of a call, and the first of them has ended the others.
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


class _ToolCall:
    """One tool use."""

    def __init__(self, operation: Operation, asked: Asked, use: ToolUse, tool: UsableTool | None, call: Call) -> None:
        self._operation = operation
        self._calls = operation.calls
        self._asked = asked
        self._use = use
        self._tool = tool
        self._call = call
        self._started_us = self._started_index = 0
        self._began = 0.0
        #: Model work within the call: a task's turns, and the tools of its own.
        self._within = Meter(operation.meter.whose, above=operation.meter)
        #: What the author's code raised.
        self._error: Exception | None = None
        #: What it is called with, before that is made typed: the model's arguments, or those of whoever approved.
        self._given: Mapping[str, Any] = use.input
        self._digest: str | None = None
        self._record: object = None

    @property
    def is_parallel(self) -> bool:
        return self._tool is not None and self._tool.is_parallel

    @property
    def has_failed(self) -> bool:
        """Whether it is recorded that the operation ended with it."""
        record, _ = self._recall()
        return isinstance(record, Step) and record.status is StepStatus.FAILED

    def _recall(self) -> tuple[object, str]:
        """What is recorded of it, and what stands for its input."""
        if self._digest is None:
            self._digest = values.digest(codec.encode([self._use.name, self._use.input]))
            self._record = self._calls.recorded(self._call, self._digest)
        return self._record, self._digest

    async def run(self) -> ToolResult:
        """What came of it: recorded, or done now."""
        self._started_us, self._started_index = self._calls.clock.now_us(), self._calls.index
        self._began = self._calls.clock.monotonic()
        record, digest = self._recall()
        if isinstance(record, Step) and record.status is StepStatus.COMPLETED:
            return await self._replayed(record)
        if isinstance(record, Step) and record.error is not None:
            self._replay_seconds(record)
            raise raised.raise_again(record.error, self._call.key, run_tools)
        with self._calls.parking.calling():
            if isinstance(record, Step) and record.status is StepStatus.STARTED:
                return await self._complete(digest, [Text(_UNKNOWN)], is_error=True, outcome="unknown")
            return await self._run(digest)

    async def _replayed(self, record: Step) -> ToolResult:
        value = self._replay_seconds(record)
        content = [block_from_dict(block) for block in value["content"]]
        return self._result(content, value["is_error"])

    def _replay_seconds(self, record: Step) -> dict[str, Any]:
        """Count what a recorded call took; returns its value."""
        value = codec.load(record.value or codec.NULL)
        self._operation.meter.add(_NOTHING, turns=0, seconds=value["seconds"])
        self._operation.session.harness.skipped.count(self._call.key, self._operation.meter)
        return value

    async def _run(self, digest: str) -> ToolResult:
        use, tool = self._use, self._tool
        if tool is None:
            known = ", ".join(self._operation.session.toolbox_names) or "none"
            return await self._refuse(digest, f"There is no tool {use.name!r}. The tools: {known}.")
        if use.malformed is not None:
            return await self._refuse(digest, "The arguments are not a JSON object, or were cut off.")
        arguments: Mapping[str, Any] = use.input
        try:
            arguments = tool.check(arguments)
            if _needs_approval(tool, arguments):
                # A person sees, and may change, what the schema describes: nothing that only comes near to it.
                if problems := bounded_misfits(use.input, tool.input_schema):
                    raise Misfit(problems)
                approved = await self._approve(tool)
                if isinstance(approved, str):
                    return await self._refuse(digest, approved)
                self._given = approved
                arguments = tool.check(approved)
        except Misfit as misfit:
            return await self._refuse(digest, f"The arguments do not fit:\n{problems_told(misfit.problems)}")
        return await self._execute(digest, tool, arguments)

    async def _refuse(self, digest: str, why: str) -> ToolResult:
        self._calls.announce(EventType.TOOL_START, self._start_told())
        return await self._complete(digest, [Text(why)], is_error=True, outcome="refused")

    async def _approve(self, tool: UsableTool) -> Mapping[str, Any] | str:
        """The arguments that a person approved of, or why the call is not made."""
        asked_for = self._use.input
        hidden = secrets_in(asked_for, self._operation.secrets)
        shown = redacted(asked_for, hidden)
        request = {"tool": tool.name, "arguments": shown, "session": self._operation.session.name}
        # A name need not fit where the value does: then what is decided is looked at with the values in it only.
        fits = not hidden or not bounded_misfits(shown, tool.input_schema)
        schema = _approval_schema(tool.name, tool.input_schema if fits else {"type": "object"})
        call = Call(f"{self._call.key}/approval", tool.name, "approval", self._call.position, self._call.scope)
        raw = waits.checked_request(tool.name, request, self._calls.limits)
        try:
            decision = await waits.approve(self._calls, call, raw, tool.approval_timeout_s, None, schema)
        except WaitTimedOut:
            return "Nobody approved of this call in time; it was not made."
        if not decision.approved:
            reason = f": {decision.reason}" if decision.reason else "."
            return f"This call was rejected by a person and not made{reason}"
        arguments = decision.data["arguments"]
        # Who decided has seen the names of secrets, and has left or moved them.
        arguments = asked_for if arguments == shown else restored(arguments, hidden)
        problems = bounded_misfits(arguments, tool.input_schema)
        if problems:
            raise Misfit(problems)
        return arguments

    async def _execute(self, digest: str, tool: UsableTool, arguments: Mapping[str, Any]) -> ToolResult:
        workspace = self._operation.session.workspace
        self._began = self._calls.clock.monotonic()
        if not tool.changes_files:
            workspace.go_on()
            await self._start(digest, tool)
            try:
                content, is_error = await self._call_tool(tool, arguments)
            except BudgetExceeded as error:
                await self._fail(digest, error)
                raise
            return await self._complete(digest, self._with_change(content), is_error=is_error)
        async with workspace.changing():
            await self._start(digest, tool)
            try:
                content, is_error = await self._call_tool(tool, arguments)
            except BudgetExceeded as error:
                await self._fail(digest, error, await workspace.taken())
                raise
            files = await workspace.taken()
            return await self._complete(digest, self._with_change(content), is_error=is_error, files=files)

    def _with_change(self, content: Sequence[Block]) -> Sequence[Block]:
        """What the tool says; before it, that a person let it be called with other arguments than the model's."""
        if self._given == self._use.input:
            return content
        changed = codec.encode(redacted(self._given, self._operation.secrets)).decode()
        return [Text(f"A person changed the arguments before the call: {changed}\n"), *content]

    async def _start(self, digest: str, tool: UsableTool) -> None:
        told = self._start_told()
        if tool.is_idempotent:
            self._calls.announce(EventType.TOOL_START, told)
            await self._calls.settle()
            return
        step = self._step(StepStatus.STARTED, digest)
        await self._calls.record(step, self._calls.event(EventType.TOOL_START, told))

    async def _call_tool(self, tool: UsableTool, arguments: Mapping[str, Any]) -> tuple[Sequence[Block], bool]:
        """What a tool says; its exceptions are something it says, too."""
        left_s = self._operation.meter.seconds_left()
        limits = [limit for limit in (tool.timeout_s, left_s) if limit is not None]
        limit = asyncio.timeout(min(limits) if limits else None)
        attempt = self._call.scope.attempt(self._call.key, 1)
        try:
            async with limit:
                with inside(attempt), self._within.counting():
                    return await tool.run(arguments, self._operation, self._use.id), False
        except _ENDS_OPERATION:
            raise
        except TimeoutError as error:
            if not limit.expired():
                return _told(error), True
            if left_s is not None and (tool.timeout_s is None or left_s < tool.timeout_s):
                raise self._operation.meter.out_of_time() from None
            return [Text(f"The tool did not finish in {tool.timeout_s:g} s.")], True
        except Exception as error:
            # A tool is the author's, or an MCP server's: whatever it raises is for the model to deal with.
            if self._calls.host.stopped_because is not None:
                raise
            if not isinstance(error, (PyFlueError, OSError, ToolRefused)):
                self._error = error
            return _told(error), True

    async def _complete(
        self,
        digest: str,
        content: Sequence[Block],
        *,
        is_error: bool,
        outcome: str | None = None,
        files: Sequence[FileRecord] = (),
    ) -> ToolResult:
        operation = self._operation
        seconds, own = self._count_seconds()
        content = [_as_told(block, operation) for block in content]
        value = {
            "content": [block_to_dict(block) for block in content],
            "is_error": is_error,
            "seconds": whole_us(own),
        }
        told = self._about(
            is_error=is_error,
            duration_ms=to_ms(seconds),
            result="".join(block.text for block in content if isinstance(block, Text))[:_SHOWN_CHARACTERS],
        )
        if outcome is not None:
            told["outcome"] = outcome
        if self._error is not None:
            told["error"] = {"type": "exception", "exception": type(self._error).__name__}
        step = self._step(StepStatus.COMPLETED, digest, Raw(codec.encode(value)))
        await self._calls.record(
            step,
            self._calls.event(EventType.TOOL_END, told),
            attached=Attached(files=files) if files else None,
        )
        return self._result(content, is_error)

    async def _fail(self, digest: str, error: BudgetExceeded, files: Sequence[FileRecord] = ()) -> None:
        """Record that a budget was used up in the middle of the call: the operation ends so, in a replay as well."""
        seconds, own = self._count_seconds()
        record = raised.record_of(error, self._calls.root)
        told = self._about(is_error=True, duration_ms=to_ms(seconds), error=raised.shown(record))
        value = Raw(codec.encode({"seconds": whole_us(own)}))
        step = self._step(StepStatus.FAILED, digest, value, error=record)
        attached = Attached(files=files) if files else None
        await self._calls.record(step, self._calls.event(EventType.TOOL_END, told), attached=attached)

    def _count_seconds(self) -> tuple[float, float]:
        """Count what the call took; returns that, and how much of it was not counted by model work within it."""
        seconds = self._calls.clock.monotonic() - self._began
        own = max(seconds - self._within.seconds, 0.0)  # tasks side by side take more than there is
        self._operation.meter.add(_NOTHING, turns=0, seconds=own)
        return seconds, own

    def _result(self, content: Sequence[Block], is_error: bool) -> ToolResult:
        return ToolResult(tool_use_id=self._use.id, content=tuple(content), is_error=is_error)  # pyright: ignore[reportArgumentType]  (made of the kinds a result holds)

    def _start_told(self) -> dict[str, Any]:
        return self._about(arguments=redacted(self._given, self._operation.secrets))

    def _about(self, **more: Any) -> dict[str, Any]:
        return {
            **self._operation.about,
            "turn_id": self._asked.turn_id,
            "tool_call_id": self._use.id,
            "tool": self._use.name,
            "step": self._call.key,
            **more,
        }

    def _step(self, status: StepStatus, digest: str, value: Raw | None = None, *, error: Raw | None = None) -> NewStep:
        return NewStep(
            key=self._call.key,
            kind="tool",
            name=self._call.name,
            position=self._call.position,
            status=status,
            input_digest=digest,
            value=value,
            error=error,
            started_us=self._started_us,
            started_index=self._started_index,
        )


def _needs_approval(tool: UsableTool, arguments: Mapping[str, Any]) -> bool:
    """Whether a person has to agree: decided on the arguments as the tool would get them."""
    try:
        return tool.needs_approval(arguments)
    except Exception:  # noqa: BLE001  (the author's function; it cannot say, of arguments that a model chose)
        return True


def _told(error: Exception) -> list[Text]:
    return [Text(told_to_model(error))]


def _as_told(block: Block, operation: Operation) -> Block:
    # Names of files and messages of exceptions may hold halves of characters, which no record takes.
    return Text(clean(operation.redact(block.text))) if isinstance(block, Text) else block


def _approval_schema(tool: str, input_schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a decision may put in the place of the request: the same tool, with other arguments that fit it."""
    arguments = dict(input_schema)
    defs = arguments.pop("$defs", None)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "tool": {"const": tool},
            "arguments": arguments,
            "session": {"type": "string"},
        },
        "required": ["tool", "arguments"],
    }
    return schema if defs is None else {**schema, "$defs": defs}
