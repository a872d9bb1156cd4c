"""`pyflue serve`: the project's server, as it runs in production."""

from __future__ import annotations

import click

from .project import project_root
from .serving import address_options, serve_project


@click.command()
@address_options
@click.pass_context
def command(ctx: click.Context, host: str | None, port: int | None) -> None:
    """Serve the project.

    Runs that a crash or a stop left behind go on. Workflow files are read once, at the start.
    """
    serve_project(project_root(ctx), host=host, port=port, dev=False)
