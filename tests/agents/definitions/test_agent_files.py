"""Agent files: found by name, loaded in versions, and never in one another's way."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from pathlib import Path

import pytest

from pyflue.agents import AgentCatalog, AgentEntry, AgentRequest, resolve_agent
from pyflue.agents.files import plain_agent
from pyflue.errors import AgentInvalid, AgentNotFound
from pyflue.settings import load_settings

from .conftest import AgentProject

ASSISTANT = """\
\"\"\"Answers questions.\"\"\"

from pyflue.agents import create_agent

agent = create_agent(lambda ctx: {"model": "anthropic/claude-haiku-4-5"})
"""
REQUEST = AgentRequest(agent="x", instance_id="anna", session=None, action="prompt", request=None)


def test_agents_are_found_in_three_folders_by_the_place_of_their_file(project: AgentProject) -> None:
    path = project.write("src/agents/assistant.py", ASSISTANT)
    project.write("agents/assistant.py", "raise RuntimeError\n")
    project.write("agents/support/billing.py", ASSISTANT)
    project.write(".agents/helper.py", ASSISTANT)
    project.write(".agents/skills/pdf/scripts/convert.py", "raise RuntimeError\n")
    project.write("src/agents/_tools.py", "raise RuntimeError\n")
    project.write("src/agents/not an agent.py", "raise RuntimeError\n")
    catalog = AgentCatalog(project.root)
    assert catalog.names() == ["assistant", "helper", "support.billing"]
    assert [(each.path, each.message) for each in catalog.diagnostics()] == [
        (
            "src/agents/not an agent.py",
            (
                "'not an agent' cannot be an agent name. Folders and file start with a letter or digit and have only "
                "A-Z, a-z, 0-9, '_' and '-'; put helpers in a folder that starts with '_'."
            ),
        ),
        (
            "agents/assistant.py",
            "Agent 'assistant' is also in src/agents/assistant.py, which is the one that is used.",
        ),
    ]
    found = catalog.find("assistant")
    assert (found.name, found.path, found.description, found.authorize) == (
        "assistant",
        path,
        "Answers questions.",
        None,
    )
    assert catalog.entries()[0] == AgentEntry(name="assistant", path=path, agent=found, error=None)


async def test_what_is_found_can_be_resolved_with_the_projects_own_modules(project: AgentProject) -> None:
    project.write("src/agents/_lib/words.py", "GREETING = 'Say hello.'\n")
    project.write(
        "src/agents/greeter.py",
        """
        from pyflue.agents import create_agent
        from ._lib.words import GREETING

        def initialize():
            from _lib import words
            return {"instructions": GREETING + words.GREETING}

        default = create_agent(initialize)
        description = "Greets."
        """,
    )
    found = AgentCatalog(project.root).find("greeter")
    settings = load_settings(project.root, environ={})
    definition = await resolve_agent(found.agent, settings=settings, root=project.root, default_name=found.name)
    assert (found.description, definition.name, definition.instructions) == (
        "Greets.",
        "greeter",
        "Say hello.Say hello.",
    )


def test_a_setting_names_another_folder(project: AgentProject) -> None:
    project.write("src/agents/assistant.py", ASSISTANT)
    project.write("bots/deep/helper.py", ASSISTANT)
    assert AgentCatalog(project.root, agents_dir="bots").names() == ["deep.helper"]
    with pytest.raises(AgentInvalid, match=r"agent\.agents_dir: '\.\./bots' leads out of the project"):
        AgentCatalog(project.root, agents_dir="../bots")


@pytest.mark.parametrize("name", ["nobody", "../assistant", "assistant.py", "agents/assistant", "", "a" * 500])
def test_a_name_is_looked_up_and_never_a_path(project: AgentProject, name: str) -> None:
    project.write("src/agents/assistant.py", ASSISTANT)
    with pytest.raises(AgentNotFound, match=r"Agents: assistant\."):
        AgentCatalog(project.root).find(name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1 +\n", r"src/agents/broken\.py:1: SyntaxError"),
        ("x = 1\nraise LookupError('gone')\n", r"src/agents/broken\.py:2: importing it failed: LookupError: gone"),
        ("x = 1\n", r"src/agents/broken\.py:1: it has no `agent`\. Write `agent = create_agent"),
        ("agent = 3\n", r"src/agents/broken\.py:1: its `agent` is 3; it must come from create_agent"),
        (ASSISTANT + "authorize = 3\n", r"its `authorize` is 3; it must be a function of one argument"),
        (ASSISTANT + "def authorize(): ...\n", r"its `authorize` is <function .*>; it must be a function of one"),
        (ASSISTANT + "description = 3\n", r"its `description` is 3; it must be a string"),
        ("while True: pass\n", r"importing it took longer than 0\.5 s"),
    ],
)
def test_a_broken_file_is_named_with_its_line_and_the_others_are_served(
    project: AgentProject, text: str, problem: str
) -> None:
    project.write("src/agents/broken.py", text)
    project.write("src/agents/fine.py", ASSISTANT)
    catalog = AgentCatalog(project.root, import_timeout_s=0.5)
    assert catalog.refresh()
    assert catalog.find("fine").name == "fine"
    with pytest.raises(AgentInvalid, match=problem):
        catalog.find("broken")
    assert [each.path for each in catalog.diagnostics()] == ["src/agents/broken.py"]


def test_an_edit_makes_a_new_version_and_a_broken_one_keeps_the_old(project: AgentProject) -> None:
    path = project.write("src/agents/assistant.py", ASSISTANT)
    catalog = AgentCatalog(project.root)
    first = catalog.find("assistant")
    path.write_text(ASSISTANT.replace("Answers", "Asks"))
    assert catalog.refresh()
    second = catalog.find("assistant")
    assert (first.description, second.description) == ("Answers questions.", "Asks questions.")
    assert first.version != second.version
    path.write_text("agent = \n")
    assert catalog.refresh()
    (entry,) = catalog.entries()
    assert entry.agent is catalog.find("assistant") is second
    assert "SyntaxError" in str(entry.error)
    assert path.parent in catalog.folders()


async def test_a_file_decides_who_may_talk_to_its_agent(project: AgentProject) -> None:
    project.write(
        "src/agents/guarded.py",
        ASSISTANT
        + "async def authorize(request):\n"
        + "    if request.instance_id == 'carl':\n"
        + "        raise PermissionError('not you')\n"
        + "    return {'anna': None, 'bert': False, 'dora': True, 'emil': 0}[request.instance_id]\n",
    )
    project.write("src/agents/open.py", ASSISTANT)
    catalog = AgentCatalog(project.root)
    guarded = catalog.find("guarded")

    def asked_for(instance_id: str) -> AgentRequest:
        return AgentRequest(agent="guarded", instance_id=instance_id, session=None, action="prompt", request=None)

    assert [await guarded.allows(asked_for(name)) for name in ("anna", "bert", "dora")] == [True, False, True]
    with pytest.raises(PermissionError, match="not you"):
        await guarded.allows(asked_for("carl"))
    with pytest.raises(
        AgentInvalid, match="authorize of the agent 'guarded' returned 0; it returns True, False or None"
    ):
        await guarded.allows(asked_for("emil"))
    assert await catalog.find("open").allows(REQUEST)


async def test_a_plain_function_that_decides_keeps_nobody_else_waiting() -> None:
    loop = asyncio.get_running_loop()
    asked, answered = asyncio.Event(), threading.Event()

    def authorize(request: AgentRequest) -> bool:
        loop.call_soon_threadsafe(asked.set)
        return answered.wait(10) and request.instance_id == "anna"

    file = dataclasses.replace(plain_agent(Path()), authorize=authorize)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        decision = group.create_task(file.allows(REQUEST))
        await asked.wait()  # the loop goes on while the function blocks
        answered.set()
    assert decision.result()
    assert not await file.allows(dataclasses.replace(REQUEST, instance_id="bert"))


async def test_whatever_can_be_called_may_decide() -> None:
    class Hook:
        async def __call__(self, request: AgentRequest) -> bool:
            return asyncio.get_running_loop().is_running() and request.instance_id == "anna"

    async def never(nobody: str, request: AgentRequest) -> bool:
        return request.instance_id == nobody

    for hook, answer in ((Hook(), True), (functools.partial(never, "bert"), False)):
        assert await dataclasses.replace(plain_agent(Path()), authorize=hook).allows(REQUEST) is answer
