"""The tools a model has in one operation: the built-in ones, the agent's own, those of the call, and those of others.

Whatever kind of tool it is, `tool_calls.py` runs a `UsableTool`. What a model may do with the files and the shell is
the agent's policy; what its author's functions do is theirs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import AgentInvalid
from ..typed import Misfit, misfits
from .content import Block, Text
from .file_tools import told_of_command
from .models.port import ToolSpec
from .tools import ToolContext, ToolDefinition, check_arguments, normalise_result

if TYPE_CHECKING:
    from .commands import PyFlueCommand
    from .file_tools import BuiltinTool
    from .operations import Operation

_TASK_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "description": "What to do, with everything that has to be known for it."},
        "description": {"type": "string", "description": "A few words on what it is for."},
        "agent": {"type": "string", "description": "The subagent to do it; without, one like yourself."},
    },
    "required": ["prompt"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableTool:
    """A tool as it is run."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    #: Hostile arguments in, checked ones out. Raises Misfit.
    check: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    run: Callable[[Mapping[str, Any], Operation, str], Awaitable[Sequence[Block]]]
    needs_approval: Callable[[Mapping[str, Any]], bool] = lambda _: False
    approval_timeout_s: float | None = None
    is_idempotent: bool = False
    is_parallel: bool = False
    changes_files: bool = False
    timeout_s: float | None = None

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(name=self.name, description=self.description, input_schema=self.input_schema)


class Toolbox:
    """The tools of one operation, by name."""

    def __init__(self, tools: Iterable[UsableTool]) -> None:
        """Raises AgentInvalid if two have the same name."""
        self._tools: dict[str, UsableTool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise AgentInvalid(f"Duplicate tool name: {tool.name!r}.")
            self._tools[tool.name] = tool
        self.specs: Sequence[ToolSpec] = tuple(tool.spec for tool in self._tools.values())

    @property
    def names(self) -> Sequence[str]:
        return list(self._tools)

    def find(self, name: str) -> UsableTool | None:
        """The tool of a name, which a model has said."""
        return self._tools.get(name)


def of_definition(tool: ToolDefinition) -> UsableTool:
    """An author's tool."""
    return UsableTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        check=functools.partial(check_arguments, tool),
        run=functools.partial(_run_definition, tool),
        needs_approval=tool.needs_approval,
        is_idempotent=tool.is_idempotent,
        is_parallel=tool.is_parallel,
        timeout_s=tool.timeout_s,
    )


def of_builtin(tool: BuiltinTool) -> UsableTool:
    """A built-in tool for files and the shell."""

    async def run(arguments: Mapping[str, Any], operation: Operation, tool_call_id: str) -> Sequence[Block]:
        return [Text(await tool.execute(arguments))]

    return UsableTool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        check=functools.partial(_fitting, tool.input_schema),
        run=run,
        is_idempotent=tool.is_idempotent,
        is_parallel=tool.is_idempotent and not tool.changes_files,
        changes_files=tool.changes_files,
    )


def of_command(command: PyFlueCommand, secrets: Mapping[str, str]) -> UsableTool:
    """An author's command: a function of theirs, or a command line for the sandbox's shell."""
    function = command.callable
    if function is not None:
        definition = ToolDefinition(
            name=command.name,
            description=command.description,
            input_schema=command.input_schema,
            execute=function,
            timeout_s=command.timeout_s,
            is_async=inspect.iscoroutinefunction(function),
            takes_keywords=True,
        )
        return of_definition(definition)

    async def run(arguments: Mapping[str, Any], operation: Operation, tool_call_id: str) -> Sequence[Block]:
        sandbox = await operation.session.workspace.sandbox()
        env = {**command.env, **secrets}
        text = command.shell_text(arguments)
        result = await sandbox.exec(text, timeout_s=command.timeout_s, cwd=command.cwd, env=env)
        return [Text(told_of_command(result))]

    return UsableTool(
        name=command.name,
        description=command.description,
        input_schema=command.input_schema,
        check=functools.partial(_fitting, command.input_schema),
        run=run,
        changes_files=True,
    )


def task_tool(subagents: Mapping[str, Any]) -> UsableTool:
    """The tool that hands a part of the work to a child session."""
    named = "".join(f"\n- {name}: {profile.description or ''}" for name, profile in subagents.items())
    about = f" Subagents:{named}" if named else ""
    return UsableTool(
        name="task",
        description=f"Hand a part of the work to a helper with a conversation of its own; returns its answer.{about}",
        input_schema=_TASK_SCHEMA,
        check=functools.partial(_fitting, _TASK_SCHEMA),
        run=_run_task,
        # Made of durable calls, which are not made twice.
        is_idempotent=True,
        is_parallel=True,
    )


def skill_tool(skills: Mapping[str, Any]) -> UsableTool:
    """The tool that gives a model the text of a skill when it needs it."""
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": sorted(skills)}},
        "required": ["name"],
        "additionalProperties": False,
    }

    async def run(arguments: Mapping[str, Any], operation: Operation, tool_call_id: str) -> Sequence[Block]:
        return [Text(skills[arguments["name"]].instructions)]

    return UsableTool(
        name="skill",
        description="Read the instructions of one of your skills. Do so before you work on what it is for.",
        input_schema=schema,
        check=functools.partial(_fitting, schema),
        run=run,
        is_idempotent=True,
        is_parallel=True,
    )


async def _run_definition(
    tool: ToolDefinition, arguments: Mapping[str, Any], operation: Operation, tool_call_id: str
) -> Sequence[Block]:
    session = operation.session
    context = ToolContext(
        tool_call_id=tool_call_id,
        step_id=operation.calls.step_id(),
        session=session.name,
        log=session.harness.ctx.log,
        fs=session.harness.fs,
        progress=session.harness.ctx.progress,
    )
    call = functools.partial(tool.call, arguments, context)
    value = await call() if tool.is_async else await operation.calls.parking.in_thread(call)
    if hasattr(value, "__await__"):
        value = await value
    return normalise_result(value, f"The result of tool {tool.name!r}")


async def _run_task(arguments: Mapping[str, Any], operation: Operation, tool_call_id: str) -> Sequence[Block]:
    reply = await operation.session.task(arguments["prompt"], agent=arguments.get("agent"))
    return [Text(reply.text)]


def _fitting(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    problems = misfits(arguments, schema)
    if problems:
        raise Misfit(problems)
    return arguments
