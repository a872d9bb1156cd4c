"""`create_agent` and what becomes of it: fields, defaults, merging, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyflue.agents import (
    AgentCreateContext,
    AgentProfile,
    AgentRuntimeConfig,
    Budget,
    CompactionConfig,
    Definition,
    PyFlueCommand,
    Role,
    Skill,
    create_agent,
    define_command,
    is_created_agent,
    resolve_agent,
    tool,
)
from pyflue.agents.models.port import ThinkingLevel
from pyflue.agents.profiles import Compaction
from pyflue.agents.sandboxes.policy import SandboxPolicy
from pyflue.errors import AgentInvalid
from pyflue.settings import THINKING_LEVELS, McpServerSettings, load_settings

from .conftest import AgentProject


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def shout(text: str) -> str:
    """Make it loud."""
    return text.upper()


REVIEW = Skill(name="review", description="Reviews.", instructions="Read it twice.")
CRITIC = Role(name="critic", instructions="Find what is wrong.")


async def test_an_agent_that_only_names_its_model_has_a_default_for_everything_else(project: AgentProject) -> None:
    assert await project.resolve({"model": "anthropic/claude-haiku-4-5"}) == Definition(
        name="agent",
        description="",
        models=("anthropic/claude-haiku-4-5",),
        instructions="",
        project_instructions="",
        thinking_level=None,
        tools=(),
        commands=(),
        skills={},
        roles={},
        subagents={},
        compaction=Compaction(
            enabled=True, context_window_tokens=None, reserve_tokens=16_384, keep_recent_tokens=20_000
        ),
        cwd="/workspace",
        sandbox="virtual",
        persist=True,
        policy=None,
        budget=Budget(),
        secrets={},
        mcp_servers={},
        max_tokens=None,
        answer_retries=3,
        task_depth=8,
        builtin_tools=True,
        model_override=None,
    )


async def test_every_field_has_its_effect(project: AgentProject) -> None:
    def make_sandbox(**options: Any) -> None: ...

    scout = AgentProfile(name="scout", instructions="Look around.")
    definition = await project.resolve(
        {
            "model": ["anthropic/a", "openai/b"],
            "instructions": "Be brief.",
            "thinking_level": "high",
            "tools": [add],
            "commands": ["git", define_command("greet", "echo hello")],
            "skills": [REVIEW],
            "roles": [CRITIC],
            "subagents": [scout],
            "compaction": {"reserve_tokens": 5, "model": "anthropic/small"},
            "name": "helper",
            "description": "Helps.",
            "cwd": "site/../docs",
            "sandbox": make_sandbox,
            "persist": False,
            "budget": {"max_turns": 3, "max_tokens": 1000, "max_cost_usd": 0.5, "max_seconds": 60},
            "env": {"TOKEN": "hush"},
            "mcp_servers": {"docs": {"url": "https://mcp.example/docs"}},
            "max_tokens": 500,
            "answer_retries": 0,
            "builtin_tools": ["read", "grep"],
        }
    )
    assert definition == Definition(
        name="helper",
        description="Helps.",
        models=("anthropic/a", "openai/b"),
        instructions="Be brief.",
        project_instructions="",
        thinking_level=ThinkingLevel.HIGH,
        tools=(add,),
        commands=("git", PyFlueCommand(name="greet", description="echo hello", command="echo hello")),
        skills={"review": REVIEW},
        roles={"critic": CRITIC, "scout": Role(name="scout", instructions="Look around.")},
        subagents={"scout": scout},
        compaction=Compaction(
            enabled=True,
            context_window_tokens=None,
            reserve_tokens=5,
            keep_recent_tokens=20_000,
            model="anthropic/small",
        ),
        cwd="/workspace/docs",
        sandbox=make_sandbox,
        persist=False,
        policy=None,
        budget=Budget(max_turns=3, max_tokens=1000, max_cost_usd=0.5, max_seconds=60.0),
        secrets={"TOKEN": "hush"},
        mcp_servers={"docs": McpServerSettings(url="https://mcp.example/docs")},
        max_tokens=500,
        answer_retries=0,
        task_depth=8,
        builtin_tools=("read", "grep"),
        model_override=None,
    )
    assert "hush" not in repr(definition)


async def test_settings_are_what_an_agent_does_not_say(project: AgentProject) -> None:
    project.write(
        "pyflue.toml",
        """
        [agent]
        model = "anthropic/project"
        thinking_level = "low"
        sandbox = "isolated"
        task_depth = 0
        answer_retries = 1
        [compaction]
        enabled = false
        context_window_tokens = 1000
        [mcp.servers.files]
        command = "mcp-files"
        """,
    )
    definition = await project.resolve({})
    assert (
        definition.models,
        definition.thinking_level,
        definition.sandbox,
        definition.task_depth,
        definition.answer_retries,
        definition.compaction,
        definition.mcp_servers,
    ) == (
        ("anthropic/project",),
        ThinkingLevel.LOW,
        "isolated",
        0,
        1,
        Compaction(enabled=False, context_window_tokens=1000, reserve_tokens=16_384, keep_recent_tokens=20_000),
        {"files": McpServerSettings(command="mcp-files")},
    )
    assert (await project.resolve({"model": False})).models == ()
    assert (await project.resolve({"mcp_servers": []})).mcp_servers == {}
    assert (await project.resolve({"mcp_servers": ["files"]})).mcp_servers == definition.mcp_servers


async def test_pyflue_model_takes_the_place_of_every_model(project: AgentProject) -> None:
    returned = {"model": "anthropic/a", "subagents": [AgentProfile(name="scout", model="openai/b")]}
    definition = await project.resolve(returned, environ={"PYFLUE_MODEL": "scripted/hello"})
    assert definition.models == ("scripted/hello",)
    assert definition.models_for("openai/c") == ("scripted/hello",)
    assert definition.for_subagent(definition.subagents["scout"]).models == ("scripted/hello",)
    plain = await project.resolve(returned)
    assert plain.models_for(None, "openai/c") == ("openai/c",)
    assert plain.models_for(None, None) == ("anthropic/a",)


async def test_an_inline_field_wins_over_the_profile_and_lists_are_joined(project: AgentProject) -> None:
    profile = AgentProfile(
        name="base",
        description="The base.",
        model="anthropic/base",
        instructions="From the profile.",
        thinking_level="low",
        tools=[add],
        skills=[REVIEW],
        compaction=CompactionConfig(reserve_tokens=1, keep_recent_tokens=2),
    )
    other = Skill(name="other", description="Other.")
    definition = await project.resolve(
        AgentRuntimeConfig(
            profile=profile, model="anthropic/own", tools=[shout], skills=[other], compaction={"reserve_tokens": 9}
        )
    )
    from_profile = await project.resolve(profile)
    assert definition.models == ("anthropic/own",)
    assert (definition.name, definition.description) == ("base", "The base.")
    assert definition.instructions == "From the profile."
    assert definition.thinking_level is ThinkingLevel.LOW
    assert definition.tools == (add, shout)
    assert list(definition.skills) == ["review", "other"]
    assert (definition.compaction.reserve_tokens, definition.compaction.keep_recent_tokens) == (9, 2)
    assert from_profile.models == ("anthropic/base",)
    assert (await project.resolve({"profile": profile, "compaction": False})).compaction.enabled is False


async def test_a_subagent_has_its_own_tools_and_instructions_and_the_agents_sandbox(project: AgentProject) -> None:
    project.write("AGENTS.md", "Use tabs.\n")
    scout = AgentProfile(name="scout", instructions="Look around.", tools=[shout], thinking_level="low")
    definition = await project.resolve(
        {"instructions": "Lead.", "model": "anthropic/a", "tools": [add], "subagents": [scout], "sandbox": "local"}
    )
    child = definition.for_subagent(definition.subagents["scout"])
    assert definition.instructions == "Lead.\n\nUse tabs."
    assert (child.name, child.instructions, child.tools, child.subagents) == (
        "scout",
        "Look around.\n\nUse tabs.",
        (shout,),
        {},
    )
    assert (child.models, child.sandbox, child.thinking_level) == (("anthropic/a",), "local", ThinkingLevel.LOW)


async def test_an_initializer_gets_the_instance_it_is_for_and_may_be_async(project: AgentProject) -> None:
    async def initialize(ctx: AgentCreateContext) -> dict[str, Any]:
        return {"instructions": f"{ctx.id} {ctx.payload} {ctx.env['HOME']}"}

    context = AgentCreateContext(id="anna", env={"HOME": "/home/anna"}, payload=3)
    settings = load_settings(project.root, environ={})
    definition = await resolve_agent(create_agent(initialize), context, settings=settings, root=project.root)
    assert definition.instructions == "anna 3 /home/anna"
    assert "/home/anna" not in repr(context)


async def test_what_is_added_when_an_agent_is_initialised_comes_last(project: AgentProject) -> None:
    settings = load_settings(project.root, environ={})
    definition = await resolve_agent(
        create_agent(lambda: {"tools": [add]}),
        settings=settings,
        root=project.root,
        default_name="assistant",
        tools=[shout],
        skills=[REVIEW],
        subagents=[AgentProfile(name="scout")],
    )
    assert (definition.name, definition.tools) == ("assistant", (add, shout))
    assert (list(definition.skills), list(definition.subagents)) == (["review"], ["scout"])


async def test_what_an_initializer_raises_is_passed_on(project: AgentProject) -> None:
    def initialize() -> dict[str, Any]:
        raise LookupError("no customer")

    with pytest.raises(LookupError, match="no customer"):
        await resolve_agent(
            create_agent(initialize), settings=load_settings(project.root, environ={}), root=project.root
        )


def test_create_agent_is_told_from_other_things() -> None:
    agent = create_agent(lambda ctx: {})
    assert is_created_agent(agent)
    assert not is_created_agent({"model": "anthropic/a"})


@pytest.mark.parametrize("value", [{"model": "anthropic/a"}, None, "agent", dict, lambda a, b: {}])
def test_something_else_than_an_initializer_is_refused(value: Any) -> None:
    with pytest.raises(AgentInvalid, match="initializer function") as refused:
        create_agent(value)
    assert isinstance(refused.value, ValueError)


async def test_something_else_than_a_created_agent_is_refused(project: AgentProject) -> None:
    settings = load_settings(project.root, environ={})
    with pytest.raises(AgentInvalid, match="requires a created agent"):
        await resolve_agent({"model": "x"}, settings=settings, root=project.root)  # type: ignore[arg-type]  (that is the point)


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (5, r"returned 5; it must be a mapping, an AgentRuntimeConfig or an AgentProfile"),
        ({"modle": "x"}, r"unknown runtime config field 'modle'\. Did you mean 'model'\?"),
        ({3: "x"}, r"unknown runtime config field 3\."),
        ({"allow_write": True}, r"unknown runtime config field 'allow_write'\. Write policy="),
        ({"model": ""}, r"model is ''; it must be a model such as 'anthropic/claude-haiku-4-5'"),
        ({"model": True}, r"model is True; it must be"),
        ({"model": []}, r"model is \[\]; it must be"),
        ({"model": ["a", 3]}, r"model is \['a', 3\]; it must be"),
        ({"instructions": "  "}, r"instructions is '  '; it must be a string that is not empty"),
        ({"thinking_level": "hgih"}, r"thinking_level is 'hgih'; it must be one of off, minimal, low"),
        ({"tools": add}, r"tools is .*; it must be a list"),
        ({"tools": [print]}, r"a tool is <built-in function print>; make it one with @tool"),
        ({"tools": [add, add]}, r"duplicate tool name 'add'"),
        ({"commands": [3]}, r"a command is 3; give the name of a program"),
        ({"skills": ["review"]}, r"a skill is 'review'; it must be a Skill"),
        ({"skills": [REVIEW, REVIEW]}, r"duplicate skill name 'review'"),
        ({"roles": ["critic"]}, r"a role is 'critic'; it must be a Role"),
        ({"roles": [CRITIC, CRITIC]}, r"duplicate role name 'critic'"),
        ({"subagents": ["scout"]}, r"'scout' must be an AgentProfile"),
        ({"compaction": True}, r"compaction is True; it must be a CompactionConfig, a mapping, or False"),
        ({"compaction": {"reserve_tokens": -1}}, r"reserve_tokens is -1; it must be a whole number, 0 or more"),
        ({"compaction": {"reserve": 1}}, r"unknown compaction field 'reserve'\. Did you mean 'reserve_tokens'\?"),
        ({"name": "2nd"}, r"name is '2nd'; a name is a letter, then"),
        ({"description": 3}, r"description is 3; it must be a string"),
        ({"profile": 3}, r"3 must be an AgentProfile"),
        ({"cwd": ""}, r"cwd is ''"),
        ({"cwd": "a\0b"}, r"cwd is 'a\\x00b'; it must be a path in the sandbox"),
        ({"sandbox": 3}, r"sandbox is 3; it must be a name such as 'virtual', or a factory"),
        ({"persist": "no"}, r"persist is 'no'; it must be True or False"),
        ({"budget": 3}, r"budget is 3; it must be a mapping"),
        ({"budget": {"max_turn": 3}}, r"unknown budget field 'max_turn'\. Did you mean 'max_turns'\?"),
        ({"budget": {"max_turns": 0}}, r"max_turns is 0; it must be a whole number, 1 or more"),
        ({"budget": {"max_cost_usd": float("nan")}}, r"max_cost_usd is nan; it must be a number above 0"),
        ({"env": ["A"]}, r"env is \['A'\]; it must be a mapping"),
        ({"env": {"A=B": "x"}}, r"a name in env is 'A=B'"),
        ({"mcp_servers": ["docs"]}, r"there is no MCP server 'docs' in pyflue\.toml"),
        ({"mcp_servers": {"docs": {"ulr": "x"}}}, r"mcp_servers\['docs'\]\.ulr .*did you mean 'url'\?"),
        ({"mcp_servers": {"docs": 3}}, r"mcp_servers\['docs'\] is 3; it must be a mapping"),
        ({"max_tokens": 0}, r"max_tokens is 0; it must be a whole number, 1 or more"),
        ({"max_tokens": True}, r"max_tokens is True"),
        ({"answer_retries": -1}, r"answer_retries is -1"),
        ({"builtin_tools": ["raed"]}, r"there is no built-in tool 'raed'\. Did you mean 'read'\?"),
        ({"builtin_tools": "read"}, r"builtin_tools is 'read'; it must be a list"),
    ],
)
async def test_a_field_that_cannot_be_used_is_named_with_what_is_allowed(
    project: AgentProject, returned: Any, problem: str
) -> None:
    with pytest.raises(AgentInvalid, match=problem):
        await project.resolve(returned)


async def test_the_value_of_a_secret_is_in_no_message(project: AgentProject) -> None:
    with pytest.raises(AgentInvalid, match=r"env\['TOKEN'\] is a bytes; it must be a string") as refused:
        await project.resolve({"env": {"TOKEN": b"hush"}})
    assert "hush" not in str(refused.value)


async def test_a_policy_may_be_written_as_a_mapping(project: AgentProject) -> None:
    definition = await project.resolve(
        {"policy": {"writes": False, "shell": None, "network": True, "allowed_commands": ["git"]}}
    )
    assert definition.policy == SandboxPolicy(writes=False, network=True, allowed_commands=("git",))
    assert (await project.resolve({"policy": definition.policy})).policy == definition.policy
    with pytest.raises(AgentInvalid, match=r"unknown policy field 'write'\. Did you mean 'writes'\?"):
        await project.resolve({"policy": {"write": True}})
    with pytest.raises(AgentInvalid, match=r"policy is 3; it must be a SandboxPolicy or a mapping"):
        await project.resolve({"policy": 3})
    with pytest.raises(AgentInvalid, match=r"policy: writes is 'no'; it must be True or False"):
        await project.resolve({"policy": {"writes": "no"}})
    with pytest.raises(AgentInvalid, match=r"policy: allowed_commands is 'git'; it must be a list"):
        await project.resolve({"policy": SandboxPolicy(allowed_commands="git")})  # type: ignore[arg-type]  (that is the point)


async def test_project_instructions_follow_the_agents_and_one_that_links_to_the_other_counts_once(
    project: AgentProject,
) -> None:
    project.write("AGENTS.md", "Use tabs.\n")
    (project.root / "CLAUDE.md").symlink_to("AGENTS.md")
    assert (await project.resolve({"instructions": "Be brief."})).instructions == "Be brief.\n\nUse tabs."
    (project.root / "CLAUDE.md").unlink()
    project.write("CLAUDE.md", "Run the tests.")
    assert (await project.resolve({})).instructions == "Use tabs.\n\nRun the tests."


async def test_instructions_that_link_out_of_the_project_are_not_followed(
    project: AgentProject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.md"
    outside.write_text("the password")
    (project.root / "AGENTS.md").symlink_to(outside)
    assert (await project.resolve({})).instructions == ""


def test_the_levels_in_settings_are_those_of_models() -> None:
    assert tuple(level.value for level in ThinkingLevel) == THINKING_LEVELS


async def test_a_skill_folder_setting_that_leads_out_is_refused(project: AgentProject, tmp_path: Path) -> None:
    project.write("pyflue.toml", '[agent]\nskills_dir = "../elsewhere"\n')
    with pytest.raises(AgentInvalid, match=r"'\.\./elsewhere' leads out of the project"):
        await project.resolve({})
