"""The functions and objects of `pyflue.flowgram`, as users of flowgram-runtime know them."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import weakref
from typing import Any

import pytest

import pyflue.flowgram as fg
from pyflue.flowgram import library
from tests.promises import promise

from .graphs import Json, Log, const, end, fields, graph, log_node, messages, node, ref, start, statuses

ECHO = graph([start(msg="string"), end({"echo": ref("start", "msg")}, echo="string")], "start -> end")


@pytest.mark.parametrize(
    "form", [lambda g: g, json.dumps, lambda g: json.dumps(g).encode(), fg.WorkflowSchema.model_validate]
)
async def test_a_schema_may_be_a_dict_json_text_or_a_model(form: Any) -> None:
    assert await fg.run(form(ECHO), inputs={"msg": "hello"}) == {"echo": "hello"}


async def test_a_task_tells_its_status_and_its_report() -> None:
    task = fg.start(ECHO, inputs={"msg": "hello"})
    assert (task.status, task.done(), task.result()) == (fg.WorkflowStatus.Processing, False, None)
    assert await task.wait(timeout=10) == {"echo": "hello"}
    assert (task.status, task.done(), task.result()) == (fg.WorkflowStatus.Succeeded, True, {"echo": "hello"})
    assert task.cancel()
    report = task.report()
    assert list(report.reports) == ["start", "end"]
    assert report.reports["end"].snapshots[0].inputs == {"echo": "hello"}
    assert report.workflowStatus.model_dump().keys() == {"status", "terminated", "startTime", "endTime", "timeCost"}
    assert (report.id, report.workflowStatus.status, report.workflowStatus.terminated) == (task.id, "succeeded", True)
    assert (report.inputs, report.outputs, report.messages) == ({"msg": "hello"}, {"echo": "hello"}, [])


def test_from_code_that_is_not_async() -> None:
    assert fg.run_sync(ECHO, inputs={"msg": "hi"}) == {"echo": "hi"}
    with pytest.raises(RuntimeError, match="no running event loop"):
        fg.start(ECHO)


async def test_run_sync_refuses_to_run_inside_of_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match=r"run_sync\(\) must not be called from inside a running event loop"):
        fg.run_sync(ECHO)


async def test_a_timeout_ends_the_run(log: Log) -> None:
    log.release["a"] = asyncio.Event()
    made = graph([start(), log_node("a"), end()], "start -> a -> end")
    with pytest.raises(TimeoutError):
        await fg.run(made, {}, timeout=0.02)
    assert log.cancelled == ["a"]
    task = fg.start(made, {})
    with pytest.raises(TimeoutError):
        await task.wait(timeout=0.02)
    assert not task.done()
    task.cancel()
    with pytest.raises(fg.GraphCancelled):
        await task.wait()


async def test_failures_are_raised_unless_they_are_not_wanted(log: Log) -> None:
    log.failures_left["a"] = 10
    made = graph([start(), log_node("a"), end()], "start -> a -> end")
    with pytest.raises(fg.NodeFailed):
        await fg.run(made, {})
    assert await fg.run(made, {}, raise_on_failure=False) == {}
    task = fg.start(made, {})
    assert await task.wait(raise_on_failure=False) == {}
    assert task.result() == {}


async def test_invalid_graphs_and_inputs_end_at_once_with_messages(log: Log) -> None:
    made = graph([start(msg="string"), log_node("a"), end()], "start -> a -> end")
    with pytest.raises(fg.GraphInvalid) as invalid:
        await fg.run(made, {"msg": 3})
    assert invalid.value.errors == ["JSON Schema validation failed: 3 is not of type 'string' (at msg)"]
    task = fg.start(made, {"msg": 3})
    assert (task.status, task.result()) == (fg.WorkflowStatus.Failed, {})
    assert messages(task) == [(None, invalid.value.errors[0])]
    assert await task.wait(raise_on_failure=False) == {}
    with pytest.raises(fg.GraphInvalid):
        await task.wait()
    assert log.seen == []


async def test_a_node_of_a_users_own() -> None:
    class Sentiment(fg.INodeExecutor):
        type = "sentiment"

        async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
            assert (ctx.node.id, ctx.node.type, ctx.node.name) == ("n", "sentiment", "Mood")
            assert [other.id for other in (*ctx.node.prev, *ctx.node.next)] == ["start", "end"]
            return fg.ExecutionResult(outputs={"score": len(ctx.inputs.get("text", "")) / 4})

    made = graph(
        [
            start(msg="string"),
            node(
                "n",
                "sentiment",
                title="Mood",
                inputs=fields(text="string"),
                inputsValues={"text": ref("start", "msg")},
                outputs=fields(score="number"),
            ),
            end({"score": ref("n", "score")}, score="number"),
        ],
        "start -> n -> end",
    )
    assert not fg.validate(made).valid
    fg.register_executor(Sentiment())
    assert await fg.run(made, {"msg": "good"}) == {"score": 1.0}
    fg.reset()
    assert not fg.validate(made).valid


async def test_executors_may_replace_ours_and_give_back_dicts() -> None:
    class Shout:
        type = "end"

        async def execute(self, ctx: fg.ExecutionContext) -> Any:
            return {"v": 1}

    class Wrong:
        type = "wrong"

        async def execute(self, ctx: fg.ExecutionContext) -> Any:
            return 5

    fg.register_executor(Shout())
    fg.register_executor(Wrong())
    task = fg.start(ECHO, {"msg": "x"})
    await task.wait()
    assert task.report().reports["end"].snapshots[0].outputs == {"v": 1}
    with pytest.raises(fg.NodeFailed, match="The executor of 'wrong' returned int, not ExecutionResult"):
        await fg.run(graph([start(), node("w", "wrong"), end()], "start -> w -> end"), {})
    with pytest.raises(TypeError, match="is no executor"):
        fg.register_executor(object())


async def test_the_application_knows_runs_by_their_ids() -> None:
    app = fg.WorkflowApplication.instance()
    assert app is fg.WorkflowApplication.instance()
    task_id = app.run(fg.InvokeParams(schema=fg.WorkflowSchema.model_validate(ECHO), inputs={"msg": "a"}))
    assert app.result(task_id) is None
    assert await app.tasks[task_id].processing == {"echo": "a"}
    assert app.result(task_id) == {"echo": "a"}
    report = app.report(task_id)
    assert report is not None
    assert report.id == task_id
    assert (app.cancel(task_id), app.cancel("nobody"), app.report("nobody"), app.result("nobody")) == (
        True,
        False,
        None,
        None,
    )
    assert app.validate({"schema": ECHO}).valid
    app.container.get("Executor").register(Log())
    assert await fg.run(graph([start(), log_node("a"), end()], "start -> a -> end"), {}) == {}


async def test_the_application_forgets_the_oldest_finished_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "FINISHED_KEPT", 3)
    app = fg.WorkflowApplication.instance()
    ids: list[str] = []
    for _ in range(8):
        ids.append(app.run({"schema": ECHO, "inputs": {"msg": "x"}}))
        await app.tasks[ids[-1]].wait()
    app.run({"schema": ECHO})
    assert set(ids) & set(app.tasks) == set(ids[-3:])


@promise("flowgram.memory")
async def test_nothing_is_kept_of_a_finished_run() -> None:
    task = fg.start(ECHO, {"msg": "x" * 10})
    await task.wait()
    gone = weakref.ref(task)
    del task
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert gone() is None


async def test_reports_show_runs_that_go_on(log: Log) -> None:
    log.release["a"] = asyncio.Event()
    task = fg.start(graph([start(), log_node("a"), end()], "start -> a -> end"), {})
    async with asyncio.timeout(5):
        while "a" not in log.started:
            await asyncio.sleep(0)
    assert statuses(task) == {"start": "succeeded", "a": "processing"}
    assert task.report().workflowStatus.endTime is None
    log.release["a"].set()
    await task.wait()


async def test_secrets_are_masked_in_reports_wherever_they_turn_up(log: Log) -> None:
    secret = "sk-planted-1234567"
    data: Json = {
        "inputs": fields(apiKey="string", text="string"),
        "inputsValues": {"apiKey": ref("start", "apiKey"), "text": const(f"has {secret}")},
    }
    data |= {
        "headersValues": {"Authorization": const("Bearer second-secret")},
        "gives": {"v": f"echo {secret}"},
        "outputs": fields(v="string"),
    }
    made = graph(
        [start(apiKey="string"), log_node("a", **data), end({"v": ref("a", "v")}, v="string")], "start -> a -> end"
    )
    task = fg.start(made, {"apiKey": secret})
    assert await task.wait() == {"v": f"echo {secret}"}
    shown = task.report().model_dump_json()
    assert secret not in shown
    assert "second-secret" not in shown
    assert task.report().inputs == {"apiKey": "***"}
    assert task.report().reports["a"].snapshots[0].inputs == {"apiKey": "***", "text": "has ***"}
    assert log.inputs == [{"apiKey": secret, "text": f"has {secret}"}]


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, pyflue.flowgram as fg\n"
        "heavy = {'pydantic', 'starlette', 'httpx2', 'openai', 'anthropic', 'pydantic_monty', 'jsonschema'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'pyflue.agents' not in sys.modules\n"
        f"assert fg.run_sync({ECHO!r}, {{'msg': 'x'}}) == {{'echo': 'x'}}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_names_can_be_imported() -> None:
    for name in fg.__all__:
        assert getattr(fg, name) is not None
    assert sorted(fg.__all__) == fg.__dir__()
    with pytest.raises(AttributeError):
        _ = fg.no_such_name
