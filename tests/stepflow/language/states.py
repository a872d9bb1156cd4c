"""A run as expressions see it, made by hand; it notes what was looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyflue.stepflow.expressions import compile_expression
from pyflue.stepflow.outcome import Outcome, Success


class Watched(Mapping[str, Outcome]):
    """Finished steps; `seen` are those whose outcome was read."""

    def __init__(self, steps: Mapping[str, Outcome]) -> None:
        self.steps = dict(steps)
        self.seen: set[str] = set()

    def __getitem__(self, step_id: str) -> Outcome:
        self.seen.add(step_id)
        return self.steps[step_id]

    def __contains__(self, step_id: object) -> bool:
        return step_id in self.steps

    def __iter__(self) -> Iterator[str]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


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

    def variable(self, name: str) -> Success | None:
        return Success(self.variables[name]) if name in self.variables else None


def evaluate(value: Any, state: RunState | None = None, *, legacy: bool = False) -> Outcome:
    return compile_expression(value, legacy=legacy).evaluate(state or RunState())


def needs(value: Any, state: RunState, *, legacy: bool = False) -> set[str]:
    return set(compile_expression(value, legacy=legacy).needs(state))
