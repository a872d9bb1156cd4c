"""What model work costs, and when it has cost enough.

Each operation has a meter; above it stand that of its parent operation (for tasks), of its agent and of the run. What
is added to one counts for all above it. Turns that are replayed are added as well, so budgets hold over restarts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from .. import codec
from ..engine.calls import Calls
from ..errors import BudgetExceeded
from ..journal import Step, StepStatus
from .budget import Budget
from .content import Usage
from .conversation import keys_above

_NOTHING = Usage()

_current: ContextVar[Meter | None] = ContextVar("pyflue_meter", default=None)


class Meter:
    """Counts turns, tokens, cost and seconds of model work for one part of it."""

    __slots__ = (
        "_all_above",
        "_is_timed",
        "above",
        "budget",
        "priced_usd",
        "seconds",
        "turns",
        "under_way",
        "usage",
        "whose",
    )

    def __init__(self, whose: str, budget: Budget | None = None, *, above: Meter | None = None) -> None:
        #: What it counts for, in words, such as `the run`.
        self.whose = whose
        self.budget = budget
        self.above = above
        self._all_above: tuple[Meter, ...] = () if above is None else (above, *above._all_above)
        self._is_timed: bool = (budget is not None and budget.max_seconds is not None) or (
            above is not None and above._is_timed
        )
        self.turns = 0
        #: Turns that have begun and are not counted yet: of tasks side by side.
        self.under_way = 0
        self.seconds = 0.0
        self.usage = Usage()
        #: The cost of what has a price.
        self.priced_usd = 0.0

    def add(self, usage: Usage, *, turns: int = 1, seconds: float = 0.0) -> None:
        """Count some work, here and above."""
        for meter in self._chain():
            # Usage is a value: a meter that had none has this one.
            meter.usage = meter.usage + usage if meter.turns or meter.usage != _NOTHING else usage
            meter.turns += turns
            meter.seconds += seconds
            meter.priced_usd += usage.cost_usd or 0.0

    def asking(self) -> _Asking:
        """While inside, a turn is under way.

        Raises:
            BudgetExceeded: as `check`.
        """
        self.check()
        return _Asking(self._chain())

    @contextmanager
    def counting(self) -> Generator[None]:
        """While inside, what other sessions of the same agent do counts here, too."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def innermost(self) -> Meter:
        """The meter that work for this one counts for where it is asked for: a tool's, or this one."""
        current = _current.get()
        return current if current is not None and any(meter is self for meter in current._chain()) else self

    def check(self) -> None:
        """Return if there is something left for another turn.

        Raises:
            BudgetExceeded: with the budget that is used up.
        """
        for meter in self._chain():
            budget = meter.budget
            if budget is None:
                continue
            if budget.max_turns is not None and meter.turns + meter.under_way >= budget.max_turns:
                raise BudgetExceeded("max_turns", budget.max_turns, meter.turns + meter.under_way, meter.whose)
            if budget.max_tokens is not None and meter.usage.total_tokens >= budget.max_tokens:
                raise BudgetExceeded("max_tokens", budget.max_tokens, meter.usage.total_tokens, meter.whose)
            # What has no known price cannot be counted against a limit in money; what has one is, beside it.
            if budget.max_cost_usd is not None and meter.priced_usd >= budget.max_cost_usd:
                raise BudgetExceeded("max_cost_usd", budget.max_cost_usd, meter.priced_usd, meter.whose)
            if budget.max_seconds is not None and meter.seconds >= budget.max_seconds:
                raise BudgetExceeded("max_seconds", budget.max_seconds, meter.seconds, meter.whose)

    def seconds_left(self) -> float | None:
        """How long the next turn or tool call may take; None if there is no limit."""
        if not self._is_timed:
            return None
        return max(min(left for left, _ in self._timed()), 0.0)

    def out_of_time(self) -> BudgetExceeded:
        """What ends a turn or tool call that has taken as long as was left when it began."""
        _, meter = min(self._timed(), key=lambda timed: timed[0])
        limit = 0.0 if meter.budget is None or meter.budget.max_seconds is None else meter.budget.max_seconds
        return BudgetExceeded("max_seconds", limit, max(limit, meter.seconds), meter.whose)

    def _timed(self) -> list[tuple[float, Meter]]:
        return [
            (meter.budget.max_seconds - meter.seconds, meter)
            for meter in self._chain()
            if meter.budget is not None and meter.budget.max_seconds is not None
        ]

    def _chain(self) -> tuple[Meter, ...]:
        """This one and those above it. Not kept: a meter that held itself would only go with a collection."""
        return (self, *self._all_above)


class _Asking:
    """While inside, a turn is under way on each of these meters."""

    __slots__ = ("_meters",)

    def __init__(self, meters: tuple[Meter, ...]) -> None:
        self._meters = meters

    def __enter__(self) -> None:
        for meter in self._meters:
            meter.under_way += 1

    def __exit__(self, *error: object) -> None:
        for meter in self._meters:
            meter.under_way -= 1


class SkippedTurns:
    """Turns inside of steps and tools that only give back what they gave: not asked for again, but they count."""

    def __init__(self, calls: Calls) -> None:
        # Not the calls themselves: the room keeps this for as long as there are those.
        self._given = calls.given
        self._seen = 0
        self._below: dict[str, list[Step]] = defaultdict(list)
        for record in calls.left:
            if isinstance(record, Step) and record.kind == "turn" and record.status is StepStatus.COMPLETED:
                for key in keys_above(record.key):
                    self._below[key].append(record)

    def count(self, key: str, meter: Meter) -> None:
        """Count what is below a call that gave back what it gave."""
        for turn in self._below.pop(key, ()):
            value = codec.load(turn.value or codec.NULL)
            meter.add(Usage.from_dict(value["usage"]), seconds=value["seconds"])

    def count_steps(self, meter: Meter) -> None:
        """Count what is below the steps that have given back what they gave since this was last asked."""
        given = self._given
        if not self._below or self._seen == len(given):
            return
        for key in list(given)[self._seen :]:
            if given[key] == "step":
                self.count(key, meter)
        self._seen = len(given)
