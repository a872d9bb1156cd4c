"""What runs, harnesses, sessions and commands must not see of one another, and of the host."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents import tool
from pyflue.agents.content import Message, Text, user
from pyflue.agents.models.port import ModelRequest
from tests.engine.durable import Context, result_of
from tests.promises import promise

from .agent_runs import Asked, Stage, calls, dense, last_text, results_told

#: What models and files say in these tests, and nobody else may hear.
PRIVATE = "the-private-text"


def heard(model: Asked, text: str) -> int:
    """How many of the requests to a model hold a text."""
    return sum(text in str([message.to_dict() for message in messages]) for messages in model.messages)


@promise("agents.isolation")
async def test_two_runs_share_neither_conversation_nor_files(stage: Stage) -> None:
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        found = await harness.fs.readdir(".")
        await harness.fs.write_file(f"{ctx.payload}.txt", PRIVATE)
        await (await harness.session()).prompt(f"{ctx.payload}: {PRIVATE}")
        return [found, (await harness.shell("ls")).stdout.split()]

    results = [result_of(await stage.run(work, payload=name)) for name in ("one", "two")]
    assert results == [[[], ["one.txt"]], [[], ["two.txt"]]]
    assert model.messages == [[user(f"one: {PRIVATE}")], [user(f"two: {PRIVATE}")]]


@promise("agents.isolation")
@pytest.mark.parametrize("kind", ["virtual", "local"])
async def test_two_harnesses_of_one_run_share_neither_conversation_nor_files(stage: Stage, kind: str) -> None:
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> Any:
        agent = model.agent(sandbox=kind)
        harnesses = [await ctx.init(agent), await ctx.init(agent), await ctx.init(agent, name="other")]
        for number, harness in enumerate(harnesses):
            await harness.fs.write_file(f"{number}.txt", "x")
            await (await harness.session()).prompt(str(number))
        return [await harness.fs.readdir(".") for harness in harnesses]

    assert result_of(await stage.run(work)) == [["0.txt"], ["1.txt"], ["2.txt"]]
    assert [list(messages) for messages in model.messages] == [[user("0")], [user("1")], [user("2")]]


@promise("agents.isolation")
async def test_names_that_look_alike_once_they_are_joined_are_different_conversations(stage: Stage) -> None:
    """Harness `a` with session `b_default` is not harness `a_b` with session `default`; before and after a restart."""
    names = ["a", "a_b", "a/b", "a:b", "a.b", "default", "a#2"]
    reached, gate = asyncio.Event(), asyncio.Event()
    model = Asked(lambda request: "Fine.")

    async def hold() -> None:
        reached.set()
        await gate.wait()

    async def work(ctx: Context) -> Any:
        harnesses = [await ctx.init(model.agent(), name=name) for name in names]
        sessions = [await harness.session(name) for harness in harnesses for name in [*names, "b_default", "b/default"]]
        for number, session in enumerate(sessions):
            await session.prompt(f"{number} first")
        await ctx.step("hold", hold)
        for number, session in enumerate(sessions):
            await session.prompt(f"{number} second")
        return [[message.text for message in await session.history()] for session in sessions]

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(20):
            await reached.wait()
    gate.set()
    histories = result_of(await stage.resume(run_id, work))
    assert histories == [[f"{number} first", "Fine.", f"{number} second", "Fine."] for number in range(63)]


@promise("agents.isolation")
async def test_a_session_knows_nothing_of_its_neighbours_and_tasks(stage: Stage) -> None:
    model = Asked(lambda request: f"Re: {last_text(request)}")

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent())
        first, second = await harness.session("a"), await harness.session("b")
        await first.prompt(PRIVATE)
        await second.prompt("Else")
        await first.task("A part")
        # A session that is called as the task's child.
        await (await harness.session("a:a.task")).prompt("Who are you?")

    result_of(await stage.run(work))
    assert heard(model, PRIVATE) == 1
    assert [len(messages) for messages in model.messages] == [1, 1, 1, 1]


@promise("agents.isolation")
async def test_nothing_is_lost_of_many_prompts_at_once(stage: Stage) -> None:
    model = Asked(lambda request: f"Re: {last_text(request)}")

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        await asyncio.gather(*(session.prompt(str(number)) for number in range(10)))
        return [message.text for message in await session.history()]

    run = await stage.run(work)
    said = list(itertools.chain.from_iterable((str(number), f"Re: {number}") for number in range(10)))
    assert result_of(run) == said
    assert [Message.from_dict(entry).text for entry in await stage.conversation(run.run_id)] == said


@promise("agents.isolation")
async def test_the_model_gets_the_whole_conversation_and_the_last_message_once(stage: Stage) -> None:
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent())).session()
        for number in range(20):
            await session.prompt(str(number))

    result_of(await stage.run(work))
    fine = Message("assistant", (Text("Fine."),))
    assert list(model.messages[-1]) == [*(m for number in range(19) for m in (user(str(number)), fine)), user("19")]


# Secrets and the host

VALUES = {f"PLANTED_{number}": f"planted-value-{number:02}-x7Kq" for number in range(20)}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Twenty variables of the host."""
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)
    return VALUES


