"""Content ids: equal to those of the original."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from pyflue.stepflow.content import canonical_bytes, content_id, is_content_id
from pyflue.stepflow.exceptions import NotContent
from tests.promises import promise


@promise("stepflow.blob-ids")
def test_the_documented_id_comes_out() -> None:
    value = {"message": "Hello, blobs!", "number": 42, "nested": {"array": [1, 2, 3], "boolean": True}}
    text = b'{"message":"Hello, blobs!","number":42,"nested":{"array":[1,2,3],"boolean":true}}'
    assert canonical_bytes(value) == text
    assert content_id(value) == hashlib.sha256(text).hexdigest()
    assert content_id(value).startswith("868591347a")


def test_keys_stay_in_the_order_of_the_document() -> None:
    assert canonical_bytes({"b": 1, "a": {"d": 1, "c": 2}}) == b'{"b":1,"a":{"d":1,"c":2}}'
    assert content_id({"b": 1, "a": 2}) != content_id({"a": 2, "b": 1})


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2, b"2"),
        (2.0, b"2.0"),
        (-0.0, b"-0.0"),
        (0.1, b"0.1"),
        (1e-5, b"0.00001"),
        (0.000123, b"0.000123"),
        (1e-6, b"1e-6"),
        (1e-7, b"1e-7"),
        (1.5e-10, b"1.5e-10"),
        (1234567890123456.0, b"1234567890123456.0"),
        (1e15, b"1000000000000000.0"),
        (1e16, b"1e16"),
        (12345678901234567.0, b"1.2345678901234568e16"),
        (123456789012345680.0, b"1.2345678901234568e17"),
        (1e21, b"1e21"),
        (1.5e300, b"1.5e300"),
        (5e-324, b"5e-324"),
        (1.7976931348623157e308, b"1.7976931348623157e308"),
        (10**30, b"1" + b"0" * 30),
    ],
)
def test_numbers_are_spelled_as_the_original_spells_them(number: float, text: bytes) -> None:
    assert canonical_bytes(number) == text


def test_texts_are_utf8_with_the_escapes_of_json_and_no_others() -> None:
    assert canonical_bytes('é\u2028/"\\\b\f\n\r\t\x1f\x7f😀') == (
        b'"\xc3\xa9\xe2\x80\xa8/\\"\\\\\\b\\f\\n\\r\\t\\u001f\x7f\xf0\x9f\x98\x80"'
    )


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {"a": "\ud800"}, {"\udc00": 1}, {1: 2}, {"a": {1, 2}}, object()]
)
def test_what_is_not_json_has_no_id(value: Any) -> None:
    with pytest.raises(NotContent):
        content_id(value)


def test_what_is_nested_too_deep_has_no_id() -> None:
    value: Any = 1
    for _ in range(101):
        value = [value]
    with pytest.raises(NotContent):
        content_id(value)
    assert len(content_id(value[0])) == 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 64, True),
        ("A0" * 32, True),
        ("a" * 63, False),
        ("a" * 65, False),
        ("g" * 64, False),
        ("a" * 64 + "\n", False),
        (5, False),
    ],
)
def test_ids_are_64_hexadecimal_digits(text: object, expected: bool) -> None:
    assert is_content_id(text) is expected
