"""`pyflue workflows`: the workflow files of the project, or those a server has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..settings import load_settings
from .errors import NOT_FOUND, Problem
from .graphs import to_dict, to_mermaid, to_svg
from .output import counted, paint, print_json, print_table, prints_aside, say, shown
from .params import WorkflowName, json_option, server_option
from .project import client_of, find_workflow, project_root

if TYPE_CHECKING:
    from ..client import PyFlueClient
    from ..workflows import Catalog, Diagnostic


@click.group()
def command() -> None:
    """List, inspect and check workflow files."""


@command.command("list")
@json_option
@server_option
@click.pass_context
def list_workflows(ctx: click.Context, as_json: bool, server: str | None) -> None:
    """List the workflows; those that cannot be used are listed with the reason."""
    entries = (
        _local_entries(project_root(ctx)) if server is None else asyncio.run(_remote_entries(client_of(ctx, server)))
    )
    if as_json:
        print_json({"workflows": entries})
    elif entries:
        print_table(["NAME", "KIND", "DESCRIPTION"], [_row(entry) for entry in entries])
    else:
        say("no workflows; put one into src/workflows/")


@command.command("show")
@click.argument("name", type=WorkflowName())
@click.option(
    "--graph",
    "graph_format",
    type=click.Choice(["mermaid", "json", "svg"]),
    help="Its steps and what may follow them instead, if the file declares them.",
)
@json_option
@server_option
@click.pass_context
def show_workflow(ctx: click.Context, name: str, graph_format: str | None, as_json: bool, server: str | None) -> None:
    """Show a workflow: its file, what it does, the schemas of its payload and result."""
    shown_one = (
        _local_one(project_root(ctx), name)
        if server is None
        else asyncio.run(_remote_one(client_of(ctx, server), name))
    )
    if graph_format is not None:
        _print_graph(name, shown_one["graph"], graph_format)
        return
    if as_json:
        print_json(shown_one)
        return
    for field in ("name", "kind", "path", "version", "description"):
        if shown_one.get(field):
            click.echo(f"{paint(f'{field:<12}', bold=True)} {shown(str(shown_one[field]), layout=True)}")
    for field in ("input_schema", "output_schema"):
        click.echo(paint(field, bold=True))
        print_json(shown_one[field])


def _print_graph(name: str, graph: dict[str, Any] | None, graph_format: str) -> None:
    if graph is None:
        raise Problem(f"Workflow {name!r} declares no graph: what it does is in its code.", exit_code=NOT_FOUND)
    if graph_format == "json":
        print_json(graph)
        return
    click.echo(shown((to_mermaid if graph_format == "mermaid" else to_svg)(graph), layout=True))


@command.command("validate")
@json_option
@click.pass_context
def validate_workflows(ctx: click.Context, as_json: bool) -> None:
    """Load every workflow file and report what is wrong, as file:line: message. Exit code 1 if anything is.

    Warnings do not count. Of flows there are columns and codes, too: file:line:column: level[code]: message.
    """
    root = project_root(ctx)
    catalog = _catalog(root)
    with prints_aside():
        catalog.refresh()
    found = catalog.findings()
    problems = [*catalog.diagnostics(), *(one for one in found if one.level != "warning")]
    warnings = [one for one in found if one.level == "warning"]
    count = len(catalog.names())
    if as_json:
        print_json({"workflows": count, "problems": _listed(problems), "warnings": _listed(warnings)})
    else:
        for diagnostic in (*problems, *warnings):
            click.echo(shown(_line(diagnostic)))
        counts = [counted(count, "workflow"), counted(len(problems), "problem")]
        say(", ".join([*counts, *([counted(len(warnings), "warning")] if warnings else [])]))
    if problems:
        ctx.exit(1)


def _line(one: Diagnostic) -> str:
    where = ":".join(str(part) for part in (one.path, one.line, one.column) if part is not None)
    code = "" if one.code is None else f"[{one.code}]"
    # That a file cannot be used goes without saying.
    level = "" if one.level == "fatal" and not code else f"{one.level}{code}: "
    return f"{where}: {level}{one.message}"


def _listed(diagnostics: Sequence[Diagnostic]) -> list[dict[str, Any]]:
    more = ("column", "level", "code")
    return [
        {"path": one.path, "line": one.line, "message": one.message}
        | {name: getattr(one, name) for name in more if one.column is not None}
        for one in diagnostics
    ]


def _catalog(root: Path) -> Catalog:
    from ..main import open_catalog

    return open_catalog(load_settings(root))


def _local_entries(root: Path) -> list[dict[str, Any]]:
    with prints_aside():
        entries = _catalog(root).entries()
    return [
        {
            "name": entry.name,
            "kind": entry.kind,
            "path": _relative(entry.path, root),
            "description": "" if entry.workflow is None else entry.workflow.description,
            "error": None if entry.error is None else entry.error.to_dict(),
        }
        for entry in entries
    ]


def _local_one(root: Path, name: str) -> dict[str, Any]:
    with prints_aside():
        workflow = find_workflow(_catalog(root), name)
        graph = workflow.graph()
    return {
        "name": workflow.name,
        "kind": workflow.kind,
        "path": _relative(workflow.path, root),
        "version": workflow.version,
        "description": workflow.description,
        "input_schema": dict(workflow.input_schema),
        "output_schema": dict(workflow.output_schema),
        "graph": None if graph is None else to_dict(graph),
    }


async def _remote_entries(client: PyFlueClient) -> list[dict[str, Any]]:
    async with client:
        return await client.workflows.list()


async def _remote_one(client: PyFlueClient, name: str) -> dict[str, Any]:
    async with client:
        return await client.workflows.get(name)


def _row(entry: dict[str, Any]) -> list[str]:
    if entry.get("error"):
        return [entry["name"], entry["kind"], f"broken: {entry['error']['message']}"]
    first_line, _, _ = entry["description"].strip().partition("\n")
    return [entry["name"], entry["kind"], first_line]


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
