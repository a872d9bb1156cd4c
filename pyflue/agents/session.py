"""Sessions: conversations of an agent, one operation at a time.

A session belongs to a harness (or, as a task's, to another session) and shares its files. What is said in it is kept in
the journal under the run, the harness and the session's name, so no two runs or agents ever meet in one.

The methods take their place among the run's durable calls when they are *called*, and do their work when awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from .. import codec
from ..engine.calls import Call, Calls
from ..errors import AgentInvalid, NameUnknown, SessionNotFound, TaskTooDeep
from ..journal import EventType
from . import compaction, toolbox, turns
from .answers import Reply, Wanted
from .budget import Budget
from .commands import checked_commands
from .content import Block, Document, Image, Message, Text, Usage
from .conversation import Conversation
from .metering import Meter
from .models import fallback, pricing, scripted
from .models.port import Model, ThinkingLevel
from .operations import Operation, Operations, error_told, operation_id
from .shell import CommandRun
from .toolbox import Toolbox
from .tools import checked_tools, create_tools

if TYPE_CHECKING:
    from ..journal import FileRecord, NewEntry
    from ..settings import AgentSettings
    from .commands import PyFlueCommand
    from .definitions import Definition
    from .harness import Harness
    from .profiles import AgentProfile
    from .roles import Role
    from .sandboxes.port import CommandResult
    from .tools import ToolDefinition
    from .workspace import Workspace

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a call may choose differently from the agent's definition."""

    result: Any = None
    role: str | None = None
    model: str | Model | Sequence[str | Model] | None = None
    thinking_level: str | None = None
    retries: int | None = None
    images: Sequence[Image | Document] = ()
    secrets: Sequence[str] = ()
    commands: Sequence[str | PyFlueCommand] = ()
    tools: Sequence[ToolDefinition | Callable[..., Any]] = ()
    budget: Budget | Mapping[str, Any] | None = None
    max_tokens: int | None = None


_NO_OPTIONS = Options()
#: Providers of models that may be others for the next prompt.
_CHANGING = frozenset({scripted.PROVIDER, fallback.PROVIDER})
_OPTION_NAMES = frozenset(field.name for field in dataclasses.fields(Options))


