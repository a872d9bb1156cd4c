"""YAML and JSON as text: what values come out, what is refused, and where it stands."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.exceptions import DocumentMalformed
from pyflue.stepflow.yaml_reader import LIMIT_BYTES, PairList, read_document, read_json, read_yaml
from tests.promises import promise


def in_words(place: str, message: str) -> str:
    line, column = place.split(":")
    return f"line {line}, column {column}: {message}"


def refusal(text: str | bytes, suffix: str = ".yaml", **more: Any) -> str:
    with pytest.raises(DocumentMalformed) as refused:
        read_document(text, suffix, **more)
    assert refused.value.line >= 1
    assert refused.value.column >= 1
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False), ("FALSE", False),
        ("yes", "yes"), ("Yes", "Yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("tRUE", "tRUE"),
        ("null", None), ("Null", None), ("NULL", None), ("~", None), ("", None), ("nULL", "nULL"),
        ("12:30:00", "12:30:00"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"),
        ("2024-01-01 00:00:00+00:00", "2024-01-01 00:00:00+00:00"),
        ("0", 0), ("-0", 0), ("12", 12), ("+12", 12), ("-12", -12), ("012", 12), ("0o17", 15), ("0x1F", 31),
        ("1_000", "1_000"), ("0b11", "0b11"), ("0o8", "0o8"), ("-0x1", "-0x1"), ("0x", "0x"), ("=", "="), ("-", ["x"]),
        ("1.5", 1.5), ("1.", 1.0), (".5", 0.5), ("-.5", -0.5), ("1e3", 1000.0), ("1E+3", 1000.0), ("1.5e-3", 0.0015),
        (".", "."), ("1e", "1e"), ("e3", "e3"), ("1.2.3", "1.2.3"), (".inf.", ".inf."), ("nan", "nan"), ("inf", "inf"),
        ("'true'", "true"), ('"12"', "12"), ("! 12", "12"), ("!!str 12", "12"), ("!!int '12'", 12),
        ("!!float 1", 1.0), ("!!bool 'true'", True), ("!!null ''", None), ("!!seq [1]", [1]),
        ("!!map {a: 1}", {"a": 1}),
        ("|\n  a\n  b\n", "a\nb\n"), (">-\n  a\n  b\n", "a b"), ("# nothing", None),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_the_core_schema_of_yaml_1_2_says(text: str, expected: Any) -> None:
    read = read_yaml("v:\n  - x" if text == "-" else f"v: {text}")["v"]
    assert (read, type(read)) == (expected, type(expected))


def test_keys_are_texts_whatever_they_look_like() -> None:
    assert read_yaml("on: 1\n1: 2\ntrue: 3\n~: 4\n2024-01-01: 5") == {
        "on": 1,
        "1": 2,
        "true": 3,
        "~": 4,
        "2024-01-01": 5,
    }
    assert list(read_yaml("{z: 1, a: 2, m: 3}")) == ["z", "a", "m"]


def test_aliases_stand_for_what_was_anchored() -> None:
    assert read_yaml("a: &x {k: [1]}\nb: *x\nc: [*x]\nd: &k key\n*k : 2") == {
        "a": {"k": [1]},
        "b": {"k": [1]},
        "c": [{"k": [1]}],
        "d": "key",
        "key": 2,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("# only a comment", None), ("---\na: 1\n...\n", {"a": 1}), ("\ufeffa: 1", {"a": 1})],
)
def test_one_document_is_read(text: str, expected: Any) -> None:
    assert read_yaml(text) == expected
    assert read_yaml(text.encode()) == expected


@promise("stepflow.yaml")
@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\nb: 2\na: 3", "3:1", "The key `a` is there twice: remove or rename one."),
        ("x: {a: 1, 'a': 3}", "1:11", "The key `a` is there twice: remove or rename one."),
        ("a:\n\tb: 1", "2:1", "YAML is not indented with tabs: use spaces."),
        (
            "a: !!python/object/apply:os.system [id]",
            "1:4",
            "The tag `!!python/object/apply:os.system` is not read here: only plain values are. Remove it.",
        ),
        (
            "a: !!timestamp 2001-01-01",
            "1:4",
            "The tag `!!timestamp` is not read here: only plain values are. Remove it.",
        ),
        ("a: !mine {}", "1:4", "The tag `!mine` is not read here: only plain values are. Remove it."),
        ("!!set {a}", "1:1", "The tag `!!set` is not read here: only plain values are. Remove it."),
        ("!!binary k: 1", "1:1", "The tag `!!binary` is not read here: only plain values are. Remove it."),
        ("a: !!int x", "1:4", "`x` is not of the type `!!int`: remove the tag, or change the value."),
        ("a: [1, .nan]", "1:8", "$.a[1] is .nan, which JSON does not have: use null, or put it in quotes."),
        ("a: -.INF", "1:4", "$.a is -.INF, which JSON does not have: use null, or put it in quotes."),
        ("a: 1e999", "1:4", "$.a is a number too large to be kept: put it in quotes."),
        (f"a: {'9' * 5000}", "1:4", "$.a is a number of more than 4,300 digits: put it in quotes."),
        ("a: *b", "1:4", "There is no anchor `&b` before this: define it, or quote the text."),
        ("a: &b [1, *b]", "1:11", "`*b` stands inside of what it stands for: write it out."),
        ("? [1]\n: 2", "1:3", "A key must be a text: put it in quotes if it starts with `[` or `{`."),
        ("a: &x [1]\n*x : 2", "2:1", "A key must be a text: write it out."),
        (
            "a:\n  <<: {b: 1}",
            "2:3",
            "`<<` does not merge in YAML 1.2: write the fields out, or put the key in quotes.",
        ),
        ("a: 1\n---\nb: 2", "2:1", "A second document starts here: a file holds one. Remove the `---`."),
        (
            "a: b: c",
            "1:5",
            (
                "This is not valid YAML: mapping values are not allowed in this context. "
                "Put a text that contains `: ` in quotes, and check the indentation."
            ),
        ),
        (
            "a: @x",
            "1:4",
            (
                "This is not valid YAML: found character that cannot start any token. "
                "Put a text that starts with this character in quotes."
            ),
        ),
        (
            "a: [1, 2\nb: 3",
            "2:2",
            (
                "This is not valid YAML: did not find expected ',' or ']'. "
                "Put a comma before this, or close the bracket."
            ),
        ),
        (
            "a:\n  - b\n c: 1",
            "3:2",
            (
                "This is not valid YAML: did not find expected key. "
                "Check the indentation and the brackets of this line and of the one before it."
            ),
        ),
        ("a: 'x", "1:6", "This is not valid YAML: found unexpected end of stream. Close the quotation mark."),
        ("a: \x01", "1:4", "The character U+0001 cannot stand in YAML: remove it, or write it as an escape."),
        ("a:\n  b\ud800", "2:4", "This is half of a surrogate pair, which no text may hold: remove it."),
        (b"a:\n  \xc3\xa9\xff", "2:4", "This is not UTF-8: save the file as UTF-8."),
    ],
)
def test_yaml_that_is_wrong_is_refused_with_line_column_and_advice(text: str | bytes, place: str, message: str) -> None:
    assert refusal(text) == in_words(place, message)


@promise("stepflow.yaml")
def test_no_tag_runs_code(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for tag in ("!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"):
        assert "is not read here" in refusal(f"a: {tag} ['{made}']")
    assert not made.exists()


def bomb(levels: int, width: int) -> str:
    lines = [f"a0: &a0 [{','.join('x' * width)}]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@promise("stepflow.yaml")
def test_aliases_count_as_if_they_were_written_out() -> None:
    hundred = "a: &a 1\nb: [" + ",".join(["*a"] * 100) + "]"
    assert read_yaml(hundred)["b"] == [1] * 100
    assert "more than 100 aliases" in refusal(hundred + "\nc: *a")
    started = time.perf_counter()
    assert refusal(bomb(10, 10)).endswith("There are more than 100 aliases (`*name`): write some of them out.")
    assert refusal(bomb(40, 2)).endswith("There are more than 100 aliases (`*name`): write some of them out.")
    assert time.perf_counter() - started < 2
    large = "a: &a " + "x" * 300_000 + "\nb: [" + ",".join(["*a"] * 60) + "]"
    assert "With its aliases written out, the document is too large" in refusal(large)


def test_a_hundred_levels_are_read_and_not_one_more() -> None:
    for suffix in (".yaml", ".json"):
        read_document("[" * 100 + "]" * 100, suffix)
        read_document("[" * 99 + "[1]" + "]" * 99, suffix)
        for text in (
            "[" * 101 + "]" * 101,
            "[" * 100 + "[1]" + "]" * 100,
            "[" * 100_000,
            '{"a":' * 5000 + "1" + "}" * 5000,
        ):
            assert refusal(text, suffix).endswith("is nested deeper than 100 levels: flatten it.")
    assert read_yaml("- " * 100 + "x")
    assert refusal("- " * 101 + "x").startswith("line 1, column 201: $[0][0]")
    # An alias is as deep as what it stands for.
    assert "deeper than 100" in refusal("a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60)


def test_documents_are_not_larger_than_16_mib() -> None:
    expected = "line 1, column 1: The document is larger than 16 MiB: keep data in files of their own."
    assert refusal("x" * (LIMIT_BYTES + 1)) == expected
    assert refusal(b"x" * 50_000_000) == expected
    assert refusal("é" * (LIMIT_BYTES // 2 + 1), ".json") == expected


def test_pairs_are_read_where_they_are_asked_for() -> None:
    text = "b:\n  ? {a: 1}\n  : x\n  1: y\n  null: n\n  k: {t: u}\nc: {d: e}"
    value = read_yaml(text, pairs=True)
    assert value == {"b": [({"a": 1}, "x"), (1, "y"), (None, "n"), ("k", {"t": "u"})], "c": {"d": "e"}}
    assert type(value["b"]) is PairList
    assert type(value["c"]) is dict
    assert read_yaml("{1: a, '1': b}", pairs=True) == [(1, "a"), ("1", "b")]
    assert read_yaml("? {? [1] : 2}\n: 3", pairs=True) == [([([1], 2)], 3)]
    assert refusal("{1: a, 1: b}", pairs=True) == "line 1, column 8: The key `1` is there twice: remove or rename one."
    assert refusal("? {a: [1]}\n: 1\n? {a: [1]}\n: 2", pairs=True) == (
        'line 3, column 3: The key `{"a":[1]}` is there twice: remove or rename one.'
    )


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "This is not valid JSON: Expecting value. Put a value here; texts stand in double quotes."),
        ('{"a": 1,\n "a": 2}', "2:2", "The key `a` is there twice: remove or rename one."),
        ('{"a": {"b": [], "b": 1}, "c": [}', "1:17", "The key `b` is there twice: remove or rename one."),
        ('{"a": [1,\n NaN]}', "2:2", "$.a[1] is NaN, which JSON does not have: use null or a text."),
        ("[-Infinity]", "1:2", "$[0] is -Infinity, which JSON does not have: use null or a text."),
        ('{"a": 1e999}', "1:7", "$.a is a number too large to be kept: write it as a text."),
        (f"[{'9' * 5000}]", "1:2", "$[0] is a number of more than 4,300 digits: write it as a text."),
        ('["\\ud800"]', "1:2", "This text has half of a surrogate pair: remove it, or write both halves."),
        ('{"\\uDC00": 1}', "1:2", "This text has half of a surrogate pair: remove it, or write both halves."),
        ('{"a" 1}', "1:6", "This is not valid JSON: Expecting ':' delimiter. Put a colon after the key."),
        (
            "[1 2]",
            "1:4",
            "This is not valid JSON: Expecting ',' delimiter. Put a comma before this, or close the bracket.",
        ),
        ("[1]\n2", "2:1", "This is not valid JSON: Extra data. A document is one value: remove what follows it."),
        (
            '{"a": tru}',
            "1:7",
            "This is not valid JSON: Expecting value. Put a value here; texts stand in double quotes.",
        ),
        (
            "# comment",
            "1:1",
            "This is not valid JSON: Expecting value. Put a value here; texts stand in double quotes.",
        ),
    ],
)
def test_json_that_is_wrong_is_refused_with_line_column_and_advice(text: str, place: str, message: str) -> None:
    assert refusal(text, ".json") == in_words(place, message)


def test_json_in_a_yaml_file_is_read_as_json_and_what_only_looks_like_it_as_yaml() -> None:
    assert read_yaml('{"a": "\\ud83d\\ude00", "b":\t"\u2028"}') == {"a": "😀", "b": "\u2028"}
    assert read_yaml("{a: 1, b: [x]} # yaml") == {"a": 1, "b": ["x"]}
    assert refusal('{"a": 1, "a": 2}') == "line 1, column 10: The key `a` is there twice: remove or rename one."
    assert read_json('{"a": 12:30}'.replace("12:30", '"12:30"')) == {"a": "12:30"}


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("a:\n  b: [1, {c: 2}]\n  'd.e': x\n", ".yaml"),
        ('{"a":\n  {"b": [1, {"c": 2}],\n  "d.e": "x"}}', ".json"),
        ('{"a":\n  {"b": [1, {"c": 2}],\n  "d.e": "x"}}', ".yaml"),
    ],
)
def test_every_value_and_key_has_its_place(text: str, suffix: str) -> None:
    marks = read_document(text, suffix).marks
    lines = text.splitlines()

    def at(path: tuple[str | int, ...], *, of_key: bool = False) -> str:
        line, column = marks.position(path, of_key=of_key)
        return lines[line - 1][column - 1 :].split(",")[0].strip("\"'}] ")

    assert at(("a", "b", 0)) == "1"
    assert at(("a", "b", 1, "c")) == "2"
    assert at(("a", "b", 1, "c"), of_key=True).startswith("c")
    assert at(("a", "d.e")) == "x"
    assert at(("a", "d.e"), of_key=True).startswith("d.e")
    # What is not there is where its surroundings are.
    assert marks.position(("a", "b", 7, "q")) == marks.position(("a", "b"))
    assert marks.position(()) == marks.position(("nope",)) == (1, 1)


def test_nothing_heavy_is_imported_with_the_language() -> None:
    code = (
        "import sys\n"
        "import pyflue.stepflow.document, pyflue.stepflow.validation, pyflue.stepflow.yaml_reader\n"
        "import pyflue.stepflow.variables, pyflue.stepflow.overrides, pyflue.stepflow.content\n"
        "print(sorted({'yaml', 'jsonschema', 'pydantic', 'difflib', 'starlette', 'asyncio'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"
