"""Budgets: how much model work an operation, an agent or a run may do. The counting is elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import checking


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of model work; None is no limit. All are counted over subagents and restarts."""

    #: Model calls.
    max_turns: int | None = None
    #: Tokens of input and output together.
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    #: Seconds from the start of the operation.
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in ("max_turns", "max_tokens"):
            if getattr(self, field) is not None:
                checking.whole("Budget", field, getattr(self, field), least=1)
        for field in ("max_cost_usd", "max_seconds"):
            if getattr(self, field) is not None:
                checking.number("Budget", field, getattr(self, field))

    @classmethod
    def of(cls, value: Budget | Mapping[str, Any] | None, what: str) -> Budget:
        """A budget as authors write one; `what` says whose it is.

        Raises:
            AgentInvalid: naming the field.
        """
        if value is None:
            return cls()
        if isinstance(value, Budget):
            return value
        fields = checking.mapping(what, "budget", value)
        checking.refuse_unknown(what, "budget", fields, [field.name for field in dataclasses.fields(cls)])
        return cls(**fields)
