"""`pyflue init`: a new project from a template."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from .output import paint, say

#: In the wheel the templates lie inside the package, in a source checkout beside it.
_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "templates", _PACKAGE.parent / "templates")
_DEFAULT = "hello"
#: A template's files that git or another tool would obey where they lie are stored without the dot.
_RENAMED = {"gitignore": ".gitignore"}
_NOT_COPIED = {"__pycache__", ".pyflue", ".pytest_cache"}


def _templates() -> Path:
    return next(place for place in _PLACES if place.is_dir())


def _names() -> list[str]:
    return sorted(folder.name for folder in _templates().iterdir() if folder.is_dir())


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(name) for name in _names() if name.startswith(incomplete)]


@click.command()
@click.argument("folder", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--template", default=_DEFAULT, show_default=True, shell_complete=_complete, help="What to start from.")
@click.option("--force", is_flag=True, help="Overwrite files that are there already.")
def command(folder: Path, template: str, force: bool) -> None:
    """Start a new project in a folder.

    Files that are there already are kept, and named, unless --force is given.
    """
    if template not in _names():
        raise click.BadParameter(f"There is no {template!r}; known: {', '.join(_names())}.", param_hint="'--template'")
    for source in sorted((_templates() / template).rglob("*")):
        place = source.relative_to(_templates() / template)
        if source.is_file() and not _NOT_COPIED.intersection(place.parts):
            _copy(source, folder / place.with_name(_RENAMED.get(place.name, place.name)), force=force)
    say("")
    say("Next:")
    if folder.resolve() != Path.cwd():
        say(f"  cd {shlex.quote(str(folder))}")
    say("""  pyflue run hello --payload '{"name": "Ada"}'""")
    say("  pyflue dev")


def _copy(source: Path, target: Path, *, force: bool) -> None:
    if target.exists() and not force:
        say(f"{paint('kept', fg='yellow')}     {target} (it was there; --force overwrites it)")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    say(f"{paint('created', fg='green')}  {target}")
