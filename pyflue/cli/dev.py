"""`pyflue dev`: the project's server while its workflows are being written."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .envfile import load_env_file
from .project import project_root
from .serving import address_options, serve_project

_ENV_FILE = ".env"


@click.command()
@address_options
@click.option(
    "--env",
    "env_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Read variables from this file instead of the project's .env; can be repeated, the first to set one wins.",
)
@click.pass_context
def command(ctx: click.Context, host: str | None, port: int | None, env_files: tuple[Path, ...]) -> None:
    """Serve the project and reload workflows when their files change.

    Runs that are under way finish on the code they started with. Variables of the shell win over those of .env.
    """
    root = project_root(ctx)
    default = root / _ENV_FILE
    for path in env_files or ((default,) if default.is_file() else ()):
        load_env_file(path, os.environ)
    serve_project(root, host=host, port=port, dev=True)
