"""Agents as their authors write them, and as the harness gets them.

`create_agent` keeps an initializer; `resolve_agent` calls it for one instance and merges what it says with its profile,
the project's settings, skills, roles and instructions into a `Definition`. Everything wrong is refused here, before any
model is asked. Nothing is imported of providers, and nothing is run but the initializer.
"""

from __future__ import annotations

import dataclasses
import inspect
import posixpath
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..engine.threads import run_in_own_thread
from ..errors import AgentInvalid, SettingsInvalid
from ..settings import McpServerSettings, Settings, mcp_server_settings
from . import checking
from .budget import Budget
from .commands import PyFlueCommand, checked_commands, environment
from .models.port import Model, ThinkingLevel
from .profiles import (
    AgentProfile,
    Compaction,
    CompactionConfig,
    ModelChoice,
    checked_fields,
    checked_models,
    checked_profile,
    checked_skills,
    checked_subagents,
    profile_to_role,
)
from .project_files import ProjectFiles, ProjectTexts
from .roles import Role
from .sandboxes.port import WORKSPACE
from .skills import Skill
from .tools import BUILTIN_TOOLS, ToolDefinition, check_schemas, checked_tools, has_schemas

if TYPE_CHECKING:
    from .sandboxes.policy import SandboxPolicy

