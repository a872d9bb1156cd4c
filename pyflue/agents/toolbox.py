"""The tools a model has in one operation: the built-in ones, the agent's own, those of the call, and those of others.

Whatever kind of tool it is, `tool_calls.py` runs a `UsableTool`. What a model may do with the files and the shell is
the agent's policy; what its author's functions do is theirs.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..errors import AgentInvalid
from ..typed import Misfit, misfits
from .content import Block, Text
from .file_tools import builtin_tools, told_of_command
from .models.port import ToolSpec
from .redaction import RedactedLog, redacted
from .tools import ToolContext, ToolDefinition, check_arguments, normalise_result
from .workspace import Nature

if TYPE_CHECKING:
    from .commands import PyFlueCommand
    from .file_tools import BuiltinTool
    from .operations import Operation
    from .sandboxes.policy import SandboxPolicy
    from .sandboxes.port import Sandbox

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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
    #: Whether it is the same for all agents that have it.
    is_shared: bool = False

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
        self.names: Sequence[str] = tuple(self._tools)

    def find(self, name: str) -> UsableTool | None:
        """The tool of a name, which a model has said."""
        return self._tools.get(name)


@functools.lru_cache(maxsize=256)
def _shared(tools: tuple[UsableTool, ...]) -> Toolbox:
    return Toolbox(tools)


def toolbox_of(tools: tuple[UsableTool, ...]) -> Toolbox:
    """The toolbox that holds these; one for all sessions that have nothing but the tools that everybody has."""
    return _shared(tools) if all(tool.is_shared for tool in tools) else Toolbox(tools)


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


@functools.lru_cache(maxsize=256)
def shared_builtins(kind: str, policy: SandboxPolicy) -> tuple[UsableTool, ...]:
    """The built-in tools for all sandboxes of one of our kinds: each call is done in that of its own session."""
    # Of the sandbox they are made for only what it is is asked.
    tools = builtin_tools(cast("Sandbox", Nature(kind)), policy)
    return tuple(_shared_builtin(tool, kind, policy) for tool in tools)


def _shared_builtin(tool: BuiltinTool, kind: str, policy: SandboxPolicy) -> UsableTool:
    async def run(arguments: Mapping[str, Any], operation: Operation, tool_call_id: str) -> Sequence[Block]:
        workspace = operation.session.workspace
        own = workspace.builtins.get(policy)
        if own is None:
            made = builtin_tools(workspace.late(kind), policy)
            own = workspace.builtins[policy] = {each.name: each for each in made}
        return [Text(await own[tool.name].execute(arguments))]

    return dataclasses.replace(of_builtin(tool), run=run, is_shared=True)


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
    if not subagents:
        return _plain_task_tool()
    named = "".join(f"\n- {name}: {profile.description or ''}" for name, profile in subagents.items())
    return _task_tool(f" Subagents:{named}")


@functools.cache
def _plain_task_tool() -> UsableTool:
    return dataclasses.replace(_task_tool(""), is_shared=True)


def _task_tool(about: str) -> UsableTool:
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
    ctx, secrets = session.harness.ctx, operation.secrets
    context = ToolContext(
        tool_call_id=tool_call_id,
        step_id=operation.calls.step_id(),
        session=session.name,
        # The arguments may hold secrets, and a tool that logs them does not know.
        log=RedactedLog(ctx.log, secrets) if secrets else ctx.log,
        fs=session.harness.fs,
        progress=functools.partial(_progress, ctx.progress, secrets) if secrets else ctx.progress,
    )
    call = functools.partial(tool.call, arguments, context)
    value = await call() if tool.is_async else await operation.calls.parking.in_thread(call)
    if hasattr(value, "__await__"):
        value = await value
    return normalise_result(value, f"The result of tool {tool.name!r}")


def _progress(progress: Callable[..., Any], secrets: Mapping[str, str], fraction: float, message: str = "") -> Any:
    return progress(fraction, redacted(message, secrets))


async def _run_task(arguments: Mapping[str, Any], operation: Operation, tool_call_id: str) -> Sequence[Block]:
    reply = await operation.session.task(arguments["prompt"], agent=arguments.get("agent"))
    return [Text(reply.text)]


def _fitting(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    problems = misfits(arguments, schema)
    if problems:
        raise Misfit(problems)
    return arguments
