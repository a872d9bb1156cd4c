"""Folders that PyFlue keeps for local sandboxes: they go with their run or instance, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflue.cli import main
from tests.agent_project import write_agents

from .harness import InProcess, in_process, write_project

_WORKS = """
from pyflue import create_agent
from pyflue.agents.sandboxes import local


async def run(ctx):
    folder = ctx.payload.get("folder")
    agent = create_agent(lambda: {"sandbox": "local" if folder is None else local(folder)})
    for name in ("one", "two"):
        harness = await ctx.init(agent, name=name)
        await harness.fs.write_file("a.txt", ctx.payload["text"])
        await harness.shell(ctx.payload.get("command", "true"))
    return ctx.id
"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncGenerator[InProcess]:
    write_project(tmp_path, {"works": _WORKS})
    write_agents(tmp_path, {})
    async with in_process(tmp_path) as here:
        yield here


async def worked(here: InProcess, text: str, **more: str) -> str:
    answer = await here.client.post("/workflows/works?wait=result", json={"text": text, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def kept(root: Path) -> list[str]:
    """What the files below the data folder for sandboxes say."""
    return sorted(file.read_text() for file in (root / ".pyflue" / "sandboxes").rglob("*") if file.is_file())


async def test_a_run_that_is_deleted_takes_its_folders_along(here: InProcess, tmp_path: Path) -> None:
    first, second = await worked(here, "first"), await worked(here, "second")
    assert kept(tmp_path) == ["first", "first", "second", "second"]
    assert (await here.client.delete(f"/runs/{first}")).status_code == 204
    assert kept(tmp_path) == ["second", "second"]
    assert (await here.client.delete(f"/runs/{second}")).status_code == 204
    assert list((tmp_path / ".pyflue" / "sandboxes").iterdir()) == []


async def test_a_folder_that_the_author_named_stays(here: InProcess, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    run_id = await worked(here, "mine", folder=str(folder))
    assert (await here.client.delete(f"/runs/{run_id}")).status_code == 204
    assert (folder / "a.txt").read_text() == "mine"


async def test_what_links_lead_to_stays(here: InProcess, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.txt").write_text("kept")
    run_id = await worked(here, "x", command=f"ln -s {outside} link; ln -s {outside}/b.txt b.txt")
    (folder,) = (tmp_path / ".pyflue" / "sandboxes").iterdir()
    assert (await here.client.delete(f"/runs/{run_id}")).status_code == 204
    assert not folder.exists()

    # Links in the place of what was made: of a run's folder, and of the folder of all.
    run_id = await worked(here, "x")
    (folder,) = (tmp_path / ".pyflue" / "sandboxes").iterdir()
    folder.rename(tmp_path / "moved")
    folder.symlink_to(outside)
    assert (await here.client.delete(f"/runs/{run_id}")).status_code == 204
    assert not folder.is_symlink()

    run_id = await worked(here, "y")
    folder.parent.rename(tmp_path / "elsewhere")
    folder.parent.symlink_to(tmp_path / "elsewhere")
    assert (await here.client.delete(f"/runs/{run_id}")).status_code == 204
    assert sorted(file.read_text() for file in (tmp_path / "elsewhere").rglob("a.txt")) == ["y", "y"]
    assert (outside / "b.txt").read_text() == "kept"


@pytest.mark.parametrize("command", [("runs", "delete"), ("db", "gc", "--older-than", "1ms")])
def test_the_command_line_deletes_folders_of_runs_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    write_project(tmp_path, {"works": _WORKS})
    monkeypatch.chdir(tmp_path)
    cli = CliRunner()
    run_id = cli.invoke(main, ["run", "works", "--payload", '{"text": "here"}']).stdout.strip().strip('"')
    assert kept(tmp_path) == ["here", "here"]
    answer = cli.invoke(main, [*command, run_id] if command[0] == "runs" else [*command])
    assert answer.exit_code == 0, answer.output
    assert list((tmp_path / ".pyflue" / "sandboxes").iterdir()) == []
