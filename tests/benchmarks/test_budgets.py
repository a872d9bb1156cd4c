"""Verdicts on the figures: a budget is met, missed, or left open because its figures are not there."""

from __future__ import annotations

from benchmarks.budgets import BUDGETS, judge

_STEPS = "three_steps.ours.per_second"
_DBOS = "three_steps.dbos.per_second"


def verdicts(figures: dict[str, float]) -> list[tuple[float | None, bool | None]]:
    """Value and verdict of each budget that was measured."""
    return [(one.value, one.met) for one in judge(figures) if one.met is not None]


def test_a_figure_that_was_not_measured_leaves_its_budgets_open() -> None:
    judged = judge({})

    assert [verdict.budget for verdict in judged] == list(BUDGETS)
    assert {verdict.met for verdict in judged} == {None}


def test_a_figure_and_a_ratio_are_judged_by_their_bounds() -> None:
    assert verdicts({_STEPS: 3000}) == [(3000, True)]
    assert verdicts({_STEPS: 2999, _DBOS: 100}) == [(2999, False), (29.99, True)]
    assert verdicts({_STEPS: 4000, _DBOS: 400}) == [(4000, True), (10, False)]


def test_an_upper_bound_is_met_up_to_itself() -> None:
    assert verdicts({"waiting.bytes_each": 20_000}) == [(20_000, True)]
    assert verdicts({"waiting.bytes_each": 20_001}) == [(20_001, False)]
