"""Instructions, skills and roles of a project: read whenever an agent is made, by one thread for all who ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents.project_files import ProjectFiles
from pyflue.errors import AgentInvalid
from pyflue.settings import AgentSettings
from tests.engine.durable import Context, ended, result_of

from .agent_runs import Asked, Stage


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


class Disk:
    """A slow disk: whoever reads the instructions waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.may_go_on = threading.Event()
        self.count = 0
        self._open = Path.open
        monkeypatch.setattr(Path, "open", lambda path, *args, **kwargs: self.open(path, *args, **kwargs))

    def open(self, path: Path, *args: Any, **kwargs: Any) -> Any:
        file = self._open(path, *args, **kwargs)
        if path.name == "AGENTS.md" and file.readable():
            self.count += 1
            self.opened.set()
            assert self.may_go_on.wait(10)
        return file


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.may_go_on.set()


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


# In runs


async def test_what_changes_between_two_runs_is_seen_by_the_second(stage: Stage) -> None:
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        session = await harness.session()
        await session.prompt("Go")
        await session.prompt("Go on")
        definition = session.definition
        return [sorted(definition.skills), sorted(definition.roles)]

    async with stage.engine(work) as engine:

        async def told() -> tuple[Any, set[str]]:
            model.requests.clear()
            listed = result_of(await ended(engine, await stage.submit(engine, work)))
            return listed, {request.system for request in model.requests}

        assert await told() == ([[], []], {""})

        write(stage.root / "AGENTS.md", "Speak Latin.")
        write(stage.root / ".agents/skills/count/SKILL.md", "---\ndescription: Counts.\n---\nOne, two.")
        write(stage.root / ".agents/roles/clerk.md", "You are a clerk.")
        listed, (system,) = await told()
        assert listed == [["count"], ["clerk"]]
        assert "Speak Latin." in system
        assert "- count: Counts." in system

        write(stage.root / "AGENTS.md", "Speak Greek.")
        write(stage.root / ".agents/skills/count/SKILL.md", "---\ndescription: Adds.\n---\nOne and two.")
        (stage.root / ".agents/roles/clerk.md").rename(stage.root / ".agents/roles/judge.md")
        listed, (system,) = await told()
        assert listed == [["count"], ["judge"]]
        assert "Latin" not in system
        assert "Counts" not in system
        assert "Speak Greek." in system
        assert "- count: Adds." in system

        for name in ("AGENTS.md", ".agents/skills/count/SKILL.md", ".agents/roles/judge.md"):
            (stage.root / name).unlink()
        assert await told() == ([[], []], {""})


async def test_a_run_keeps_the_instructions_that_its_agent_was_made_with(stage: Stage) -> None:
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> None:
        first = await (await ctx.init(model.agent())).session()
        await first.prompt("Go")
        write(stage.root / "AGENTS.md", "Speak Greek.")
        await first.prompt("Go on")
        await (await (await ctx.init(model.agent())).session()).prompt("Go")

    write(stage.root / "AGENTS.md", "Speak Latin.")
    result_of(await stage.run(work))
    assert [request.system for request in model.requests] == ["Speak Latin.", "Speak Latin.", "Speak Greek."]


async def test_many_runs_that_start_at_once_all_have_the_instructions(stage: Stage) -> None:
    write(stage.root / "AGENTS.md", "Speak Latin.")
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go")

    async with stage.engine(work) as engine:
        run_ids = await asyncio.gather(*(stage.submit(engine, work) for _ in range(30)))
        for run_id in run_ids:
            result_of(await ended(engine, run_id))
    assert [request.system for request in model.requests] == ["Speak Latin."] * 30


# One reading for many


async def test_who_asks_during_a_reading_gets_what_was_written_before_it_asked(tmp_path: Path, slow: Disk) -> None:
    files = ProjectFiles(AgentSettings(), tmp_path)
    write(tmp_path / "AGENTS.md", "Old")

    first = files.read()
    await until(slow.opened)
    (tmp_path / "AGENTS.md").unlink()  # the one that is open stays as it is
    write(tmp_path / "AGENTS.md", "New")
    later = [files.read() for _ in range(5)]
    slow.may_go_on.set()

    assert (await first).instructions == "Old"
    texts = await asyncio.gather(*later)
    assert [text.instructions for text in texts] == ["New"] * 5
    assert slow.count == 2


