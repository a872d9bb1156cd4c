"""Any program, stopped or killed after any commit and taken up again, ends as it would have ended undisturbed.

The programs and the machine they run on are those of the simulation; Hypothesis makes the programs, and shrinks the one
that fails.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.promises import promise
from tests.simulation.loop import burial
from tests.simulation.machine import Machine, Plan
from tests.simulation.programs import Operation
from tests.simulation.seeds import carry_out

_names = st.sampled_from(["work", "charge", "ship it", "über/all#1"])
_steps = st.builds(
    lambda name, failures, gives_up, takes_s: {
        "do": "step",
        "name": name,
        "failures": failures,
        "attempts": max(1, failures if gives_up else failures + 1),
        "pause_s": 0.01,
        "takes_s": takes_s,
    },
    _names,
    st.sampled_from([0, 0, 1, 2]),
    st.booleans(),
    st.sampled_from([0, 0.01]),
)
_waits = st.one_of(
    st.builds(lambda seconds: {"do": "sleep", "seconds": seconds}, st.sampled_from([0, 0.3, 2])),
    st.builds(lambda name: {"do": "signal", "name": name, "timeout_s": None}, st.sampled_from(["go", "stop"])),
    st.builds(lambda name: {"do": "approve", "name": name, "timeout_s": None}, _names),
)
_logs = st.builds(lambda text: {"do": "log", "text": text}, st.sampled_from(["one", "two"]))
_simple = st.one_of(_steps, _steps, _waits, _logs)


def _compound(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Operation]:
    program = st.lists(operations, min_size=1, max_size=3)
    return st.one_of(
        st.builds(
            lambda how, limit, branches: {
                "do": "branches", "how": how, "limit": limit, "plain_s": 0.02, "branches": branches
            },
            st.sampled_from(["gather", "group", "parallel", "map"]),
            st.sampled_from([None, 1, 2]),
            st.lists(program, min_size=2, max_size=3),
        ),
        st.builds(lambda name, inside: {"do": "nested", "name": name, "inside": inside}, _names, st.lists(_steps)),
        st.builds(lambda program: {"do": "call", "program": program, "timeout_s": None}, program),
        st.builds(lambda program: {"do": "start", "program": program, "shows_id": False}, program),
    )  # fmt: skip


_programs = st.lists(st.recursive(_simple, _compound, max_leaves=8), min_size=1, max_size=5)


def _story(machine: Machine) -> tuple[Any, ...]:
    """What a run came to, and what it did outside."""
    ((status, result),) = machine.disk.read(
        "SELECT status, result FROM runs WHERE run_id = ?", machine.outside.run_ids[0]
    )
    value = machine.value(machine.outside.run_ids[0], result)
    effects = {(key, effect.digest) for (_, key), done in machine.outside.effects.items() for effect in done}
    runs = machine.disk.read("SELECT count(*) FROM runs")
    logged = Counter(data for (data,) in machine.disk.read("SELECT data FROM events WHERE type = 'log'"))
    machine.disk.close()
    return status, value, effects, runs, logged


@given(
    program=_programs,
    stop_after=st.integers(min_value=1, max_value=60),
    stops_with_kill=st.booleans(),
    seed=st.integers(min_value=0, max_value=2**32),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def _stop_and_resume(program: list[Operation], stop_after: int, stops_with_kill: bool, seed: int) -> None:
    undisturbed = Plan(programs=[program], servers=1, is_calm=True)
    stopped = Plan(programs=[program], servers=1, is_calm=True, stop_after=stop_after, stops_with_kill=stops_with_kill)
    assert _story(carry_out(stopped, random.Random(seed))) == _story(carry_out(undisturbed, random.Random(seed)))


@promise("R3")
def test_a_run_stopped_after_any_commit_resumes_to_the_same_result_with_the_same_effects() -> None:
    with burial():
        _stop_and_resume()
