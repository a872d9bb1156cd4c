"""What runs, when, and what comes of it: sections 2 to 5 of the rules of flows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflue.stepflow.backoff import Backoff, BackoffKind
from pyflue.stepflow.failures import FlowStuck
from pyflue.stepflow.outcome import Failed, Skipped, Success
from pyflue.stepflow.plugins.port import ComponentFailed, ComponentSkipped
from tests.promises import promise

from .flows import Functions, run, run_items


def step(id_: str, component: str = "/echo", **fields: Any) -> dict[str, Any]:
    return {"id": id_, "component": component, **fields}


def fail(value: Any) -> Any:
    raise ComponentFailed("the disk is on fire")


async def test_a_step_that_nobody_needs_never_runs() -> None:
    functions = Functions()
    flow = {"steps": [step("a", input=1), step("b", input=2)], "output": {"$step": "a"}}

    assert await run(flow, functions=functions) == Success(1)
    assert functions.called == ["a"]


async def test_a_step_that_must_execute_runs_with_all_that_it_needs() -> None:
    functions = Functions()
    flow = {"steps": [step("a"), step("b", input={"$step": "a"}, mustExecute=True), step("c")], "output": "done"}

    assert await run(flow, functions=functions) == Success("done")
    assert functions.called == ["a", "b"]


async def test_a_failing_step_that_the_output_does_not_use_leaves_the_flow_successful() -> None:
    flow = {"steps": [step("a", "/fail", mustExecute=True)], "output": 1}

    assert await run(flow, functions=Functions(fail=fail)) == Success(1)


@pytest.mark.parametrize(
    ("asked", "called"), [(True, ["cond", "yes"]), (False, ["cond", "no"]), (None, ["cond", "no"])]
)
async def test_only_the_branch_that_is_taken_runs(asked: Any, called: list[str]) -> None:
    functions = Functions()
    flow = {
        "steps": [step("cond", input={"$input": None}), step("yes", input="y"), step("no", input="n")],
        "output": {"$if": {"$step": "cond"}, "then": {"$step": "yes"}, "else": {"$step": "no"}},
    }

    assert await run(flow, asked, functions) == Success("y" if asked else "n")
    assert functions.called == called


async def test_a_condition_that_failed_is_false() -> None:
    functions = Functions(fail=fail)
    flow = {
        "steps": [step("bad", "/fail"), step("a", input=1), step("b", input=2)],
        "output": {"$if": {"$step": "bad"}, "then": {"$step": "a"}, "else": {"$step": "b"}},
    }

    assert await run(flow, functions=functions) == Success(2)
    assert functions.called == ["bad", "b"]


async def test_coalesce_goes_on_until_something_is_there() -> None:
    functions = Functions()
    flow = {
        "steps": [step("a", input=None), step("b", input=7), step("c", input=8)],
        "output": {"$coalesce": [{"$step": "a"}, {"$step": "b"}, {"$step": "c"}]},
    }

    assert await run(flow, functions=functions) == Success(7)
    assert functions.called == ["a", "b"]


async def test_steps_may_refer_to_later_ones() -> None:
    flow = {"steps": [step("a", input={"$step": "b"}), step("b", input=3)], "output": {"$step": "a"}}

    assert await run(flow) == Success(3)


async def test_steps_that_wait_for_one_another_end_the_run() -> None:
    flow = {
        "steps": [step("a", input={"$step": "b"}), step("b", input={"$step": "a"}), step("c")],
        "output": [{"$step": "a"}, {"$step": "c"}],
    }

    with pytest.raises(FlowStuck, match="'a', 'b' wait for one another"):
        await run(flow)


async def test_a_step_whose_input_failed_fails_with_the_same_error_and_its_own_on_error_is_not_asked() -> None:
    functions = Functions(fail=fail)
    flow = {
        "steps": [
            step("a", "/fail"),
            step("b", input={"$step": "a"}, onError={"action": "useDefault", "defaultValue": 1}),
        ],
        "output": {"$step": "b"},
    }

    outcome = await run(flow, functions=functions)

    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.message) == (500, 'step "a" failed: the disk is on fire')
    assert functions.called == ["a"]


async def test_the_stack_of_a_failure_names_the_layers() -> None:
    outcome = await run({"steps": [step("a", "/fail")], "output": {"$step": "a"}}, functions=Functions(fail=fail))

    assert outcome == Failed(
        500,
        'step "a" failed: the disk is on fire',
        {
            "stack": [
                {
                    "error": 'step "a" failed',
                    "attachments": ["Component: /fail", "Component execution failed for step 'a'"],
                },
                {"error": "the disk is on fire"},
            ]
        },
    )


async def test_a_step_without_a_route_fails_whatever_its_on_error_says() -> None:
    flow = {
        "steps": [step("a", "/nowhere", onError={"action": "useDefault", "defaultValue": 1})],
        "output": {"$step": "a"},
    }

    outcome = await run(flow)

    assert isinstance(outcome, Failed)
    assert outcome.message == "error routing component: no route for /nowhere"
    assert outcome.data["stack"][0]["attachments"][0] == "Internal error executing step 'a'"


@pytest.mark.parametrize(("default", "value"), [({"defaultValue": {"$step": "x"}}, {"$step": "x"}), ({}, None)])
async def test_a_default_takes_the_place_of_a_failure_and_is_never_evaluated(default: Any, value: Any) -> None:
    flow = {
        "steps": [step("a", "/fail", onError={"action": "useDefault", **default})],
        "output": {"$step": "a"},
    }

    assert await run(flow, functions=Functions(fail=fail)) == Success(value)


async def test_steps_that_can_be_done_at_once_are_done_at_once_up_to_the_limit() -> None:
    arrived = asyncio.Event()
    waiting = 0

    async def meet(value: Any) -> Any:
        nonlocal waiting
        waiting += 1
        if waiting == 3:
            arrived.set()
        await arrived.wait()
        return value

    functions = Functions(meet=meet)
    steps = [step(f"s{i}", "/meet", input=i) for i in range(9)]
    flow = {"steps": steps, "output": [{"$step": one["id"]} for one in steps]}

    assert await run(flow, functions=functions, max_concurrency=3) == Success(list(range(9)))
    assert functions.most == 3


async def test_early_items_of_a_batch_are_finished_first() -> None:
    functions = Functions()
    flow = {
        "steps": [step("a", input={"$input": None}), step("b", input={"$step": "a"})],
        "output": {"$step": "b"},
    }

    assert await run_items(flow, [1, 2, 3], functions, max_concurrency=1) == [Success(1), Success(2), Success(3)]
    assert functions.called == ["a", "b"] * 3


async def test_five_hundred_steps_that_meet_in_one_run_it_once() -> None:
    functions = Functions(count=len)
    steps = [step(f"s{i}", input=i) for i in range(500)]
    meet = step("meet", "/count", input=[{"$step": one["id"]} for one in steps])

    assert await run({"steps": [*steps, meet], "output": {"$step": "meet"}}, functions=functions) == Success(500)
    assert functions.called.count("meet") == 1


async def test_a_chain_of_ten_thousand_steps_runs() -> None:
    steps = [step("s0", input=0), *(step(f"s{i}", input={"$step": f"s{i - 1}"}) for i in range(1, 10_000))]

    assert await run({"steps": steps, "output": {"$step": "s9999"}}) == Success(0)


async def test_cancelling_a_flow_cancels_its_components() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang(value: Any) -> Any:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    flow = {"steps": [step("a", "/hang"), step("b", "/hang")], "output": [{"$step": "a"}, {"$step": "b"}]}
    task = asyncio.ensure_future(run(flow, functions=Functions(hang=hang)))
    await began.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_ten_steps_of_a_run_are_in_flight_if_nobody_says_anything_else() -> None:
    arrived = asyncio.Event()
    waiting = 0

    async def meet(value: Any) -> Any:
        nonlocal waiting
        waiting += 1
        if waiting == 10:
            arrived.set()
        await arrived.wait()
        return value

    functions = Functions(meet=meet)
    flow = {
        "steps": [step("a", "/meet", input={"$input": None}), step("b", "/meet", input={"$input": None})],
        "output": [{"$step": "a"}, {"$step": "b"}],
    }

    assert await run_items(flow, list(range(15)), functions) == [Success([n, n]) for n in range(15)]
    assert functions.most == 10  # over all items


async def test_the_items_of_a_map_run_at_once_unless_it_has_a_limit() -> None:
    def waiting_for(others: asyncio.Barrier) -> Functions:
        async def one(value: Any) -> Any:
            async with asyncio.timeout(5):
                await others.wait()
            return value

        return Functions(one=one)

    inner = {"steps": [step("one", "/one", input={"$input": None})], "output": {"$step": "one"}}
    given = {"workflow": {"$literal": inner}, "items": list(range(39))}
    most: list[int] = []
    for more, at_once in (({}, 39), ({"max_concurrency": 3}, 3)):
        functions = waiting_for(asyncio.Barrier(at_once))
        flow = {
            "steps": [step("m", "/builtin/map", input={**given, **more})],
            "output": {"$step": "m", "path": "failed"},
        }
        assert await run(flow, functions=functions) == Success(0)
        most.append(functions.most)

    assert most == [39, 3]


async def test_a_step_that_fails_is_tried_three_times_more_and_the_last_error_stands() -> None:
    def refuse(value: Any, call: Any) -> Any:
        raise ComponentFailed(f"no, for the {call.attempt}. time")

    functions = Functions(refuse=refuse)
    flow = {"steps": [step("a", "/refuse", onError={"action": "retry"})], "output": {"$step": "a"}}

    outcome = await run(flow, functions=functions, backoff=Backoff(kind=BackoffKind.CONSTANT, min_delay_s=0))

    assert isinstance(outcome, Failed)
    assert outcome.message == 'step "a" failed: no, for the 4. time'
    assert functions.attempts == [1, 2, 3, 4]


async def test_attempts_are_counted_on_where_a_plugin_has_called_once_more_by_itself() -> None:
    def refuse(value: Any, call: Any) -> Any:
        if call.attempt == 1:
            call.services.begin_again()
        raise ComponentFailed("no")

    functions = Functions(refuse=refuse)
    on_error = {"action": "retry", "maxRetries": 2}
    flow = {"steps": [step("a", "/refuse", onError=on_error)], "output": {"$step": "a"}}
    await run(flow, functions=functions, backoff=Backoff(kind=BackoffKind.CONSTANT, min_delay_s=0))
    assert functions.attempts == [1, 3, 4]


@pytest.mark.parametrize(
    ("kind", "pauses"),
    [
        (BackoffKind.FIBONACCI, [1, 1, 2, 3, 5, 8, 10, 10]),
        (BackoffKind.EXPONENTIAL, [1, 2, 4, 8, 10, 10, 10, 10]),
        (BackoffKind.CONSTANT, [1] * 8),
    ],
)
def test_pauses_grow_up_to_their_limit(kind: BackoffKind, pauses: list[int]) -> None:
    assert [Backoff(kind=kind).delay_s(failed) for failed in range(1, 9)] == pauses
    assert Backoff(kind=kind).delay_s(10_000) == pauses[-1]


@pytest.mark.parametrize(
    ("given", "schema", "expected"),
    [({"v": 1}, {"default": 2}, 1), ({}, {"default": 2}, 2), ({}, None, 3)],
    ids=["supplied", "schema", "inline"],
)
async def test_a_variable_is_what_was_supplied_then_the_schema_default_then_the_inline_one(
    given: Any, schema: Any, expected: int
) -> None:
    flow: dict[str, Any] = {"steps": [], "output": {"$variable": "v", "default": 3}}
    if schema is not None:
        flow["schemas"] = {"properties": {"variables": {"type": "object", "properties": {"v": schema}}}}

    assert await run(flow, variables=given) == Success(expected)


# Older documents


async def test_a_skipped_step_skips_those_that_need_it() -> None:
    functions = Functions()
    flow = {
        "steps": [step("a", skipIf={"$input": "off"}), step("b", input={"$step": "a"})],
        "output": {"$step": "b"},
    }

    assert isinstance(await run(flow, {"off": True}, functions), Skipped)
    assert functions.called == []


async def test_the_input_of_a_skipped_step_is_not_needed() -> None:
    functions = Functions()
    flow = {
        "steps": [step("a"), step("b", input={"$step": "a"}, skipIf=True)],
        "output": {"$from": {"step": "b"}, "onSkip": {"action": "useDefault", "defaultValue": 5}},
    }

    assert await run(flow, functions=functions) == Success(5)
    assert functions.called == []


async def test_on_error_skip_turns_a_failure_into_a_skip() -> None:
    flow = {"steps": [step("a", "/fail", onError={"action": "skip"})], "output": {"$step": "a"}}

    assert isinstance(await run(flow, functions=Functions(fail=fail)), Skipped)


async def test_a_component_may_say_that_there_is_nothing_to_do() -> None:
    def skip(value: Any) -> Any:
        raise ComponentSkipped("no mail")

    flow = {"steps": [step("a", "/skip", skipIf=False)], "output": {"$step": "a"}}

    assert isinstance(await run(flow, functions=Functions(skip=skip)), Skipped)


@pytest.mark.parametrize(("skips", "expected"), [(True, Success(1)), (False, Failed)])
async def test_in_older_documents_a_step_that_must_execute_fails_the_flow(skips: bool, expected: Any) -> None:
    flow = {"steps": [step("a", "/fail", mustExecute=True, skipIf=skips)], "output": 1}

    outcome = await run(flow, functions=Functions(fail=fail))

    assert outcome == expected if isinstance(expected, Success) else isinstance(outcome, Failed)


async def test_in_older_documents_the_code_is_the_one_that_the_component_gave() -> None:
    def refuse(value: Any) -> Any:
        raise ComponentFailed("no", failure=Failed(418, "teapot"))

    flow = {"steps": [step("a", "/refuse", mustExecute=True, skipIf=False)], "output": 1}

    assert await run(flow, functions=Functions(refuse=refuse)) == Failed(418, "teapot")


# Whatever the flow


@st.composite
def flows(draw: st.DrawFn) -> dict[str, Any]:
    """Flows whose steps refer to earlier ones, with branches, and components that fail or give null."""
    count = draw(st.integers(1, 8))

    def expression(upto: int, depth: int = 0) -> st.SearchStrategy[Any]:
        leaves: list[st.SearchStrategy[Any]] = [st.sampled_from([None, False, 0, "x"]), st.just({"$input": "flag"})]
        if upto:
            leaves.append(st.integers(0, upto - 1).map(lambda number: {"$step": f"s{number}"}))
        if depth == 2:
            return st.one_of(leaves)
        inner = st.deferred(lambda: expression(upto, depth + 1))
        return st.one_of(
            *leaves,
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(lambda entries: {"$coalesce": entries}),
            st.tuples(inner, inner, inner).map(lambda t: {"$if": t[0], "then": t[1], "else": t[2]}),
        )

    steps = [
        step(
            f"s{number}",
            draw(st.sampled_from(["/echo", "/echo", "/nothing", "/fail"])),
            input=draw(expression(number)),
            mustExecute=draw(st.booleans()) and draw(st.booleans()),
        )
        for number in range(count)
    ]
    return {"steps": steps, "output": draw(expression(count))}


def reference(flow: dict[str, Any], given_: Any) -> tuple[Any, set[str]]:
    """The same by recursion: what the flow comes to (a value, or `FAILED`), and the steps that ran."""
    failed = object()
    by_id = {one["id"]: one for one in flow["steps"]}
    known: dict[str, Any] = {}
    ran: set[str] = set()

    def value_of(id_: str) -> Any:
        if id_ not in known:
            given = evaluate(by_id[id_]["input"])
            if given is failed:
                known[id_] = failed
            else:
                ran.add(id_)
                component = by_id[id_]["component"]
                known[id_] = {"/echo": given, "/nothing": None, "/fail": failed}[component]
        return known[id_]

    def evaluate(expression: Any) -> Any:
        if isinstance(expression, list):
            values = [evaluate(one) for one in expression]
            return failed if any(value is failed for value in values) else values
        if not isinstance(expression, dict):
            return expression
        if "$step" in expression:
            return value_of(expression["$step"])
        if "$input" in expression:
            return given_["flag"]
        if "$if" in expression:
            condition = evaluate(expression["$if"])
            is_true = condition is not failed and condition is not None and condition is not False
            return evaluate(expression["then" if is_true else "else"])
        for one in expression["$coalesce"]:
            value = evaluate(one)
            if value is not None:
                return value
        return None

    output = evaluate(flow["output"])
    for one in flow["steps"]:
        if one["mustExecute"]:
            value_of(one["id"])
    return "FAILED" if output is failed else output, ran


@promise("stepflow.lazy")
@settings(max_examples=300, deadline=None)
@given(flow=flows(), flag=st.sampled_from([True, False, None, 1]), limit=st.integers(1, 4))
def test_exactly_the_needed_steps_run_each_once(flow: dict[str, Any], flag: Any, limit: int) -> None:
    functions = Functions(fail=fail, nothing=lambda value: None)

    outcome = asyncio.run(run(flow, {"flag": flag}, functions, max_concurrency=limit))

    expected, ran = reference(flow, {"flag": flag})
    assert (outcome.value if isinstance(outcome, Success) else "FAILED") == expected
    assert sorted(functions.called) == sorted(ran)
