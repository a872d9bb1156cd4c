"""A run as expressions see it, made by hand; it notes what was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyflue.stepflow.expressions import Expression, compile_expression
from pyflue.stepflow.outcome import Outcome, Success


class Watched(dict[str, Outcome]):
    """Finished steps; `seen` are those whose outcome was read, `looks` says how often somebody has asked for any."""

    def __init__(self, steps: Mapping[str, Outcome]) -> None:
        super().__init__(steps)
        self.seen: set[str] = set()
        self.looks = 0

    def __getitem__(self, step_id: str) -> Outcome:
        self.seen.add(step_id)
        self.looks += 1
        return super().__getitem__(step_id)

    def get(self, step_id: str, default: Any = None) -> Any:
        try:
            return self[step_id]
        except KeyError:
            return default

    def __contains__(self, step_id: object) -> bool:
        self.looks += 1
        return super().__contains__(step_id)


class RunState:
    """What a run has so far."""

    def __init__(
        self,
        input_: Any = None,
        steps: Mapping[str, Outcome] | None = None,
        *,
        known: set[str] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self.input = input_
        self.steps: Watched = Watched(steps or {})
        self.known: set[str] = set(self.steps) | (known or set())
        self.variables = dict(variables or {})
        self.notes: dict[Expression, Any] = {}

    def variable(self, name: str) -> Success | None:
        return Success(self.variables[name]) if name in self.variables else None


def evaluate(value: Any, state: RunState | None = None, *, legacy: bool = False) -> Outcome:
    return compile_expression(value, legacy=legacy).evaluate(state or RunState())


def needs(value: Any, state: RunState, *, legacy: bool = False) -> set[str]:
    return set(compile_expression(value, legacy=legacy).needs(state))
