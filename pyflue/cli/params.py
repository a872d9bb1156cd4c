"""Parameters that several commands have: durations, names and ids that complete, JSON, `--json`, `--server`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from .. import codec
from ..errors import InvalidJson, PyFlueError, RunNotFound

F = TypeVar("F", bound=Callable[..., Any])

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
#: How deep a value may be is decided by whoever takes it.
_ANY_DEPTH = sys.getrecursionlimit()
_DURATION = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> float:
    """Seconds from `90`, `10m`, `1h30m`, `30d` or `250ms`.

    Raises:
        ValueError: it is none of these, or zero.
    """
    text = text.strip()
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(text))
    elif re.fullmatch(r"\d+(?:\.\d+)?", text):
        seconds = float(text)
    else:
        raise ValueError(text)
    if not 0 < seconds < 1e10:
        raise ValueError(text)
    return seconds


class Duration(click.ParamType[float]):
    """A length of time, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a length of time; write 90, 10m, 1h30m or 30d.", param, ctx)


class Words(click.ParamType[tuple[str, ...]]):
    """A comma-separated list."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value  # pyright: ignore[reportUnknownVariableType]  (the default, already converted)
        return tuple(word.strip() for word in str(value).split(",") if word.strip())


class Tags(Words):
    """A run's tags, separated by commas."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        words = super().convert(value, param, ctx)
        if not words:
            return words
        from ..client.tags import checked_tags

        return checked_tags(words)


class WorkflowName(click.ParamType[str]):
    """A workflow's name; completes from the files, without importing them."""

    name = "workflow"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        from .project import project_root

        try:
            from ..workflows import Catalog

            names = Catalog(project_root(ctx)).names()
        except PyFlueError:  # completion has nowhere to say what is wrong
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class AgentName(click.ParamType[str]):
    """An agent's name; completes from the files, without importing them."""

    name = "agent"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        from .project import agent_names

        try:
            names = agent_names(ctx)
        except PyFlueError:  # completion has nowhere to say what is wrong
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class RunId(click.ParamType[str]):
    """A run's id; completes from the recent runs in the journal."""

    name = "run"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from ..ids import is_interaction

        if is_interaction(str(value)):
            # To the engine a prompt to an agent is a run; here it is none.
            error = RunNotFound(str(value))
            error.hint = "It is a prompt to an agent: `pyflue agents events` shows what became of it."
            raise error
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        from .project import recent_runs

        try:
            runs = recent_runs(ctx)
        except PyFlueError:  # completion has nowhere to say what is wrong
            return []
        return [CompletionItem(run_id, help=status) for run_id, status in runs if run_id.startswith(incomplete)]


class AnyRunId(RunId):
    """As `RunId`, where a prompt to an agent is as good as a run."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)


class ApprovalId(click.ParamType[str]):
    """An approval's id; completes from the open ones in the journal."""

    name = "approval"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        from .project import open_approvals

        try:
            approvals = open_approvals(ctx)
        except PyFlueError:  # completion has nowhere to say what is wrong
            return []
        return [CompletionItem(found, help=what) for found, what in approvals if found.startswith(incomplete)]


def json_option(function: F) -> F:
    """Adds `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")(function)


def server_option(function: F) -> F:
    """Adds `--server`."""
    return click.option(
        "--server", metavar="URL", help="Ask the server at this address instead (token: PYFLUE_TOKEN or server.token)."
    )(function)


def read_value(text: str, option: str) -> bytes:
    """The bytes of a value: the text itself, a file's after `@`, or stdin's for `-`."""
    if text == "-":
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  (closed: `<&-`)
            raise click.BadParameter("stdin is closed.", param_hint=f"'{option}'")
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode(errors="surrogateescape")
    path = Path(text[1:])
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}.", param_hint=f"'{option}'") from error


def decode_value(data: bytes, option: str, what: str, *, max_depth: int = _ANY_DEPTH) -> Any:
    """The JSON value that an option's bytes are; `what` names it in errors.

    Raises:
        InvalidJson, TooDeep
    """
    try:
        return codec.decode(data, what, max_depth=max_depth)
    except InvalidJson as error:
        if type(error) is InvalidJson:
            error.hint = f"""Text is JSON in quotes: {option} '"hello"'; @file reads a file, - reads stdin."""
        raise


def read_json(text: str, option: str, what: str) -> Any:
    """The JSON value of an option, read as `read_value` does.

    Raises:
        InvalidJson
    """
    return decode_value(read_value(text, option), option, what)
