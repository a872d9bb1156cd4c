"""The project a command works on: its folder, its settings, its journal, and the token for its server."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import ids
from ..errors import (
    InstanceNotFound,
    InvalidRequest,
    ProjectNotFound,
    RunFinished,
    RunNotFound,
    WorkflowNotFound,
)
from ..journal import Journal, Run, RunFilter, RunStatus, open_journal
from ..settings import Settings, find_root, load_settings
from .errors import NOT_FOUND, Problem

if TYPE_CHECKING:
    from ..client import PyFlueClient
    from ..engine import Workflow
    from ..workflows import Catalog

T = TypeVar("T")

#: Who drives a run that nobody drives now. Whether such a process is running cannot be seen from here: the lock of an
#: engine tells that it is alive, not that it takes up runs (that of `pyflue run` does not).
PICKED_UP = "a running `pyflue dev` or `pyflue serve` of this project takes it up, else the next one to start."

#: Who decides, if the system does not know who uses it.
_NOBODY = "anonymous"
#: How long cancelling waits for the engine that owns the run.
_CANCEL_S = 3.0
_RECENT = 25
_SQLITE = "sqlite:///"


def project_root(ctx: click.Context) -> Path:
    """The folder named by `--project`, or the nearest project from here upwards.

    Raises:
        ProjectNotFound
    """
    return find_root(ctx.find_root().params.get("project") or Path.cwd())


@asynccontextmanager
async def open_for_reading(ctx: click.Context) -> AsyncGenerator[Journal, None]:
    """The project's journal, read-only: beside a running server as well as without one."""
    async with _opened(load_settings(project_root(ctx)), read_only=True) as journal:
        yield journal


@asynccontextmanager
async def open_for_writing(ctx: click.Context) -> AsyncGenerator[Journal, None]:
    """The project's journal, for changes to runs that are already there."""
    async with _opened(load_settings(project_root(ctx)), read_only=False) as journal:
        yield journal


def existing_journal(ctx: click.Context) -> Path | None:
    """The file of the project's journal; None if it is not kept in a file.

    Raises:
        Problem: nothing has been recorded yet.
    """
    url = load_settings(project_root(ctx)).journal_url
    if not url.startswith(_SQLITE):
        return None
    path = Path(url.removeprefix(_SQLITE))
    if not path.exists():
        raise Problem(f"There is no journal yet at {path}.", exit_code=NOT_FOUND)
    if path.stat().st_size == 0:
        raise Problem(f"{path} is empty: not a journal yet.", exit_code=NOT_FOUND)
    return path


def client_of(ctx: click.Context, server: str) -> PyFlueClient:
    """A client of the server at an address, with the token of the settings; outside of a project PYFLUE_TOKEN only.

    Raises:
        SettingsInvalid
    """
    from ..client import PyFlueClient

    return PyFlueClient(server, token=token_of(ctx))


def token_of(ctx: click.Context) -> str | None:
    """The token that servers are asked with.

    Raises:
        SettingsInvalid
    """
    try:
        return load_settings(project_root(ctx)).server.token
    except ProjectNotFound:  # a server can be asked from anywhere
        return os.environ.get("PYFLUE_TOKEN")


def current_user() -> str:
    """Who uses this system, to say who decided."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as containers have them
        return _NOBODY


async def ask_server(ctx: click.Context, server: str, question: Callable[[PyFlueClient], Awaitable[T]]) -> T:
    """What a server answers to a question."""
    async with client_of(ctx, server) as client:
        return await question(client)


async def find_run(journal: Journal, run_id: str, *, values: bool = False) -> Run:
    """The run of an id.

    Raises:
        RunNotFound
    """
    run = await journal.run(run_id, values=values)
    if run is None:
        raise RunNotFound(run_id)
    return run


async def end_run(journal: Journal, run_id: str) -> Run:
    """Ask for the end of a run and give its engine a moment; returns the run as it is then.

    Raises:
        RunNotFound, RunFinished
    """
    answer = await journal.cancel(run_id)
    if answer is None:
        raise RunNotFound(run_id)
    if answer.was_final:
        raise RunFinished(run_id, answer.run.status.value)
    run = answer.run
    try:
        with journal.watch(run_id) as bell:
            async with asyncio.timeout(_CANCEL_S):
                while not run.is_final:
                    await bell.wait()
                    run = await find_run(journal, run_id)
    except TimeoutError:
        pass  # its engine is slow, or none is running
    return run


def stream_of(name: str, instance_id: str) -> str:
    """The stream of an agent's instance.

    Raises:
        InvalidRequest: there can be none of this id.
    """
    try:
        return ids.agent_stream(name, instance_id)
    except ValueError:
        raise InvalidRequest(f"{instance_id!r} is no id of an instance of {name!r}.") from None


async def find_stream(journal: Journal, name: str, instance_id: str) -> str:
    """The stream of an agent's instance that is there.

    Raises:
        InvalidRequest, InstanceNotFound
    """
    stream_id = stream_of(name, instance_id)
    if await journal.stream(stream_id) is None:
        raise InstanceNotFound(name, instance_id)
    return stream_id


async def record_of(journal: Journal, run: Run) -> dict[str, Any]:
    """A run's record as a server shows it, with what it waits for."""
    return {**run.to_dict(), "waiting_for": await _waits_of(journal, run)}


