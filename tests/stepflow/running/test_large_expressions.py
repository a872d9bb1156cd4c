"""Outputs with so many parts that not all of them are looked at again after each step."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pyflue.stepflow.outcome import Success

from .flows import Functions, run
from .test_scheduler import fail, flows, reference


@st.composite
def large_flows(draw: st.DrawFn) -> dict[str, Any]:
    """A flow whose output asks about its steps over and over."""
    flow = draw(flows())
    steps = st.sampled_from([{"$step": one["id"]} for one in flow["steps"]])
    branch = st.tuples(steps, steps, steps).map(
        lambda one: {"$if": one[0], "then": one[1], "else": {"$coalesce": [one[2], None]}}
    )
    parts = draw(st.lists(branch, min_size=17, max_size=24))
    return {**flow, "output": draw(st.sampled_from([parts, {"$coalesce": parts}, [parts, flow["output"]]]))}


@settings(max_examples=150, deadline=None)
@given(flow=large_flows(), limit=st.integers(1, 4))
def test_exactly_the_steps_that_a_large_output_needs_run_each_once(flow: dict[str, Any], limit: int) -> None:
    functions = Functions(fail=fail, nothing=lambda value: None)
    outcome = asyncio.run(run(flow, {"flag": True}, functions, max_concurrency=limit))

    expected, ran = reference(flow, {"flag": True})
    assert (outcome.value if isinstance(outcome, Success) else "FAILED") == expected
    assert sorted(functions.called) == sorted(ran)


async def test_two_thousand_branches_over_as_many_steps_take_no_time() -> None:
    numbers = range(2000)
    steps = [{"id": f"s{number}", "component": "/echo", "input": number} for number in numbers]
    output = [{"$if": {"$step": f"s{number}"}, "then": {"$step": f"s{number}"}} for number in numbers]

    assert await run({"steps": steps, "output": output}) == Success([*numbers])
