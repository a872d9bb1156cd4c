"""Commands that dialects of other packages bring along."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyflue.cli import main
from tests.cli.cli_project import command_line, complete

PLUGIN = '''
import click
from types import SimpleNamespace
from pyflue.errors import RunNotFound

@click.command()
@click.argument("words", nargs=-1)
def chant(words):
    """Say it again and again.

    And again.
    """
    if not words:
        raise RunNotFound("workflow:none:1")
    click.echo(" ".join(words * 2))

@click.command("run")
def run():
    """Not ours."""

def dialect():
    return SimpleNamespace(commands=lambda: [chant, run])

def again():
    return SimpleNamespace(commands=lambda: [chant, "no command"])

def broken():
    raise ImportError("what it needs is missing")
'''
NAME_TAKEN = "warning: the command 'run' of the dialect 'song' is left out: the name is taken."


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, one of which is a dialect with commands."""
    folder = tmp_path / "site"
    install(folder, "song", "a_song_plugin:dialect")
    (folder / "a_song_plugin.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def install(site: Path, name: str, target: str) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(f"[pyflue.dialects]\n{name} = {target}\n", encoding="utf-8")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="pyflue")


def test_a_command_of_another_package_can_be_called(site: Path) -> None:
    answer = call("chant", "la", "le")
    assert (answer.exit_code, answer.stdout) == (0, "la le la le\n")


def test_its_errors_end_as_ours_do(site: Path) -> None:
    answer = call("chant")
    assert answer.exit_code == 3
    assert "error: There is no run 'workflow:none:1'." in answer.stderr.splitlines()


def test_help_lists_it_after_ours(site: Path) -> None:
    lines = call("--help").stdout.splitlines()
    assert lines[-2].split()[0] == "completion"
    assert lines[-1].split(maxsplit=1) == ["chant", "Say it again and again."]


def test_a_name_of_ours_stays_ours_with_a_warning(site: Path) -> None:
    assert call("--help").stderr.splitlines() == [NAME_TAKEN]
    assert call("run", "--help").stdout.splitlines()[0] == "Usage: pyflue run [OPTIONS] NAME"


def test_of_two_with_one_name_the_first_is_there_and_what_is_broken_is_told(site: Path) -> None:
    install(site, "song2", "a_song_plugin:again")
    install(site, "song3", "a_song_plugin:broken")
    answer = call("chant", "la")
    assert answer.stdout == "la la\n"
    assert answer.stderr.splitlines() == [
        NAME_TAKEN,
        "warning: the command 'chant' of the dialect 'song2' is left out: the name is taken.",
        "warning: the dialect 'song2' has a str where a click command is expected.",
        "warning: the commands of the dialect 'song3' cannot be had: ImportError: what it needs is missing",
    ]


def test_a_name_that_nobody_has_is_wrong_use_with_a_near_one(site: Path) -> None:
    answer = call("chand")
    assert answer.exit_code == 2
    assert "No such command 'chand'. Did you mean chant?" in answer.stderr


def test_a_shell_completes_it(site: Path, tmp_path: Path) -> None:
    assert complete(tmp_path, "pyflue ch") == ["chant"]


def test_our_own_commands_import_nothing_of_others(site: Path, tmp_path: Path) -> None:
    (site / "a_song_plugin.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    done = subprocess.run(
        command_line(["completion", "bash"]), cwd=tmp_path, env=os.environ, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_other_packages_help_imports_no_metadata_reader() -> None:
    code = (
        "import sys\nfrom pyflue.cli import main\n"
        "try:\n    main(['--help'])\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"importlib.metadata", "pyflue.workflows", "asyncio"} & set(done.stderr.split())