#: The name of an agent that has none.
DEFAULT_NAME = "agent"
#: Makes a sandbox; see `sandboxes`.
SandboxFactory: TypeAlias = Callable[..., Any]
#: How earlier versions called what is elsewhere now.
_MOVED = {
    "allow_write": "Write policy={'writes': True}.",
    "allow_shell": "Write policy={'shell': True}.",
    "allowed_commands": "Write policy={'allowed_commands': […]}.",
    "allow_compound_commands": "Write policy={'allowed_commands': […]}.",
    "typed_retries": "It is called answer_retries.",
    "system_prompt": "It is called instructions.",
    "max_task_depth": "It is agent.task_depth in pyflue.toml.",
    "harness": "There is one turn loop; choose a model.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCreateContext:
    """What an initializer may know of the instance it is called for."""

    id: str = "default"
    #: Values of the process environment that host code may see.
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRuntimeConfig:
    """What an initializer returns; a mapping of the same fields will do. What is None is not said."""

    #: `provider/model`; a list tries the later ones when an earlier one fails; False is none at all.
    model: ModelChoice | None = None
    #: What the model is told before everything else.
    instructions: str | None = None
    thinking_level: str | None = None
    tools: Sequence[ToolDefinition] | None = None
    #: Commands that are tools, and names of programs that the shell may run.
    commands: Sequence[str | PyFlueCommand] | None = None
    #: Besides those in the project's folder of skills, over which these win.
    skills: Sequence[Skill] | None = None
    #: Besides those in the project's folder of roles, over which these win.
    roles: Sequence[Role] | None = None
    subagents: Sequence[AgentProfile] | None = None
    compaction: CompactionConfig | Mapping[str, Any] | Literal[False] | None = None
    name: str | None = None
    description: str | None = None
    #: A baseline: what is not said here is as there; lists are joined.
    profile: AgentProfile | Mapping[str, Any] | None = None
    #: The folder in the sandbox that the agent starts in.
    cwd: str | None = None
    #: `virtual`, `local`, `isolated`, the name of a plugged-in one, or a factory.
    sandbox: str | SandboxFactory | None = None
    #: Whether a prompt to a continuing agent's instance goes on with what was said before. If not, each begins anew;
    #: what is said is recorded in any case.
    persist: bool | None = None
    #: What the model may do in the sandbox.
    policy: SandboxPolicy | Mapping[str, Any] | None = None
    budget: Budget | Mapping[str, Any] | None = None
    #: Values that `secrets=[…]` of a call may put into the shell's environment.
    env: Mapping[str, str] | None = field(default=None, repr=False)
    #: MCP servers by name, or a list of names of servers in `pyflue.toml`. None takes all of those.
    mcp_servers: Mapping[str, Any] | Sequence[str] | None = None
    #: Most tokens of one reply.
    max_tokens: int | None = None
    #: How often the model is asked again for an answer of the wanted type.
    answer_retries: int | None = None
    #: Which of the built-in tools the model gets: all, none, or these.
    builtin_tools: bool | Sequence[str] | None = None


#: What an initializer may return.
AgentConfig: TypeAlias = AgentRuntimeConfig | AgentProfile | Mapping[str, Any]


#: The fields of a configuration.
_KNOWN = [each.name for each in dataclasses.fields(AgentRuntimeConfig)]
#: A function that makes a configuration, with the context of the instance or without.
Initializer: TypeAlias = (
    Callable[[AgentCreateContext], AgentConfig | Awaitable[AgentConfig]]
    | Callable[[], AgentConfig | Awaitable[AgentConfig]]
)


@dataclass(frozen=True, slots=True)
class CreatedAgent:
    """An agent: what to call to know how one instance of it is made."""

    initialize: Initializer


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One instance of an agent, checked and complete."""

    name: str
    description: str
    #: In the order they are tried. Empty: a call has to name one.
    models: tuple[str | Model, ...]
    #: The agent's own, then the project's.
    instructions: str
    #: The project's part of `instructions`.
    project_instructions: str = field(repr=False)
    thinking_level: ThinkingLevel | None
    tools: tuple[ToolDefinition, ...]
    commands: tuple[str | PyFlueCommand, ...]
    skills: Mapping[str, Skill]
    #: The project's and the agent's, then subagents as roles.
    roles: Mapping[str, Role]
    subagents: Mapping[str, AgentProfile]
    compaction: Compaction
    #: Absolute, in the sandbox.
    cwd: str
    sandbox: str | SandboxFactory
    persist: bool
    #: None is what the sandbox has by default.
    policy: SandboxPolicy | None
    budget: Budget
    secrets: Mapping[str, str] = field(repr=False)
    mcp_servers: Mapping[str, McpServerSettings]
    max_tokens: int | None
    answer_retries: int
    task_depth: int
    #: All, or these.
    builtin_tools: Literal[True] | tuple[str, ...]
    #: The model that takes the place of every other one (`PYFLUE_MODEL`).
    model_override: str | None

    def models_for(self, *choices: ModelChoice | None) -> tuple[str | Model, ...]:
        """The models of one call: the first choice that says something, else the agent's; but see `model_override`."""
        if self.model_override is not None:
            return (self.model_override,)
        for choice in choices:
            models = checked_models(f"Agent {self.name!r}", choice)
            if models is not None:
                return models
        return self.models

    def for_subagent(self, profile: AgentProfile) -> Definition:
        """This agent as one of its subagents: what the profile says, in the same sandbox and under the same policy.

        A subagent has the tools and subagents of its profile only; instructions, model and the rest are the agent's
        unless the profile has its own.
        """
        own = profile.instructions
        subagents = {str(each.name): each for each in profile.subagents or ()}
        return replace(
            self,
            name=profile.name or self.name,
            description=profile.description or "",
            models=self.models_for(profile.model),
            instructions=self.instructions if own is None else _joined(own, self.project_instructions),
            thinking_level=_level(profile.thinking_level) or self.thinking_level,
            tools=tuple(profile.tools or ()),
            commands=tuple(each for each in self.commands if isinstance(each, str)),
            skills=MappingProxyType({**self.skills, **{each.name: each for each in profile.skills or ()}}),
            subagents=MappingProxyType(subagents),
            compaction=self.compaction.with_config(profile.compaction),
        )


def create_agent(initialize: Initializer) -> CreatedAgent:
    """Define an agent by a function that says how an instance of it is made.

    The function is sync or async, takes nothing or one `AgentCreateContext`, and returns a mapping of the fields of
    `AgentRuntimeConfig`, such a record, or an `AgentProfile`.

    Raises:
        AgentInvalid: it is no such function.
    """
    if not callable(initialize):
        raise AgentInvalid(
            f"create_agent needs an initializer function, not {checking.shown(initialize)}.",
            hint='Write create_agent(lambda ctx: {"model": "anthropic/claude-haiku-4-5"}).',
        )
    if isinstance(initialize, type) or _arity(initialize) is None:
        raise AgentInvalid(
            f"create_agent: the initializer function {checking.shown(initialize)} must take no argument, or one, "
            "an AgentCreateContext."
        )
    return CreatedAgent(initialize)


def is_created_agent(value: object) -> bool:
    """Whether something came from `create_agent`."""
    return isinstance(value, CreatedAgent)


async def resolve_agent(
    agent: CreatedAgent,
    context: AgentCreateContext | None = None,
    *,
    settings: Settings,
    root: Path,
    default_name: str = DEFAULT_NAME,
    tools: Sequence[ToolDefinition] = (),
    skills: Sequence[Skill] = (),
    subagents: Sequence[AgentProfile] = (),
    files: ProjectFiles | None = None,
) -> Definition:
    """Make the definition of one instance. `tools`, `skills` and `subagents` come after the agent's own.

    `files` reads the project's files for many who ask.

    Raises:
        AgentInvalid: something cannot be used as it is defined. What the initializer raises is passed on.
    """
    if not isinstance(agent, CreatedAgent):  # pyright: ignore[reportUnnecessaryIsInstance]  (authors hand it in)
        raise AgentInvalid(
            f"This requires a created agent, not {checking.shown(agent)}.", hint="create_agent makes one."
        )
    initialize: Callable[..., AgentConfig | Awaitable[AgentConfig]] = agent.initialize
    returned = initialize(context or AgentCreateContext()) if _arity(initialize) else initialize()
    if inspect.isawaitable(returned):
        returned = await returned
    given = _given(returned)
    for name, more in (("tools", tools), ("skills", skills), ("subagents", subagents)):
        if more:
            given[name] = [*checking.items("Agent", name, given.get(name) or ()), *more]
    texts = await (files or ProjectFiles(settings.agent, root)).read()
    what, definition = _resolve(given, settings, texts, default_name)
    if has_schemas(definition.tools) or definition.subagents:
        await run_in_own_thread(_check_schemas, what, definition)  # takes a library, and time
    return definition


def _arity(function: Callable[..., Any]) -> int | None:
    """How many arguments an initializer takes, 1 or 0; None if it can be called with neither."""
    if type(function) is FunctionType and not function.__dict__:  # the usual case, without taking it apart
        code, defaults = function.__code__, len(function.__defaults__ or ())
        if not code.co_flags & inspect.CO_VARARGS and not code.co_kwonlyargcount:
            least, most = code.co_argcount - defaults, code.co_argcount
            return 1 if least <= 1 <= most else 0 if least == 0 else None
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return 1  # built in, without a signature that could be read
    for arguments in ((None,), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments)
    return None


def _given(value: Any) -> dict[str, Any]:
    """What an initializer said, as a dict of its fields."""
    if isinstance(value, AgentRuntimeConfig):
        return {name: getattr(value, name) for name in _KNOWN if getattr(value, name) is not None}
    if isinstance(value, AgentProfile):
        return {"profile": value}
    fields = checking.fields(value)
    if fields is None:
        raise AgentInvalid(
            f"The initializer of an agent returned {checking.shown(value)}; it must be a mapping, an "
            "AgentRuntimeConfig or an AgentProfile."
        )
    what = f"Agent {checking.shown(fields['name'])}" if fields.get("name") is not None else "Agent"
    for name in fields:
        if name in _MOVED:
            raise AgentInvalid(f"{what}: unknown runtime config field {name!r}.", hint=_MOVED[name])
    checking.refuse_unknown(what, "runtime config", fields, _KNOWN)
    return {name: each for name, each in fields.items() if each is not None}


def _check_schemas(what: str, definition: Definition) -> None:
    check_schemas(what, definition.tools)
    for each in _with_below(list(definition.subagents.values())):
        check_schemas(f"{what}: subagent {each.name!r}", each.tools or ())


def _resolve(
    given: dict[str, Any], settings: Settings, texts: ProjectTexts, default_name: str
) -> tuple[str, Definition]:
    """All checks but those of schemas, and all merges; what errors call the agent, and its definition."""
    profile = AgentProfile()
    if "profile" in given:
        profile = checked_profile(given["profile"], "Agent profile", ())
    name = given.get("name", profile.name)
    what = "Agent" if name is None else f"Agent {checking.shown(name)}"
    own = checked_fields(what, given)
    tools = checked_tools(what, [*(profile.tools or ()), *own.get("tools", ())])
    subagents = checked_subagents(what, [*(profile.subagents or ()), *own.get("subagents", ())])
    inline_skills = checked_skills(what, [*(profile.skills or ()), *own.get("skills", ())])
    skills = {**texts.skills, **{each.name: each for each in inline_skills}}
    project = texts.instructions
    override = settings.agent.model_override or None
    models = checked_models(what, _first(own.get("model"), profile.model, settings.agent.model or None)) or ()
    level = _first(own.get("thinking_level"), profile.thinking_level, settings.agent.thinking_level or None)
    return what, Definition(
        name=_first(own.get("name"), profile.name, default_name),
        description=_first(own.get("description"), profile.description, ""),
        models=(override,) if override else models,
        instructions=_joined(_first(own.get("instructions"), profile.instructions, ""), project),
        project_instructions=project,
        thinking_level=_level(level),
        tools=tools,
        commands=checked_commands(what, given.get("commands", ())),
        skills=MappingProxyType(skills),
        roles=MappingProxyType(_roles(what, given.get("roles", ()), subagents, texts)),
        subagents=MappingProxyType({str(each.name): each for each in subagents}),
        compaction=_compaction(own.get("compaction"), profile, settings),
        cwd=_cwd(what, given.get("cwd", WORKSPACE)),
        sandbox=_sandbox(what, given.get("sandbox", settings.agent.sandbox)),
        persist=checking.truth(what, "persist", given.get("persist", True)),
        policy=_policy(what, given.get("policy")),
        budget=Budget.of(given.get("budget"), what),
        secrets=MappingProxyType(environment(what, "env", given.get("env", {}))),
        mcp_servers=MappingProxyType(_mcp_servers(what, given.get("mcp_servers"), settings)),
        max_tokens=None
        if "max_tokens" not in given
        else checking.whole(what, "max_tokens", given["max_tokens"], least=1),
        answer_retries=checking.whole(
            what, "answer_retries", given.get("answer_retries", settings.agent.answer_retries)
        ),
        task_depth=settings.agent.task_depth,
        builtin_tools=_builtin_tools(what, given.get("builtin_tools", True)),
        model_override=override,
    )


def _with_below(profiles: Sequence[AgentProfile]) -> list[AgentProfile]:
    return [each for profile in profiles for each in (profile, *_with_below(profile.subagents or ()))]


def _roles(what: str, value: Any, subagents: Sequence[AgentProfile], texts: ProjectTexts) -> dict[str, Role]:
    inline = checking.items(what, "roles", value)
    for each in inline:
        if not isinstance(each, Role):
            checking.refuse(what, "a role", each, "it must be a Role")
    checking.refuse_duplicates(what, "role", [each.name for each in inline])
    as_roles = {str(each.name): profile_to_role(each) for each in subagents if each.instructions}
    return {**as_roles, **texts.roles, **{each.name: each for each in inline}}


def _compaction(own: CompactionConfig | None, profile: AgentProfile, settings: Settings) -> Compaction:
    known = settings.compaction
    compaction = Compaction(
        enabled=known.enabled,
        context_window_tokens=known.context_window_tokens or None,
        reserve_tokens=known.reserve_tokens,
        keep_recent_tokens=known.keep_recent_tokens,
    )
    return compaction.with_config(profile.compaction).with_config(own)


def _cwd(what: str, value: Any) -> str:
    path = checking.text(what, "cwd", value)
    if "\0" in path:
        checking.refuse(what, "cwd", value, "it must be a path in the sandbox")
    return posixpath.normpath(posixpath.join(WORKSPACE, path))


def _sandbox(what: str, value: Any) -> str | SandboxFactory:
    if callable(value):
        return value
    if not isinstance(value, str) or not value.strip():
        checking.refuse(what, "sandbox", value, "it must be a name such as 'virtual', or a factory")
    return value


def _policy(what: str, value: Any) -> SandboxPolicy | None:
    if value is None:
        return None
    from .sandboxes.policy import SandboxPolicy

    names = [each.name for each in dataclasses.fields(SandboxPolicy)]
    fields = checking.fields(value)
    if isinstance(value, SandboxPolicy):
        fields = {name: getattr(value, name) for name in names}
    if fields is None:
        checking.refuse(what, "policy", value, "it must be a SandboxPolicy or a mapping of its fields")
    checking.refuse_unknown(what, "policy", fields, names)
    said = {name: each for name, each in fields.items() if each is not None}
    checked: dict[str, Any] = {
        name: checking.truth(f"{what}: policy", name, each) for name, each in said.items() if name != "allowed_commands"
    }
    if "allowed_commands" in said:
        commands = checking.items(f"{what}: policy", "allowed_commands", said["allowed_commands"])
        checked["allowed_commands"] = tuple(checking.text(f"{what}: policy", "a command", each) for each in commands)
    return SandboxPolicy(**checked)


def _mcp_servers(what: str, value: Any, settings: Settings) -> Mapping[str, McpServerSettings]:
    if value is None:
        return settings.mcp_servers
    fields = checking.fields(value)
    if fields is None:
        names = checking.items(what, "mcp_servers", value)
        for name in names:
            if name not in settings.mcp_servers:
                hint = checking.meant(name, settings.mcp_servers)
                raise AgentInvalid(f"{what}: there is no MCP server {checking.shown(name)} in pyflue.toml.", hint=hint)
        return {name: settings.mcp_servers[name] for name in names}
    servers: dict[str, McpServerSettings] = {}
    for name, each in fields.items():
        checking.call_name(f"{what}: mcp_servers", name)
        table = checking.fields(each)
        if isinstance(each, McpServerSettings):
            servers[name] = each
        elif table is not None:
            try:
                servers[name] = mcp_server_settings(f"mcp_servers[{name!r}]", "the agent", table)
            except SettingsInvalid as error:
                raise AgentInvalid(f"{what}: {error}") from error
        else:
            checking.refuse(what, f"mcp_servers[{name!r}]", each, "it must be a mapping with 'command' or 'url'")
    return servers


def _builtin_tools(what: str, value: Any) -> Literal[True] | tuple[str, ...]:
    if isinstance(value, bool):
        return value or ()
    names = checking.items(what, "builtin_tools", value)
    for name in names:
        if name not in BUILTIN_TOOLS:
            raise AgentInvalid(
                f"{what}: there is no built-in tool {checking.shown(name)}.", hint=checking.meant(name, BUILTIN_TOOLS)
            )
    return tuple(dict.fromkeys(names))


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _first(*values: Any) -> Any:
    """The first that is said."""
    return next((value for value in values if value is not None), None)


def _level(value: str | None) -> ThinkingLevel | None:
    return None if value is None else ThinkingLevel(value)
