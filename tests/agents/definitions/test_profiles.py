"""Profiles: what is checked, how they are extended, and how they become roles."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.agents import (
    AgentProfile,
    CompactionConfig,
    Role,
    Skill,
    define_agent_profile,
    define_tool,
    extend_agent_profile,
    profile_to_role,
    role_to_profile,
)
from pyflue.agents.models.port import ThinkingLevel
from pyflue.errors import AgentInvalid

LOOK = define_tool("look", lambda arguments: "", description="Looks.")
FIND = define_tool("find", lambda arguments: "", description="Finds.")
REVIEW = Skill(name="review", description="Reviews.")


def test_a_profile_may_be_written_as_a_mapping_with_everything_below_it() -> None:
    profile = define_agent_profile(
        {
            "name": "lead",
            "model": ["anthropic/a"],
            "thinking_level": "xhigh",
            "tools": [LOOK],
            "skills": [REVIEW],
            "subagents": [{"name": "scout", "model": False}],
            "compaction": {"reserve_tokens": 3},
        }
    )
    assert profile == AgentProfile(
        name="lead",
        model="anthropic/a",
        thinking_level="xhigh",
        tools=(LOOK,),
        skills=(REVIEW,),
        subagents=(AgentProfile(name="scout", model=False),),
        compaction=CompactionConfig(reserve_tokens=3),
    )
    assert define_agent_profile(profile) == profile


def test_extending_a_profile_makes_a_copy_with_more_items() -> None:
    base = define_agent_profile(AgentProfile(name="lead", tools=[LOOK]))
    scout = AgentProfile(name="scout")
    assert extend_agent_profile(base, tools=[FIND], skills=[REVIEW], subagents=[scout]) == AgentProfile(
        name="lead", tools=(LOOK, FIND), skills=(REVIEW,), subagents=(scout,)
    )
    assert base.tools == (LOOK,)
    with pytest.raises(AgentInvalid, match="duplicate tool name 'look'"):
        extend_agent_profile(base, tools=[LOOK])


@pytest.mark.parametrize(
    ("profile", "problem"),
    [
        (3, r"3 must be an AgentProfile"),
        ({"nmae": "x"}, r"unknown agent profile field 'nmae'\. Did you mean 'name'\?"),
        ({"name": "a b"}, r"name is 'a b'"),
        ({"description": ""}, r"description is ''"),
        ({"thinking_level": "deep"}, r"thinking_level is 'deep'"),
        ({"tools": [LOOK, LOOK]}, r"duplicate tool name 'look'"),
        ({"skills": [REVIEW, REVIEW]}, r"duplicate skill name 'review'"),
        ({"subagents": [{"name": "a"}, {"name": "a"}]}, r"duplicate subagent name 'a'"),
        ({"subagents": [{"model": "x"}]}, r"a subagent has no name"),
        ({"subagents": [3]}, r"must be an AgentProfile"),
        ({"compaction": {"reserve_tokens": "1"}}, r"reserve_tokens is '1'"),
        ({"compaction": {"enabled": 1}}, r"enabled is 1; it must be True or False"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(profile: Any, problem: str) -> None:
    with pytest.raises(AgentInvalid, match=problem):
        define_agent_profile(profile)


def test_subagents_that_contain_themselves_are_refused() -> None:
    scout: dict[str, Any] = {"name": "scout"}
    scout["subagents"] = [{"name": "helper", "subagents": [scout]}]
    with pytest.raises(AgentInvalid, match="circular subagents"):
        define_agent_profile(scout)


def test_a_profile_and_a_role_become_one_another() -> None:
    profile = AgentProfile(
        name="critic", description="Finds faults.", model="anthropic/a", instructions="Look.", thinking_level="low"
    )
    role = Role(
        name="critic",
        description="Finds faults.",
        model="anthropic/a",
        instructions="Look.",
        thinking_level=ThinkingLevel.LOW,
    )
    assert profile_to_role(profile) == role
    assert role_to_profile(role) == profile
    assert profile_to_role(AgentProfile(name="critic", model=False, instructions="Look.")).model is None
