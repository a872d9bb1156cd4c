"""Commands that the workflow runs in an agent's sandbox: `harness.shell`, and `session.shell`, which tells the model.

The workflow's own commands are not under the agent's policy, which is for what a *model* may do.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..clock import to_ms
from ..engine.calls import Calls
from ..engine.context import check_seconds
from ..journal import EventType
from .sandboxes.port import CommandResult
from .workspace import Workspace


class _Told(Protocol):
    """Whose command it is."""

    @property
    def calls(self) -> Calls: ...

    @property
    def about(self) -> Mapping[str, Any]:
        """What each of its events says."""
        ...

    def redact(self, text: str) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRun:
    """A command to run."""

    command: str | Sequence[str]
    timeout_s: float
    cwd: str | None
    env: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(
        cls, command: str | Sequence[str], *, timeout_s: float, cwd: str | None, env: Mapping[str, str]
    ) -> CommandRun:
        """Raises ValueError if there is nothing to run, or no such time."""
        check_seconds("timeout_s", timeout_s)
        if not command:
            raise ValueError("There is no command to run.")
        return cls(command=command, timeout_s=timeout_s, cwd=cwd, env=env)

    @property
    def shown(self) -> str:
        return self.command if isinstance(self.command, str) else shlex.join(self.command)

    async def execute(self, whose: _Told, workspace: Workspace) -> CommandResult:
        """Run it, with its events. The workspace is the caller's meanwhile (`changing`)."""
        calls = whose.calls
        shown = whose.redact(self.shown)
        sandbox = await workspace.sandbox()
        began = calls.clock.monotonic()
        calls.announce(EventType.COMMAND_START, {**whose.about, "command": shown, "sandbox": sandbox.kind})
        result = await sandbox.exec(self.command, timeout_s=self.timeout_s, cwd=self.cwd, env=self.env)
        result = CommandResult(
            stdout=whose.redact(result.stdout),
            stderr=whose.redact(result.stderr),
            exit_code=result.exit_code,
            is_truncated=result.is_truncated,
            is_timed_out=result.is_timed_out,
        )
        calls.tell(
            EventType.COMMAND_END,
            {
                **whose.about,
                "command": shown,
                "exit_code": result.exit_code,
                "is_timed_out": result.is_timed_out,
                "duration_ms": to_ms(calls.clock.monotonic() - began),
            },
        )
        return result

    def told(self, result: CommandResult) -> str:
        """What the model is told of it."""
        parts = [f"I ran this command:\n{self.shown}\nIt ended with exit code {result.exit_code}."]
        if result.stdout:
            parts.append(f"stdout:\n{result.stdout}")
        if result.stderr:
            parts.append(f"stderr:\n{result.stderr}")
        return "\n".join(parts)
