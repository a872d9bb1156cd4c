"""Profiles: the part of an agent's definition that others can build on.

A profile is the baseline of an agent (`profile=`), or a subagent that `task(agent=…)` hands work to. `definitions`
merges profiles into agents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from ..errors import AgentInvalid
from . import checking
from .models.port import Model
from .roles import Role, thinking_level
from .skills import Skill
from .tools import ToolDefinition, checked_tools

#: One model, several (the later ones stand in when an earlier one fails), or False for none. Besides names there may be
#: models themselves, such as a `ScriptedModel` of a test.
ModelChoice: TypeAlias = str | Model | Sequence[str | Model] | Literal[False]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionConfig:
    """When and how far a long conversation is summarised. What is None is as the settings say."""

    enabled: bool | None = None
    #: Tokens that the model holds; None or 0 takes what is known of it.
    context_window_tokens: int | None = None
    #: Tokens kept free for the next reply.
    reserve_tokens: int | None = None
    #: Tokens of the newest messages that stay as they are.
    keep_recent_tokens: int | None = None
    #: The model that writes the summary; None takes the agent's.
    model: str | None = None

    def __post_init__(self) -> None:
        if self.enabled is not None:
            checking.truth("compaction", "enabled", self.enabled)
        for field in ("context_window_tokens", "reserve_tokens", "keep_recent_tokens"):
            if getattr(self, field) is not None:
                checking.whole("compaction", field, getattr(self, field))
        if self.model is not None:
            checking.text("compaction", "model", self.model)

    @classmethod
    def of(cls, value: Any, what: str) -> CompactionConfig:
        """As authors write it: a record, a mapping, or False for no compaction."""
        if value is False:
            return cls(enabled=False)
        if isinstance(value, CompactionConfig):
            return value
        fields = checking.fields(value)
        if fields is None:
            checking.refuse(what, "compaction", value, "it must be a CompactionConfig, a mapping, or False")
        checking.refuse_unknown(what, "compaction", fields, _names(cls))
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """When and how far an agent's conversations are summarised, with everything decided that can be."""

    enabled: bool
    #: None: whatever is known of the model.
    context_window_tokens: int | None
    reserve_tokens: int
    keep_recent_tokens: int
    #: None: the model that has the conversation.
    model: str | None = None

    def with_config(self, config: CompactionConfig | None) -> Compaction:
        """The same, except for what `config` says."""
        said = {name: getattr(config, name, None) for name in _names(CompactionConfig)}
        return replace(self, **{name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProfile:
    """What agents may have in common. What is None is not said."""

    name: str | None = None
    description: str | None = None
    model: ModelChoice | None = None
    instructions: str | None = None
    thinking_level: str | None = None
    skills: Sequence[Skill] | None = None
    tools: Sequence[ToolDefinition] | None = None
    subagents: Sequence[AgentProfile] | None = None
    compaction: CompactionConfig | None = None


def define_agent_profile(profile: AgentProfile | Mapping[str, Any]) -> AgentProfile:
    """Check a profile, and those of its subagents.

    Raises:
        AgentInvalid: naming the field that cannot be used.
    """
    return checked_profile(profile, "Agent profile", ())


def extend_agent_profile(
    profile: AgentProfile | Mapping[str, Any],
    *,
    skills: Iterable[Skill] = (),
    tools: Iterable[ToolDefinition] = (),
    subagents: Iterable[AgentProfile | Mapping[str, Any]] = (),
) -> AgentProfile:
    """A copy of a profile with further skills, tools and subagents.

    Raises:
        AgentInvalid: as `define_agent_profile`.
    """
    base = define_agent_profile(profile)
    return define_agent_profile(
        replace(
            base,
            skills=(*(base.skills or ()), *skills),
            tools=(*(base.tools or ()), *tools),
            subagents=(*(base.subagents or ()), *subagents),  # pyright: ignore[reportArgumentType]  (checked next)
        )
    )


def profile_to_role(profile: AgentProfile) -> Role:
    """A profile as a role: its instructions, its first model and its thinking level.

    Raises:
        AgentInvalid: it has no name or no instructions.
    """
    models = checked_models("Agent profile", profile.model) or ()
    return Role(
        name=profile.name or "",
        instructions=profile.instructions or "",
        description=profile.description or "",
        model=next((model for model in models if isinstance(model, str)), None),
        thinking_level=None if profile.thinking_level is None else thinking_level("Role", profile.thinking_level),
    )


def role_to_profile(role: Role) -> AgentProfile:
    """A role as a profile."""
    return AgentProfile(
        name=role.name,
        description=role.description or None,
        model=role.model,
        instructions=role.instructions,
        thinking_level=None if role.thinking_level is None else role.thinking_level.value,
    )


def checked_profile(value: Any, what: str, above: tuple[Any, ...]) -> AgentProfile:
    """A profile as authors write one. `above` are the ones it is a subagent of."""
    if any(value is each for each in above):
        raise AgentInvalid(f"{what}: circular subagents; a profile cannot be a subagent of itself.")
    given = checking.fields(value)
    if given is not None:
        checking.refuse_unknown(what, "agent profile", given, _names(AgentProfile))
    elif isinstance(value, AgentProfile):
        given = {name: getattr(value, name) for name in _names(AgentProfile)}
    else:
        raise AgentInvalid(f"{what}: {checking.shown(value)} must be an AgentProfile or a mapping of its fields.")
    if given.get("name") is not None:
        what = f"{what} {checking.shown(given['name'])}"
    return AgentProfile(**checked_fields(what, given, (*above, value)))


def checked_fields(what: str, given: Mapping[str, Any], above: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The fields of a profile, each checked; None stays None."""
    checks: Mapping[str, Callable[[Any], Any]] = {
        "name": lambda value: checking.name(what, "name", value),
        "description": lambda value: checking.text(what, "description", value),
        "model": lambda value: False if value is False else _model(what, value),
        "instructions": lambda value: checking.text(what, "instructions", value),
        "thinking_level": lambda value: thinking_level(what, value).value,
        "skills": lambda value: checked_skills(what, value),
        "tools": lambda value: checked_tools(what, value),
        "subagents": lambda value: checked_subagents(what, value, above),
        "compaction": lambda value: CompactionConfig.of(value, what),
    }
    return {name: check(given[name]) for name, check in checks.items() if given.get(name) is not None}


def checked_models(what: str, value: Any) -> tuple[str | Model, ...] | None:
    """Models in the order they are tried; none for False, None if nothing is said."""
    if value is None:
        return None
    if value is False:
        return ()
    models = [value] if isinstance(value, str) or _is_model(value) else value
    allowed = "it must be a model such as 'anthropic/claude-haiku-4-5', a list of models, or False"
    if not isinstance(models, (list, tuple)) or not models:
        checking.refuse(what, "model", value, allowed)  # pyright: ignore[reportUnknownArgumentType]
    for each in models:  # pyright: ignore[reportUnknownVariableType]
        if _is_model(each):  # pyright: ignore[reportUnknownArgumentType]
            continue
        if not isinstance(each, str) or not each.strip() or each != each.strip():
            checking.refuse(what, "model", value, allowed)  # pyright: ignore[reportUnknownArgumentType]
    return tuple(models)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]


def _is_model(value: object) -> bool:
    return callable(getattr(value, "stream", None)) and isinstance(getattr(value, "id", None), str)


def checked_skills(what: str, value: Any) -> tuple[Skill, ...]:
    skills = checking.items(what, "skills", value)
    for each in skills:
        if not isinstance(each, Skill):
            checking.refuse(what, "a skill", each, "it must be a Skill, such as load_skill gives")
    checking.refuse_duplicates(what, "skill", [each.name for each in skills])
    return tuple(skills)


def checked_subagents(what: str, value: Any, above: tuple[Any, ...] = ()) -> tuple[AgentProfile, ...]:
    profiles: list[AgentProfile] = []
    for each in checking.items(what, "subagents", value):
        profile = checked_profile(each, f"{what}: subagent", above)
        if profile.name is None:
            raise AgentInvalid(f"{what}: a subagent has no name; task(agent=…) chooses by it.")
        profiles.append(profile)
    checking.refuse_duplicates(what, "subagent", [str(each.name) for each in profiles])
    return tuple(profiles)


def _model(what: str, value: Any) -> ModelChoice:
    models = checked_models(what, value) or ()
    return models[0] if len(models) == 1 else models


def _names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
