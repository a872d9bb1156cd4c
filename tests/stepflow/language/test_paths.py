"""Paths: what they lead to, how they are written back, what cannot be read."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from pyflue.stepflow.exceptions import PathInvalid
from pyflue.stepflow.paths import MISSING, WHOLE, read_path, spell

VALUE = {"a": {"b": [10, {"c": "deep"}]}, "a.b": "exact", "x y": 1, "[0]": "odd", "": "empty", "5": "five"}


@pytest.mark.parametrize("text", ["", None, "$", "  ", " $ ", "$.", "$.."])
def test_nothing_and_the_dollar_sign_are_the_whole_value(text: str | None) -> None:
    path = read_path(text)
    assert path is WHOLE
    assert path.resolve(VALUE) is VALUE


@pytest.mark.parametrize(
    ("text", "parts", "canonical"),
    [
        ("field", ("field",), "$.field"),
        ("$.field", ("field",), "$.field"),
        (' $["field"] ', ("field",), "$.field"),
        ("$['field']", ("field",), "$.field"),
        ("$[ 0 ]", (0,), "$[0]"),
        ("$.a[0].b", ("a", 0, "b"), "$.a[0].b"),
        ('$.a[ "b.c" ].d', ("a", "b.c", "d"), '$.a["b.c"].d'),
        ("$.a.", ("a",), "$.a"),
        ("$..a..b", ("a", "b"), "$.a.b"),
        ("$.a b", ("a b",), "$.a b"),
        ("$.5", ("5",), "$.5"),
        ('$[""]', ("",), '$[""]'),
        ("""$['"].x']""", ('"].x',), """$['"].x']"""),
        ("""$["'].x"]""", ("'].x",), """$["'].x"]"""),
        ("x y", ("x y",), "$.x y"),
        ("a]", ("a]",), "$.a]"),
    ],
)
def test_paths_have_one_spelling(text: str, parts: tuple[str | int, ...], canonical: str) -> None:
    path = read_path(text)
    assert (path.parts, path.text, path.shown) == (parts, canonical, canonical)
    assert read_path(path.text) == path
    assert spell(parts) == canonical
    assert len({path, read_path(path.text)}) == 1
    assert repr(path) == f"<Path {canonical}>"


def test_a_bare_name_is_the_exact_key_if_there_is_one_and_else_a_way_in() -> None:
    path = read_path("a.b")
    assert path.resolve(VALUE) == "exact"
    assert path.resolve({"a": {"b": "nested"}}) == "nested"
    assert path.resolve({"a": 1}) is MISSING
    assert read_path("a[0]").resolve({"a": ["item"]}) == "item"
    assert read_path("[0]").resolve(VALUE) == "odd"
    assert read_path("[0]").resolve(["item"]) == "item"
    assert read_path("a[x").resolve({"a[x": 1}) == 1
    # Written back as it is, so that it means the same afterwards; in messages it has the dollar sign.
    assert (path.text, path.shown) == ("a.b", "$.a.b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$.a.b[1].c", "deep"),
        ("$.a.b[0]", 10),
        ("$.a.b", [10, {"c": "deep"}]),
        ("$.a.b[2]", MISSING),
        ("$.a.b.c", MISSING),
        ("$.a[0]", MISSING),
        ("$.a.b[0].c", MISSING),
        ('$["a.b"]', "exact"),
        ("$['']", "empty"),
        ("5", "five"),
        ("nope", MISSING),
    ],
)
def test_fields_are_looked_up_in_objects_and_indexes_in_lists(text: str, expected: Any) -> None:
    assert read_path(text).resolve(VALUE) == expected


def test_null_at_the_end_of_a_path_is_a_value() -> None:
    assert read_path("$.a").resolve({"a": None}) is None
    assert read_path("$.a.b").resolve({"a": None}) is MISSING


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$field", "Invalid character 'f' in JSON path after $ or ']'. Expected '.' or '['"),
        ("$[0]x", "Invalid character 'x' in JSON path after $ or ']'. Expected '.' or '['"),
        ("$[-1]", "Invalid index '-1' in JSON path. Expected a number or a quoted string."),
        ("$[*]", "Invalid index '*' in JSON path. Expected a number or a quoted string."),
        ("$[1:2]", "Invalid index '1:2' in JSON path. Expected a number or a quoted string."),
        ("$[abc]", "Invalid index 'abc' in JSON path. Expected a number or a quoted string."),
        ("$[]", "Invalid index '' in JSON path. Expected a number or a quoted string."),
        (f"$[{'9' * 5000}]", f"Invalid index '{'9' * 100}' in JSON path. Expected a number or a quoted string."),
        ('$["hello', "Unclosed bracket '[' in path"),
        ("$[5", "Unclosed bracket '[' in path"),
        (5, "A path is a text such as `$.field` or `$[0]`, not a number."),
        (True, "A path is a text such as `$.field` or `$[0]`, not a truth value."),
        (["a"], "A path is a text such as `$.field` or `$[0]`, not a list."),
        ({}, "A path is a text such as `$.field` or `$[0]`, not an object."),
    ],
)
def test_what_is_no_path_is_refused(text: Any, message: str) -> None:
    with pytest.raises(PathInvalid) as refused:
        read_path(text)
    assert str(refused.value) == message


@pytest.mark.parametrize("text", ["$" + '["' * 100_000, "$" + "[" * 200_000, "$" + ".a" * 100_000, '["' * 100_000])
def test_paths_of_any_length_are_read_in_no_time(text: str) -> None:
    started = time.perf_counter()
    with contextlib.suppress(PathInvalid):
        read_path(text)
    assert time.perf_counter() - started < 2
