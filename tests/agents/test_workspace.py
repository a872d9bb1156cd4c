"""`harness.fs` and `harness.shell`: the workflow's own hands in the agent's sandbox, done once, and told to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents import create_agent, tool
from pyflue.agents.models.port import ModelRequest
from tests.engine.durable import Context, ended, result_of
from tests.promises import promise

from .agent_runs import Asked, Recording, Stage, calls, dense, results_told


class Held:
    """A place in a workflow where its engine is stopped."""

    def __init__(self) -> None:
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.gate.wait()

    async def stop_there(self, stage: Stage, work: Callable[[Context], Any]) -> str:
        async with stage.interrupted(work) as run_id:
            async with asyncio.timeout(10):
                await self.reached.wait()
        self.gate.set()
        return run_id


KINDS = ["virtual", "local"]


@pytest.mark.parametrize("kind", KINDS)
async def test_everything_that_can_be_done_with_files(stage: Stage, kind: str) -> None:
    async def work(ctx: Context) -> Any:
        fs = (await ctx.init(create_agent(lambda: {"sandbox": kind}))).fs
        await fs.mkdir("a/b")
        await fs.write_file("a/b/c.txt", "text\n")
        await fs.write_file("data.bin", b"\x00\xff")
        seen = [
            await fs.readdir("."),
            await fs.read_file("a/b/c.txt"),
            list(await fs.read_bytes("data.bin")),
            await fs.read_file("data.bin"),
            [await fs.exists("a"), await fs.exists("x"), await fs.exists("data.bin/x")],
            [(await fs.stat("a")).is_folder, (await fs.stat("data.bin")).size_bytes],
        ]
        await fs.rm("a", recursive=True)
        await fs.rm("a", force=True)
        failed: list[str] = []
        for what in (
            fs.read_file("a"),
            fs.rm("a"),
            fs.stat("a"),
            fs.readdir("data.bin"),
            fs.mkdir("x/y", recursive=False),
        ):
            try:
                await what
            except OSError as error:
                failed.append(type(error).__name__)
        return [*seen, await fs.readdir("."), failed]

    assert result_of(await stage.run(work)) == [
        ["a", "data.bin"],
        "text\n",
        [0, 255],
        "\x00�",
        [True, False, False],
        [True, 2],
        ["data.bin"],
        ["FileNotFoundError", "FileNotFoundError", "FileNotFoundError", "NotADirectoryError", "FileNotFoundError"],
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_files_and_commands_are_given_back_when_the_run_is_taken_up_again(stage: Stage, kind: str) -> None:
    held = Held()
    seen: list[Any] = []

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(create_agent(lambda: {"sandbox": kind}))
        fs = harness.fs
        round_: list[Any] = []
        seen.append(round_)
        await fs.write_file("a.txt", "one")
        round_.append(await fs.read_file("a.txt"))
        shell = await harness.shell("echo two >> a.txt; cat a.txt; exit 3")
        round_.append([shell.stdout, shell.exit_code])
        round_.append(await fs.readdir("."))
        round_.append((await fs.stat("a.txt")).size_bytes)
        try:
            await fs.rm("never.txt")
        except FileNotFoundError as error:
            round_.append(type(error).__name__)
        await fs.rm("a.txt")
        round_.append(await fs.exists("a.txt"))
        await ctx.step("hold", held)
        await fs.write_file("b.txt", "later")
        return await fs.readdir(".")

    run_id = await held.stop_there(stage, work)
    run = await stage.resume(run_id, work)
    assert result_of(run) == ["b.txt"]
    assert seen[0] == seen[1] == ["one", ["onetwo\n", 3], ["a.txt"], 7, "FileNotFoundError", False]
    assert len(await stage.told(run_id, "command_start")) == 1
    await dense(stage.journal, run)


async def test_what_is_read_from_the_host_is_recorded(stage: Stage) -> None:
    """Whoever changes the folder meanwhile does not change what the run has seen."""
    held = Held()
    seen: list[Any] = []

    async def work(ctx: Context) -> Any:
        fs = (await ctx.init(create_agent(lambda: {"sandbox": "local"}))).fs
        await fs.write_file("a.txt", "old")
        seen.append([await fs.read_file("a.txt"), await fs.exists("b.txt"), await fs.readdir(".")])
        await ctx.step("hold", held)
        return [await fs.read_file("a.txt"), await fs.exists("b.txt")]

    run_id = await held.stop_there(stage, work)
    (file,) = (stage.root / ".pyflue" / "sandboxes").rglob("a.txt")
    file.write_text("new")
    file.with_name("b.txt").write_text("x")
    run = await stage.resume(run_id, work)
    assert seen == [["old", False, ["a.txt"]]] * 2
    assert result_of(run) == ["new", True]


async def test_no_conversation_hears_of_the_workflows_own_files_and_commands(stage: Stage) -> None:
    model = Asked(["Fine."])

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent())
        session = await harness.session()
        await harness.fs.write_file("a.txt", "unheard")
        await harness.fs.read_file("a.txt")
        await harness.shell("cat a.txt")
        await session.prompt("Go")

    run = await stage.run(work)
    result_of(run)
    said = await stage.conversation(run.run_id)
    assert [(entry["role"], entry["blocks"][0]["text"]) for entry in said] == [("user", "Go"), ("assistant", "Fine.")]


async def test_a_reader_at_an_earlier_point_sees_the_files_of_that_point(stage: Stage) -> None:
    """Between two prompts the files are those of the first one, however far the run had come when it was stopped."""
    held = Held()
    seen: list[Any] = []

    def answer(request: ModelRequest) -> Any:
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn % 2:
            return "Done."
        return calls(("bash", {"command": f"echo {turn} >> log.txt"}))

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        session = await harness.session()
        round_: list[Any] = []
        seen.append(round_)
        for _ in range(3):
            await session.prompt("Go")
            round_.append(await harness.fs.read_file("log.txt"))
        await ctx.step("hold", held)
        return await harness.fs.read_file("log.txt")

    run_id = await held.stop_there(stage, work)
    run = await stage.resume(run_id, work)
    assert result_of(run) == "0\n2\n4\n"
    assert seen == [["0\n", "0\n2\n", "0\n2\n4\n"]] * 2


async def test_changes_of_parallel_branches_are_each_their_own(stage: Stage) -> None:
    held = Held()

    async def branch(harness: Any, name: str) -> None:
        for number in range(3):
            await harness.fs.write_file(f"{name}/{number}", name * number)
            await harness.shell(f"echo {name} >> all.txt")

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(Asked([]).agent())
        await asyncio.gather(*(branch(harness, name) for name in "abc"))
        await ctx.step("hold", held)
        lines = (await harness.fs.read_file("all.txt")).split()
        return [sorted(lines), [await harness.fs.readdir(name) for name in "abc"]]

    run_id = await held.stop_there(stage, work)
    assert result_of(await stage.resume(run_id, work)) == [sorted("abc" * 3), [["0", "1", "2"]] * 3]


@promise("agents.resume")
async def test_files_are_right_after_a_kill_at_any_commit_of_work_side_by_side(tmp_path: Path) -> None:
    """Two sessions write at the same time, beside the workflow itself."""

    def make() -> tuple[Asked, Any]:
        def answer(request: ModelRequest) -> Any:
            name = request.messages[0].text
            turn = sum(message.role == "assistant" for message in request.messages)
            if turn == 3:
                return "Done."
            return calls(
                ("write", {"path": f"{name}/{turn}.txt", "content": name}),
                ("bash", {"command": f"echo {turn} >> {name}/log.txt"}),
            )

        model = Asked(answer)

        async def work(ctx: Context) -> Any:
            harness = await ctx.init(model.agent())
            sessions = [await harness.session(name) for name in "ab"]
            await asyncio.gather(
                *(session.prompt(session.name) for session in sessions),
                harness.fs.write_file("c.txt", "c"),
            )
            logs = [await harness.fs.read_file(f"{name}/log.txt") for name in "ab"]
            return [logs, (await harness.shell("find . -type f | sort")).stdout.split()]

        return model, work

    stage = Stage(tmp_path / "project")
    recording = Recording(stage.root, tmp_path / "record")
    model, work = make()
    undisturbed = await stage.run(work)
    recording.end()
    await stage.close()
    wanted = result_of(undisturbed)
    assert wanted[0] == ["0\n1\n2\n"] * 2
    assert len(wanted[1]) == 9
    assert model.count == 8
    for root in recording.crashes():
        crashed = Stage(root)
        if await crashed.journal.run(undisturbed.run_id) is not None:
            again, work = make()
            turns = [step for step in (await crashed.journal.history(undisturbed.run_id)).steps if step.kind == "turn"]
            run = await crashed.resume(undisturbed.run_id, work)
            assert result_of(run) == wanted
            assert again.count == 8 - len(turns)
            await dense(crashed.journal, run)
        await crashed.close()


async def test_a_tool_of_the_authors_changes_the_same_files(stage: Stage) -> None:
    harnesses: list[Any] = []

    @tool
    async def note(text: str) -> str:
        """Note."""
        await harnesses[-1].fs.write_file("note.txt", text)
        return "noted"

    held = Held()
    model = Asked([calls(("note", {"text": "hello"})), calls(("read", {"path": "note.txt"})), "Done."])

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(tools=[note]))
        harnesses.append(harness)
        await (await harness.session()).prompt("Go")
        await ctx.step("hold", held)
        return await harness.fs.read_file("note.txt")

    run_id = await held.stop_there(stage, work)
    assert result_of(await stage.resume(run_id, work)) == "hello"
    assert results_told(model.requests[-1]) == [("hello", False)]


async def test_a_fork_between_changes_of_files_takes_over_only_those_before(stage: Stage) -> None:
    async def work(ctx: Context) -> Any:
        fs = (await ctx.init(Asked([]).agent())).fs
        for name in "abc":
            await fs.write_file(name, ctx.payload["text"])
        return [await fs.read_file(name) for name in "abc"]

    async with stage.engine(work) as engine:
        first = await ended(engine, await stage.submit(engine, work, {"text": "old"}))
        patch = {"text": "new"}
        fork = await engine.fork(first.run_id, from_step="fs.write_file#2", payload_patch=patch)
        run = await ended(engine, fork.run_id)

    assert result_of(run) == ["old", "new", "new"]