def on_disk(root: Path) -> bytes:
    """Every byte that the project's journal is made of."""
    return b"".join(file.read_bytes() for file in sorted((root / ".pyflue").glob("journal.db*")) if file.is_file())


@promise("F38")
@pytest.mark.parametrize("kind", ["virtual", "local"])
async def test_commands_see_nothing_of_the_hosts_variables(tmp_path: Path, planted: dict[str, str], kind: str) -> None:
    stage = Stage(tmp_path)
    commands = [
        "env",
        "printenv",
        "set",
        "export -p",
        "cat /proc/self/environ",
        "echo $PLANTED_1 ${PLANTED_2}",
        "declare -p",
    ]
    model = Asked([calls(*(("bash", {"command": command}) for command in commands)), "Done."])

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(sandbox=kind, policy={"shell": True, "writes": True}))
        await (await harness.session()).prompt("Go")
        outputs = [(await harness.shell(command)).stdout for command in commands]
        return "".join(outputs)

    run = await stage.run(work)
    seen = result_of(run) + str(results_told(model.requests[-1])) + str(await dense(stage.journal, run))
    await stage.close()
    everything = seen.encode() + on_disk(tmp_path)
    assert [name for name, value in planted.items() if value.encode() in everything] == []


@promise("agents.isolation")
async def test_the_virtual_sandbox_has_no_host_to_read(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "host.txt").write_text(PRIVATE)
    host_file = str(tmp_path / "host.txt")
    model = Asked([
        calls(
            ("read", {"path": host_file}),
            ("bash", {"command": f"cat {host_file}"}),
            ("bash", {"command": "cat /etc/passwd"}),
            ("grep", {"pattern": "private", "path": str(tmp_path)}),
            ("bash", {"command": f"ln -s {host_file} link; cat link"}),
        ),
        "Done.",
    ])  # fmt: skip

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go")

    result_of(await stage.run(work))
    told = results_told(model.requests[-1])
    assert PRIVATE not in str(told)
    assert "root:" not in str(told)


@promise("agents.isolation", "F36")
@pytest.mark.parametrize("kind", ["virtual", "local"])
@pytest.mark.parametrize(
    "command",
    ["echo hi &&(id -u)", "echo hi |(cat)", "echo hi &(id -u)", "echo `id`", "echo $(id)", "echo hi\nid", "echo>x"],
)
async def test_an_allowed_command_does_not_bring_another_one_along(stage: Stage, kind: str, command: str) -> None:
    model = Asked([calls(("bash", {"command": command}), ("bash", {"command": "echo 'a & b'"})), "Done."])
    policy = {"shell": True, "allowed_commands": ["echo"]}

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent(sandbox=kind, policy=policy))).session()).prompt("Go")

    result_of(await stage.run(work))
    refused, allowed = results_told(model.requests[-1])
    assert refused[1]
    assert "Compound shell syntax is disabled" in refused[0]
    assert allowed == ("exit code: 0\nstdout:\na & b", False)


