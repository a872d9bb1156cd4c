"""`pyflue flow validate`: what is wrong with flows, without running them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..output import counted, print_json, say
from ..params import json_option
from .documents import Finding, config_for, of_broken_config, of_config, read_flow_file
from .opening import root_of
from .options import FILE, config_option


@click.command("validate")
@click.argument("flows", type=FILE, nargs=-1, metavar="[FLOW]...")
@click.option("--flow", "more", type=FILE, multiple=True, metavar="FILE", help="A flow; or name it without an option.")
@config_option
@json_option
@click.pass_context
def validate_flows(
    ctx: click.Context, flows: tuple[Path, ...], more: tuple[Path, ...], config: Path | None, as_json: bool
) -> None:
    """Look flows over and print what is wrong, as file:line:column: level[code]: message.

    What is fatal keeps a flow from being stored; an error makes it fail where it is reached; a warning may be meant.
    Exit code 1 if anything is fatal or an error. Their configs are looked over, too.
    """
    paths = (*flows, *more)
    if not paths:
        raise click.UsageError("Which flow? Name its file.")
    root = root_of(ctx)
    found: list[Finding] = []
    for path in paths:
        for finding in _of_flow(path, config, root):
            if finding not in found:  # flows share configs
                found.append(finding)
    counts = {level: sum(finding.level == level for finding in found) for level in ("fatal", "error", "warning")}
    if as_json:
        numbers: dict[str, Any] = {"flows": len(paths), **{f"num_{level}": count for level, count in counts.items()}}
        print_json({**numbers, "diagnostics": [finding.to_dict() for finding in found]})
    else:
        for finding in found:
            click.echo(str(finding))
        say(f"{counted(len(paths), 'flow')}, {_told(counts)}")
    if counts["fatal"] or counts["error"]:
        ctx.exit(1)


def _of_flow(path: Path, given: Path | None, root: Path | None) -> list[Finding]:
    """What is wrong with a flow, and then with its config."""
    from ...stepflow.config import ConfigInvalid
    from ...stepflow.environments import environment_for

    try:
        config = config_for(given, beside=path, root=root)
        environment_for(config)
    except ConfigInvalid as error:
        return [*read_flow_file(path).findings, of_broken_config(error)]
    return [*read_flow_file(path, config).findings, *of_config(config)]


def _told(counts: dict[str, int]) -> str:
    return f"{counts['fatal']} fatal, {counted(counts['error'], 'error')}, {counted(counts['warning'], 'warning')}"
