"""`pyflue flow schema`: the JSON Schemas by which editors complete and check flows and configs."""

from __future__ import annotations

import click


@click.command("schema")
@click.argument("kind", type=click.Choice(["flow", "config"]), default="flow", metavar="[flow|config]")
def show_schema(kind: str) -> None:
    """Print the JSON Schema of flows, or of configs, for editors.

    Keep it in the project, and name it in the first line of a flow, by the path from there:

    \b
        pyflue flow schema > schemas/flow.json
        # yaml-language-server: $schema=../../schemas/flow.json
    """
    from importlib.resources import files

    text = (files("pyflue.stepflow") / "schemas" / f"{kind}.json").read_text(encoding="utf-8")
    click.echo(text, nl=False)