class Session:
    """One conversation."""

    def __init__(
        self,
        harness: Harness,
        name: str,
        definition: Definition,
        *,
        role: str | None = None,
        depth: int = 0,
        above: Meter,
        workspace: Workspace,
        deleted_before: int = 0,
    ) -> None:
        """`deleted_before`: how many sessions had its name before it; their conversations are none of its own."""
        self.harness = harness
        #: The durable calls of its run.
        self.calls: Calls = harness.calls
        self.settings: AgentSettings = harness.settings
        #: Its name among the harness's sessions.
        self.name = name
        self.definition = definition
        self.role = role
        #: How many tasks stand above it.
        self.depth = depth
        self.workspace = workspace
        # A line break is in no name of a session.
        recorded_as = f"{harness.key}/{name}" if not deleted_before else f"{harness.key}/{name}\n{deleted_before}"
        self.conversation = Conversation(
            harness.calls.stream_id, recorded_as, harness.calls.fence.run_id, goes_on=definition.persist
        )
        self._above = above
        self._operations = Operations(self)
        self._is_loaded = False
        self._is_closed = False
        self.toolbox_names: Sequence[str] = ()
        #: How prompts without options are answered, once that is known.
        self._usual_plan: turns.Plan | None = None

    @property
    def run_usage(self) -> Usage:
        """What the run has used so far."""
        return self.harness.run_meter.usage

    # Model work

    @overload
    def prompt(self, text: str, *, result: type[T], **options: Any) -> Coroutine[Any, Any, Reply[T]]: ...
    @overload
    def prompt(self, text: str, **options: Any) -> Coroutine[Any, Any, Reply[Any]]: ...
    def prompt(self, text: str, **options: Any) -> Coroutine[Any, Any, Reply[Any]]:
        """Say something to the model and return its answer; prompts of one session build on each other.

        `result` is the type of `Reply.data` (a pydantic model, a dataclass, `list[str]`, …). `role`, `model` (a name,
        or several to fall back on), `thinking_level`, `retries` (of data that does not fit), `images`, `secrets`
        (names of the agent's `env` that the shell sees), `commands`, `tools`, `budget` and `max_tokens` count for this
        prompt.

        Raises:
            ModelError: the model could not answer; BudgetExceeded; ResultUnavailable: not with data that fits;
            NameUnknown: the agent has no such role or secret; AgentInvalid: an option is no good.
        """
        chosen = self._options(options)
        call = self.calls.begin(self._call_name("prompt"), "prompt")
        return self._prompt(call, "prompt", text, chosen, about={})

    def stream(self, text: str, **options: Any) -> PromptStream:
        """As `prompt`, as an async iterator over the pieces of text as they arrive; `await stream.reply()` at the end.

        When a run is replayed, text that is recorded comes in one piece.
        """
        chosen = self._options(options)
        call = self.calls.begin(self._call_name("prompt"), "prompt")
        return PromptStream(lambda on_text: self._prompt(call, "prompt", text, chosen, about={}, on_text=on_text))

    def skill(self, name: str, *, args: Any = None, **options: Any) -> Coroutine[Any, Any, Reply[Any]]:
        """Prompt with the instructions of one of the agent's skills, and `args` as JSON.

        Raises:
            NameUnknown: the agent has no such skill. As `prompt`.
        """
        chosen = self._options(options)
        skills = self.definition.skills
        if name not in skills:
            raise NameUnknown("skill", name, sorted(skills))
        text = skills[name].instructions
        if args is not None:
            arguments = codec.indented(codec.encode_value(args, f"The args of skill {name!r}")).decode()
            text = f"{text}\n\nArguments:\n{arguments}"
        call = self.calls.begin(self._call_name("skill"), "skill")
        return self._prompt(call, "skill", text, chosen, about={"skill": name})

    def task(
        self, prompt: str, *, agent: str | None = None, cwd: str | None = None, **options: Any
    ) -> Coroutine[Any, Any, Reply[Any]]:
        """Let a child session do something, and return its answer. It has a conversation of its own and these files.

        `agent` names one of the agent's subagents. What it uses counts for whoever asked.

        Raises:
            NameUnknown: no such subagent; TaskTooDeep. As `prompt`.
        """
        chosen = self._options(options)
        profile = None
        if agent is not None:
            subagents = self.definition.subagents
            if agent not in subagents:
                raise NameUnknown("subagent", agent, sorted(subagents))
            profile = subagents[agent]
        call = self.calls.begin(self._call_name("task"), "task")
        return self._task(call, prompt, agent, profile, cwd, chosen)

    def shell(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float = 120.0,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> Coroutine[Any, Any, CommandResult]:
        """Run a command in the agent's sandbox, and let the model know of it: the next prompt builds on it.

        `harness.shell` does the same without a word to the model.
        """
        run = CommandRun.of(command, timeout_s=timeout_s, cwd=cwd, env={**(env or {}), **self._granted(secrets)})
        call = self.calls.begin(self._call_name("shell"), "shell")
        return self._shell(call, run)

    def compact(self, *, keep_messages: int | None = None) -> Coroutine[Any, Any, bool]:
        """Let a summary take the place of the older part of the conversation; whether there was one.

        Raises:
            ModelError: there is no summary.
        """
        call = self.calls.begin(self._call_name("compact"), "compact")
        return self._compact(call, keep_messages)

    def abort(self) -> bool:
        """End the operation that is under way (it raises `OperationAborted`); whether there was one."""
        return self._operations.abort()

    async def history(self) -> Sequence[Message]:
        """What the model is sent of this conversation."""
        await self.load()
        self.catch_up()
        return list(self.conversation.messages)

    def close(self) -> None:
        """Take no more operations."""
        self._is_closed = True

    # What operations ask

    def check_open(self) -> None:
        """Raises SessionNotFound if it is closed."""
        if self._is_closed:
            raise SessionNotFound(self.name, why="is closed")

    async def load(self) -> None:
        """Read what the journal holds of it, once."""
        if not self._is_loaded:
            if self.harness.has_history:
                await self.conversation.load(self.calls.journal)
            self._is_loaded = True

    def catch_up(self) -> None:
        """Take note of what was said and used inside of calls that only gave back what they gave."""
        self.harness.catch_up()
        self.conversation.catch_up(self.calls.given)

    def priced(self, usage: Usage, model: Model, name: str) -> Usage:
        """Usage with what it costs, if that is known."""
        cost = pricing.price(usage, name or model.id, model.provider)
        return usage if usage.cost_usd == cost else msgspec.structs.replace(usage, cost_usd=cost)

    # Parts

    def _call_name(self, kind: str) -> str:
        return kind if self.name == "default" else f"{self.name}.{kind}"

    def _options(self, options: Mapping[str, Any]) -> Options:
        if not options:
            return _NO_OPTIONS
        unknown = sorted(options.keys() - _OPTION_NAMES)
        if unknown:
            raise TypeError(f"There is no option {unknown[0]!r}; the options are {', '.join(sorted(_OPTION_NAMES))}.")
        chosen = Options(**options)
        if chosen.role is not None:
            self._role(chosen.role)
        self._granted(chosen.secrets)
        return chosen

    def _role(self, name: str) -> Role:
        roles = self.definition.roles
        if name not in roles:
            raise NameUnknown("role", name, sorted(roles))
        return roles[name]

    def _granted(self, secrets: Sequence[str]) -> dict[str, str]:
        known = self.definition.secrets
        for name in secrets:
            if name not in known:
                raise NameUnknown("secret", name, sorted(known))
        granted = {name: known[name] for name in secrets}
        # A command may have put them into a file, which a later operation reads.
        self.harness.shown_secrets.update(granted)
        return granted

    async def _prompt(
        self,
        call: Call,
        kind: str,
        text: str,
        options: Options,
        *,
        about: Mapping[str, Any],
        on_text: Callable[[str], None] | None = None,
        around: Callable[[Operation], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> Reply[Any]:
        wanted = None if options.result is None else Wanted(options.result)
        whose = "this prompt" if kind == "prompt" else f"this {kind}"
        # A model that calls tools for ever costs money for ever: each operation has a limit.
        budget = self.harness.usual_budget
        if options.budget is not None:
            budget = Budget.of(options.budget, whose)
            if budget.max_turns is None:
                budget = dataclasses.replace(budget, max_turns=self.settings.max_turns)
        meter = Meter(whose, budget, above=self._above.innermost())

        async def body(operation: Operation) -> tuple[Reply[Any], Any]:
            plan = self._usual_plan
            if plan is None or options is not _NO_OPTIONS or on_text is not None:
                plan = await self._plan(options, wanted, on_text)
                if options is _NO_OPTIONS and on_text is None and self._is_settled(plan.model):
                    self._usual_plan = plan
            self.toolbox_names = plan.toolbox.names
            said: tuple[Block, ...] = (*self.conversation.unanswered(), Text(text), *options.images)
            with around(operation):
                answer = await turns.converse(operation, plan, said)
            told = answer.told
            reply = self._reply(told, operation.operation_id, meter, answer.data, has_data=wanted is not None)
            return reply, told

        def restore(told: Any) -> Reply[Any]:
            data = None if wanted is None else wanted.shape.load(told["data"])
            if on_text is not None:
                on_text(told["text"])
            return self._reply(told, operation_id(self.calls, call.key), meter, data, has_data=wanted is not None)

        return await self._operations.perform(
            call,
            kind,
            body,
            restore,
            about={**about, "text": text},
            meter=meter,
        )

    def _reply(
        self, told: Mapping[str, Any], operation_id: str, meter: Meter, data: Any, *, has_data: bool
    ) -> Reply[Any]:
        return Reply(
            text=told["text"],
            data=data,
            has_data=has_data,
            usage=meter.usage,
            model=told["model"],
            turns=meter.turns,
            operation_id=operation_id,
            session=self.name,
        )

    async def _plan(self, options: Options, wanted: Wanted | None, on_text: Callable[[str], None] | None) -> turns.Plan:
        role_name = options.role or self.role
        role = None if role_name is None else self._role(role_name)
        definition = self.definition
        models = definition.models_for(options.model, None if role is None else role.model)
        level = (
            options.thinking_level or (role.thinking_level if role is not None else None) or definition.thinking_level
        )
        try:
            thinking = None if level is None else ThinkingLevel(level)
        except ValueError:
            raise AgentInvalid(f"thinking_level={level!r}: it is one of {', '.join(ThinkingLevel)}.") from None
        tools = await self._toolbox(options)
        return turns.Plan(
            model=await self.harness.room.model(models, self.harness.ctx),
            toolbox=tools,
            system=self._system(role),
            wanted=wanted,
            repairs=definition.answer_retries if options.retries is None else options.retries,
            thinking=thinking,
            max_tokens=options.max_tokens or definition.max_tokens,
            on_text=on_text,
        )

    def _is_settled(self, model: Model) -> bool:
        """Whether the next prompt like the one that this model answers would be answered with the same."""
        # The file of a script may change, and so may the tools of a server.
        is_given = any(model is each for each in self.definition.models)
        return (is_given or model.provider not in _CHANGING) and not self.definition.mcp_servers

    async def _toolbox(self, options: Options) -> Toolbox:
        if options.secrets or options.commands or options.tools or self.definition.mcp_servers:
            box = await self._make_toolbox(options)
        else:
            # The same for most prompts of most sessions, and made of a dozen records.
            boxes, key = self.harness.toolboxes, (id(self.definition), self.depth)
            box = boxes[key] = boxes.get(key) or await self._make_toolbox(options)
        return box

    async def _make_toolbox(self, options: Options) -> Toolbox:
        definition = self.definition
        secrets = self._granted(options.secrets)
        commands = [*definition.commands, *checked_commands("commands", options.commands)]
        programs = [command for command in commands if isinstance(command, str)]
        room = self.harness.room
        tools = list(await room.builtin_tools(definition, self.workspace, env=secrets, programs=programs))
        if self.depth < definition.task_depth:
            tools.append(toolbox.task_tool(definition.subagents))
        if definition.skills:
            tools.append(toolbox.skill_tool(definition.skills))
        if definition.builtin_tools is not True:
            allowed = set(definition.builtin_tools)
            tools = [tool for tool in tools if tool.name in allowed]
        tools += [toolbox.of_definition(tool) for tool in definition.tools]
        tools += [toolbox.of_command(each, secrets) for each in commands if not isinstance(each, str)]
        tools += [toolbox.of_definition(tool) for tool in await self.harness.mcp_tools(definition)]
        own = checked_tools("tools", create_tools(*options.tools))
        tools += [toolbox.of_definition(tool) for tool in own]
        return toolbox.toolbox_of(tuple(tools))

    def _system(self, role: Role | None) -> str:
        definition = self.definition
        parts = [definition.instructions]
        if role is not None:
            parts.append(f"Role: {role.name}\n{role.instructions}")
        if definition.skills and (definition.builtin_tools is True or "skill" in definition.builtin_tools):
            lines = [f"- {skill.name}: {skill.description}" for skill in definition.skills.values()]
            parts.append("\n".join(["Your skills (read one with the tool `skill` before you use it):", *lines]))
        return "\n\n".join(part for part in parts if part)

    async def _task(
        self,
        call: Call,
        prompt: str,
        agent: str | None,
        profile: AgentProfile | None,
        cwd: str | None,
        options: Options,
    ) -> Reply[Any]:
        calls = self.calls
        if self.depth >= self.definition.task_depth:
            raise TaskTooDeep(self.depth)
        definition = self.definition if profile is None else self.harness.as_subagent(self.definition, profile)
        child = Session(
            self.harness,
            f"{self.name}:{operation_id(calls, call.key)}",
            definition,
            role=None if profile is not None else self.role,
            depth=self.depth + 1,
            above=self._above.innermost(),
            workspace=self.workspace,
        )
        told = {"task_id": child.name, "agent": agent, "step": call.key, "parent_session": self.name}
        if cwd is not None:
            prompt = f"Work in the folder {cwd}.\n\n{prompt}"
        return await child._prompt(call, "task", prompt, options, about={"agent": agent}, around=_task_events(told))

    async def _shell(self, call: Call, run: CommandRun) -> CommandResult:
        from .sandboxes.port import CommandResult

        done: list[str] = []
        async with contextlib.AsyncExitStack() as stack:

            async def body(operation: Operation) -> tuple[CommandResult, Any]:
                await stack.enter_async_context(self.workspace.changing())
                result = await run.execute(operation, self.workspace)
                done.append(operation.redact(run.told(result)))
                return result, dataclasses.asdict(result)

            async def finish() -> tuple[Sequence[NewEntry], Sequence[FileRecord]]:
                said = Message("user", (*self.conversation.unanswered(), Text(done[0])))
                entries = self.conversation.entries(said, source="shell")
                self.conversation.add(said)
                return entries, await self.workspace.taken()

            return await self._operations.perform(
                call,
                "shell",
                body,
                lambda told: CommandResult(**told),
                about={"command": run.shown},
                meter=Meter("this command", above=self._above.innermost()),
                finish=finish,
            )

    async def _compact(self, call: Call, keep_messages: int | None) -> bool:
        meter = Meter("this compaction", above=self._above.innermost())

        async def body(operation: Operation) -> tuple[bool, Any]:
            model = await self.harness.room.model(self.definition.models, self.harness.ctx)
            done = await compaction.compact(operation, model, reason="asked", keep_messages=keep_messages)
            return done, done

        return await self._operations.perform(call, "compact", body, bool, about={}, meter=meter)


def _task_events(told: Mapping[str, Any]) -> Callable[[Operation], contextlib.AbstractContextManager[None]]:
    """The events around the work of a task."""

    @contextlib.contextmanager
    def around(operation: Operation) -> Generator[None]:
        calls = operation.calls
        calls.tell(EventType.TASK_START, {**operation.about, **told})
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            if calls.host.stopped_because is None:
                calls.tell(
                    EventType.TASK_END, {**operation.about, **told, "is_error": True, "error": error_told(error)}
                )
            raise
        calls.tell(EventType.TASK_END, {**operation.about, **told, "is_error": False})

    return around


class PromptStream:
    """The text of an answer as it arrives. Iterate over it once; leaving early aborts the prompt."""

    def __init__(self, start: Callable[[Callable[[str], None]], Coroutine[Any, Any, Reply[Any]]]) -> None:
        self._start = start
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._task: asyncio.Task[Reply[Any]] | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self._iterate()

    async def reply(self) -> Reply[Any]:
        """The whole answer.

        Raises:
            As `Session.prompt`.
        """
        return await self._begun()

    def _begun(self) -> asyncio.Task[Reply[Any]]:
        if self._task is None:
            coroutine = self._start(self._pieces.put_nowait)
            self._task = asyncio.get_running_loop().create_task(coroutine)
            self._task.add_done_callback(self._end)
        return self._task

    def _end(self, task: asyncio.Task[Reply[Any]]) -> None:
        if not task.cancelled():
            task.exception()  # who has left does not hear of it, and asyncio would complain of that
        self._pieces.put_nowait(None)

    async def _iterate(self) -> AsyncIterator[str]:
        task = self._begun()
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
            task.result()
        finally:
            if not task.done():
                task.cancel()
