"""`.env` files."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.cli.envfile import load_env_file, parse_env
from pyflue.errors import SettingsInvalid


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("  A = two words  ", "two words"),
        ("export A=1", "1"),
        ("A=", ""),
        ("A= # a comment", ""),
        ("A=value # a comment", "value"),
        ("A=b#c", "b#c"),
        ("A=http://host/#part", "http://host/#part"),
        ("A=don't", "don't"),
        ("A='taken $as \\n it # is'", "taken $as \\n it # is"),
        ('A="x\\ty \\"z\\" \\$1 \\q"  # comment', 'x\ty "z" $1 \\q'),
        ('A="first\nsecond"', "first\nsecond"),
        ("A=$HOME", "$HOME"),
        ("A=1\r\n", "1"),
    ],
)
def test_a_line_gives_its_value(line: str, value: str) -> None:
    assert parse_env(f"# heading\n\n{line}\nLAST=1", ".env") == {"A": value, "LAST": "1"}


@pytest.mark.parametrize("line", ["A", "1A=2", "=x", 'A="open', "A='open", 'A="x" y', "A B=1", "A=\0"])
def test_a_line_that_is_no_assignment_is_named(line: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"line 2 .*\.env"):
        parse_env(f"OK=1\n{line}\n", ".env")


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    with contextlib.suppress(SettingsInvalid):
        parse_env(text, ".env")


@given(st.text(st.characters(exclude_characters="'\r\0", exclude_categories=("Cs",)), max_size=60))
def test_single_quotes_keep_any_text(text: str) -> None:
    assert parse_env(f"A='{text}'", ".env") == {"A": text}


def test_variables_that_are_set_already_win(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=file\nB=file\n", encoding="utf-8")
    environ = {"A": "shell"}
    load_env_file(path, environ)
    assert environ == {"A": "shell", "B": "file"}


def test_a_file_with_a_bad_line_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\nnonsense\n", encoding="utf-8")
    environ: dict[str, str] = {}
    with pytest.raises(SettingsInvalid):
        load_env_file(path, environ)
    assert environ == {}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff\xfe\n")
    with pytest.raises(SettingsInvalid, match="not UTF-8"):
        load_env_file(path, {})
    with pytest.raises(SettingsInvalid, match="No such file"):
        load_env_file(tmp_path / "none", {})
