"""`.env` files: `NAME=value` lines into environment variables that are not set yet.

Understood are comments, blank lines, `export NAME=value`, single quotes (taken as they are) and double quotes (with
`\\n \\r \\t \\" \\\\ \\$` escapes); quoted values may span lines. There is no `$VARIABLE` expansion.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path

from ..errors import SettingsInvalid

_ENTRY = re.compile(
    r"""
    [ \t]* (?:export[ \t]+)? (?P<name>[A-Za-z_][A-Za-z0-9_]*) [ \t]*=[ \t]*
    (?: '(?P<literal>[^']*)' | "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<plain>(?!['"])[^\n]*?) )
    [ \t]* (?:(?<=[ \t'"=])\#[^\n]*)? (?=\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_SKIPPED = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}


def load_env_file(path: Path, environ: MutableMapping[str, str]) -> None:
    """Add a file's variables to an environment. A variable that is set already keeps its value.

    Raises:
        SettingsInvalid: the file cannot be read, or a line is no assignment; nothing was set then.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsInvalid("the file", str(path), f"it cannot be read: {problem}.") from error
    for name, value in parse_env(text, str(path)).items():
        environ.setdefault(name, value)


def parse_env(text: str, source: str) -> dict[str, str]:
    """The variables of a file's text; of two equal names the last one counts.

    Raises:
        SettingsInvalid: with the line that is no assignment.
    """
    text = text.replace("\r\n", "\n")
    values: dict[str, str] = {}
    at = 0
    while at < len(text):
        if skipped := _SKIPPED.match(text, at):
            at = skipped.end()
            continue
        entry = _ENTRY.match(text, at)
        if entry is None or "\0" in entry[0]:
            line = text.count("\n", 0, at) + 1
            raise SettingsInvalid(f"line {line}", source, "expected NAME=value.")
        values[entry["name"]] = _value(entry)
        at = entry.end() + 1
    return values


def _value(entry: re.Match[str]) -> str:
    if entry["literal"] is not None:
        return entry["literal"]
    if entry["quoted"] is not None:
        return _ESCAPE.sub(
            lambda found: _ESCAPED.get(found[1], found[1] if found[1] in '"\\$' else found[0]), entry["quoted"]
        )
    return entry["plain"].rstrip()