@promise("agents.secrets", "F38")
@pytest.mark.parametrize("kind", ["virtual", "local"])
async def test_a_secret_reaches_the_commands_of_its_call_and_nothing_else(tmp_path: Path, kind: str) -> None:
    stage = Stage(tmp_path)
    secrets = {
        "KEY": "s3cr3t-value",
        "LONGER": "s3cr3t-value-and-more",
        "ODD": 'quo"ted\\ü',
        "OTHER": "ungranted-value",
    }
    hidden = "[secret KEY] [secret LONGER] [secret ODD]"
    show = 'echo "$KEY $LONGER $ODD"; test "$KEY" = s3cr3t-value && echo yes'

    @tool
    def fail() -> None:
        """Fail."""
        raise ValueError(f"no access with {secrets['KEY']}")

    def answer(request: ModelRequest) -> Any:
        turn = sum(message.role == "assistant" for message in request.messages)
        command, env = f"echo {secrets['ODD']}", {"A": secrets["KEY"]}
        return [
            calls(("bash", {"command": show}), ("fail", {}), ("bash", {"command": command, "env": env})),
            f"The key is {secrets['KEY']}.",
            calls(("bash", {"command": "echo \"[$KEY$LONGER$ODD$OTHER]\""})),
            "Done.",
        ][turn]  # fmt: skip

    model = Asked(answer)
    agent = model.agent(sandbox=kind, policy={"shell": True}, env=secrets, tools=[fail])
    granted = ["KEY", "LONGER", "ODD"]

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(agent)
        session = await harness.session()
        reply = await session.prompt("With", secrets=granted)
        await session.prompt("Without")
        shown = await session.shell(f"{show}; echo {secrets['KEY']}", secrets=granted)
        mine = await harness.shell(show, secrets=granted)
        none = await harness.shell('echo "[$KEY$OTHER]"')
        return [reply.text, shown.stdout, mine.stdout, none.stdout]

    run = await stage.run(work)
    assert result_of(run) == [
        "The key is [secret KEY].", f"{hidden}\nyes\n[secret KEY]\n", f"{hidden}\nyes\n", "[]\n",
    ]  # fmt: skip
    told = results_told(model.requests[1])
    assert told[0] == (f"exit code: 0\nstdout:\n{hidden}\nyes", False)
    assert told[1] == ("no access with [secret KEY]", True)
    assert results_told(model.requests[3]) == [("exit code: 0\nstdout:\n[]", False)]
    starts = [told["arguments"] for told in await stage.told(run.run_id, "tool_start")]
    assert starts[2] == {"command": "echo [secret ODD]", "env": {"A": "[secret KEY]"}}
    events = str(await dense(stage.journal, run))
    await stage.close()
    for value in ("s3cr3t-value", "ungranted-value", "and-more"):
        assert value not in events


@promise("agents.secrets", "F38")
@pytest.mark.parametrize("kind", ["virtual", "local"])
async def test_twenty_secrets_that_are_granted_and_shown_are_found_nowhere_on_disk(tmp_path: Path, kind: str) -> None:
    stage = Stage(tmp_path)
    names = list(VALUES)

    @tool
    def fail() -> None:
        """Fail."""
        raise RuntimeError(" ".join(VALUES.values()))

    model = Asked([calls(("bash", {"command": "env; env >&2"}), ("fail", {})), " ".join(VALUES.values())])

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(sandbox=kind, policy={"shell": True}, env=VALUES, tools=[fail]))
        session = await harness.session()
        reply = await session.prompt("Go", secrets=names)
        shown = await session.shell(f"env; echo {VALUES['PLANTED_3']}", secrets=names)
        mine = await harness.shell("env", secrets=names)
        return [reply.text, shown.stdout, mine.stdout]

    run = await stage.run(work)
    result = str(result_of(run))
    assert all(f"[secret {name}]" in result for name in names)
    shown = str(await dense(stage.journal, run)) + str(await stage.conversation(run.run_id)) + str(model.messages)
    await stage.close()
    everything = (result + shown).encode() + on_disk(tmp_path)
    assert [name for name, value in VALUES.items() if value.encode() in everything] == []