async def test_who_goes_away_during_a_reading_takes_nothing_from_the_others(tmp_path: Path, slow: Disk) -> None:
    files = ProjectFiles(AgentSettings(), tmp_path)
    write(tmp_path / "AGENTS.md", "Here")

    asking = [files.read() for _ in range(4)]
    await until(slow.opened)
    asking[0].cancel()
    asking[2].cancel()
    slow.may_go_on.set()

    assert [(await asking[number]).instructions for number in (1, 3)] == ["Here", "Here"]
    assert (await files.read()).instructions == "Here"


async def test_all_who_asked_hear_what_is_wrong_and_the_next_hear_that_it_is_mended(tmp_path: Path, slow: Disk) -> None:
    files = ProjectFiles(AgentSettings(), tmp_path)
    write(tmp_path / "AGENTS.md", "Here")
    write(tmp_path / ".agents/roles/odd.md", "---\nno end")

    first = files.read()
    await until(slow.opened)
    later = [files.read(), files.read()]
    slow.may_go_on.set()
    for each in (first, *later):
        with pytest.raises(AgentInvalid, match=r"odd\.md: its front matter has no end"):
            await each

    write(tmp_path / ".agents/roles/odd.md", "Mended")
    assert list((await files.read()).roles) == ["odd"]


def test_a_reading_for_an_event_loop_that_has_ended_keeps_nobody_from_another(tmp_path: Path, slow: Disk) -> None:
    files = ProjectFiles(AgentSettings(), tmp_path)
    write(tmp_path / "AGENTS.md", "Here")

    async def leave() -> None:
        left = [files.read(), files.read()]
        await until(slow.opened)
        assert not any(each.done() for each in left)

    async def ask() -> list[str]:
        asking = [files.read(), files.read()]
        slow.may_go_on.set()
        async with asyncio.timeout(10):
            return [(await each).instructions for each in asking]

    asyncio.run(leave())
    assert asyncio.run(ask()) == ["Here", "Here"]


async def test_without_a_thread_to_read_in_all_who_ask_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ProjectFiles(AgentSettings(), tmp_path)
    write(tmp_path / "AGENTS.md", "Here")

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        asking = [files.read(), files.read(), files.read()]
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["can't start new thread"] * 3
    assert (await files.read()).instructions == "Here"


@pytest.mark.parametrize("gone", ["AGENTS.md", ".agents/skills/count/SKILL.md", ".agents/roles/clerk.md"])
async def test_a_file_that_vanishes_before_it_is_opened_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    files = ProjectFiles(AgentSettings(), tmp_path)
    write(tmp_path / "AGENTS.md", "Here")
    write(tmp_path / "CLAUDE.md", "And here")
    for name in ("count", "other"):
        write(tmp_path / f".agents/skills/{name}/SKILL.md", "How to")
    for name in ("clerk", "other"):
        write(tmp_path / f".agents/roles/{name}.md", "Who")
    opening = Path.open

    def take_away(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == tmp_path.resolve() / gone:
            path.unlink()
        return opening(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", take_away)
    texts = await files.read()

    assert not (tmp_path / gone).exists()
    assert texts.instructions == ("And here" if gone == "AGENTS.md" else "Here\n\nAnd here")
    assert sorted(texts.skills) == (["other"] if "skills" in gone else ["count", "other"])
    assert sorted(texts.roles) == (["other"] if "roles" in gone else ["clerk", "other"])


async def test_a_folder_that_vanishes_while_it_is_read_counts_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ProjectFiles(AgentSettings(), tmp_path)
    folder = tmp_path / ".agents/skills"
    for name in "abc":
        write(folder / f"{name}.md", "How to")
    opening = Path.open

    def take_away(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "b.md":
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        return opening(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", take_away)
    assert sorted((await files.read()).skills) == ["a"]
    assert sorted((await files.read()).skills) == []
