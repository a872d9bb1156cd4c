"""`docs/cli.md` lists exactly the commands and exit codes there are."""

from __future__ import annotations

import re
from pathlib import Path

from pyflue.cli.app import COMMANDS, EXIT_INTERRUPTED
from pyflue.cli.errors import EXIT_CODES

_PAGE = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")


def test_the_page_lists_every_command_with_its_help() -> None:
    shown = re.findall(r"^\| `(\w+)` \| (.+\.) \|$", _PAGE, re.MULTILINE)
    assert shown == [(name, summary) for name, (_, summary) in COMMANDS.items()]


def test_the_page_lists_every_exit_code() -> None:
    shown = {int(code) for code in re.findall(r"^\| (\d+) \| .+ \|$", _PAGE, re.MULTILINE)}
    assert shown == {0, EXIT_INTERRUPTED, *EXIT_CODES.values()}