async def what_it_waits_for(journal: Journal, run: Run) -> str | None:
    """What has to happen before a run goes on, in words; None if it is being driven, or has ended."""
    if run.status is RunStatus.QUEUED:
        return f"run {run.run_id} is queued: {PICKED_UP}"
    if run.status is RunStatus.WAITING:
        return await _while_waiting(journal, run)
    if not run.is_final and run.run_id in {lost.run_id for lost in await journal.lost()}:
        return f"run {run.run_id} is {run.status}, but its engine is gone: {PICKED_UP}"
    return None


async def _while_waiting(journal: Journal, run: Run) -> str | None:
    from .waits import lines_about

    lines = lines_about(run.run_id, await _waits_of(journal, run))
    if run.owner is None or run.owner in await journal.dead_owners_of_waiting():
        lines.append(f"run {run.run_id} has no engine: {PICKED_UP}")
    return "\n".join(lines) or None


async def _waits_of(journal: Journal, run: Run) -> list[dict[str, Any]]:
    if run.status is not RunStatus.WAITING:
        return []
    return [wait.to_dict() for wait in await journal.open_waits(run.run_id)]


def find_workflow(catalog: Catalog, name: str) -> Workflow:
    """The workflow of a name; if there is none, the error names those that look like it.

    Raises:
        WorkflowNotFound, WorkflowInvalid
    """
    try:
        return catalog.find(name)
    except WorkflowNotFound as error:
        from difflib import get_close_matches

        if close := get_close_matches(name, catalog.names()):
            error.hint = f"Did you mean {' or '.join(close)}? {error.hint}"
        raise


def agent_names(ctx: click.Context) -> list[str]:
    """The names of the agents, without importing their files."""
    from ..main import LazyAgents

    return LazyAgents(load_settings(project_root(ctx))).catalog.names()


def recent_runs(ctx: click.Context) -> list[tuple[str, str]]:
    """Ids and statuses of the newest runs, for completion."""

    async def read() -> list[tuple[str, str]]:
        async with open_for_reading(ctx) as journal:
            page = await journal.runs(RunFilter(), limit=_RECENT)
            return [(run.run_id, run.status.value) for run in page.runs]

    return asyncio.run(read())


def open_approvals(ctx: click.Context) -> list[tuple[str, str]]:
    """Ids of the newest open approvals and what they are about, for completion."""
    from ..journal import ApprovalFilter, ApprovalState

    async def read() -> list[tuple[str, str]]:
        async with open_for_reading(ctx) as journal:
            found = await journal.approvals(ApprovalFilter(states=[ApprovalState.OPEN]), limit=_RECENT)
            return [(str(approval.wait.wait_id), f"{approval.wait.name} of {approval.workflow}") for approval in found]

    return asyncio.run(read())


@asynccontextmanager
async def _opened(settings: Settings, *, read_only: bool) -> AsyncGenerator[Journal, None]:
    url = settings.journal_url
    if _is_missing(url):
        # Nothing has run here yet. An empty journal gives the right answers, and leaves no file behind.
        url, read_only = "memory:", False
    journal = open_journal(url, settings=settings.journal, limits=settings.limits, read_only=read_only)
    try:
        yield journal
    finally:
        await journal.close()


def _is_missing(url: str) -> bool:
    return url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists()
