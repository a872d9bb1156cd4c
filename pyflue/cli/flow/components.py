"""`pyflue flow list-components`: what flows can call, asked from the plugins of a config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..output import paint, print_json, print_table, prints_aside, say, shown
from ..params import json_option
from .documents import config_for
from .opening import root_of
from .options import config_option
from .outcomes import in_one_line

if TYPE_CHECKING:
    from ...stepflow.config import StepflowConfig
    from ...stepflow.plugins.environment import Found
    from ...stepflow.plugins.port import ComponentInfo


@click.command("list-components")
@config_option
@click.option(
    "--format", "form", type=click.Choice(["pretty", "json", "yaml"]), default="pretty", help="What to write. [pretty]"
)
@click.option(
    "--schemas", type=bool, metavar="true|false", help="Show the schemas of inputs and outputs. [pretty: false]"
)
@click.option(
    "--hide-unreachable",
    type=bool,
    default=True,
    metavar="true|false",
    help="Leave out components that no route leads to. [true]",
)
@json_option
@click.pass_context
def list_components(
    ctx: click.Context,
    config: Path | None,
    form: str,
    schemas: bool | None,
    hide_unreachable: bool,
    as_json: bool,
) -> None:
    """List the components that flows can call.

    All plugins of the config are started and asked. Exit code 1 if one of them cannot be; the others are listed.
    """
    form = "json" if as_json else form
    with_schemas = form != "pretty" if schemas is None else schemas
    from ...engine import loops

    with prints_aside():
        found = loops.run(_ask(config_for(config, root=root_of(ctx)), include_unreachable=not hide_unreachable))
    listed = [_described(component, with_schemas=with_schemas) for component in found.components]
    if form == "json":
        print_json({"components": listed})
    elif form == "yaml":
        click.echo(_as_yaml({"components": listed}), nl=False)
    else:
        _print(listed, with_schemas=with_schemas, is_all=not found.failures)
    for name, problem in found.failures.items():
        say(shown(f"warning: plugin {name!r} cannot be asked: {in_one_line(problem)}"))
    if found.failures:
        ctx.exit(1)


async def _ask(config: StepflowConfig, *, include_unreachable: bool) -> Found:
    from ...stepflow.environments import environment_for

    environment = environment_for(config, {}, os.environ)
    try:
        return await environment.components(include_unreachable=include_unreachable)
    finally:
        await environment.close()


def _described(component: ComponentInfo, *, with_schemas: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"component": component.path}
    if component.description is not None:
        described["description"] = component.description
    if with_schemas and component.input_schema is not None:
        described["input_schema"] = component.input_schema
    if with_schemas and component.output_schema is not None:
        described["output_schema"] = component.output_schema
    return described


def _as_yaml(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # What a terminal would obey is escaped as YAML escapes it, so that it stays the same value.
    return text if text == shown(text, layout=True) else yaml.safe_dump(value, sort_keys=False)


def _print(listed: list[dict[str, Any]], *, with_schemas: bool, is_all: bool) -> None:
    if not listed:
        if is_all:  # else the warnings say why
            say("no components; is there a route to them?")
    elif not with_schemas:
        print_table(["COMPONENT", "DESCRIPTION"], [[one["component"], _first_line(one)] for one in listed])
    else:
        for one in listed:
            click.echo(paint(shown(one["component"]), bold=True))
            if "description" in one:
                click.echo(shown(one["description"], layout=True))
            for name in ("input_schema", "output_schema"):
                if name in one:
                    click.echo(name)
                    print_json(one[name])


def _first_line(component: Mapping[str, Any]) -> str:
    return str(component.get("description", "")).strip().partition("\n")[0]
