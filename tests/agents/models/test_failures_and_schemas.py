"""When a provider wants to be asked again, what its errors mean, and which schemas it can enforce."""

from __future__ import annotations

import email.utils
import time
from typing import Any, Literal

import pytest
from anthropic import transform_schema
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from pyflue.agents.content import ToolUse
from pyflue.agents.models.failures import from_status, retry_after_s
from pyflue.agents.models.parts import Joiner, clean, tool_use
from pyflue.agents.models.schemas import is_enforceable
from pyflue.errors import ContextOverflow, ModelFailed, ModelUnknown


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "99999999"}, 86_400.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": email.utils.formatdate(0, usegmt=True)}, 0.0),
    ],
)
def test_the_time_to_come_back_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_the_time_to_come_back_may_be_a_date() -> None:
    seconds = retry_after_s({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)})
    assert seconds is not None
    assert 55 < seconds <= 60


OVERFLOWS = [
    "prompt is too long: 208310 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000",
    "This model's maximum context length is 8192 tokens.",
    "the request exceeds the available context size (4096 tokens)",
    "Input is too long for requested model.",
]


@pytest.mark.parametrize("message", OVERFLOWS)
def test_overflows_are_known_by_their_words(message: str) -> None:
    assert isinstance(from_status("a/b", 400, {}, {"error": {"message": message}}), ContextOverflow)


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "is_retryable"),
    [
        (413, {}, {"error": {"type": "request_too_large"}}, ContextOverflow, None),
        (404, {}, {"error": {"type": "not_found_error", "message": "model: claude-x"}}, ModelUnknown, None),
        (404, {}, {"error": {"code": "model_not_found"}}, ModelUnknown, None),
        (404, {}, "<html>", ModelFailed, False),
        (400, {}, {"error": {"message": "messages: too few"}}, ModelFailed, False),
        (429, {}, {"message": "too many tokens per minute"}, ModelFailed, True),
        (429, {"x-should-retry": "false"}, None, ModelFailed, False),
        (400, {"x-should-retry": "true"}, None, ModelFailed, True),
        (501, {}, None, ModelFailed, False),
        (503, {}, [1, 2], ModelFailed, True),
        (408, {}, {"error": "text"}, ModelFailed, True),
    ],
)
def test_a_status_is_known_for_what_it_means(
    status: int, headers: dict[str, str], body: object, kind: type, is_retryable: bool | None
) -> None:
    error = from_status("a/b", status, headers, body)
    assert (type(error), getattr(error, "is_retryable", None)) == (kind, is_retryable)


def test_a_message_is_short_and_holds_no_key_and_no_page() -> None:
    error = from_status("a/b", 401, {}, {"error": {"message": f"key sk-1 is bad\n{'x' * 9000}"}}, secrets=("sk-1", ""))
    assert str(error).startswith("a/b: the provider answered 401: key … is bad xxx")
    assert len(str(error)) < 700
    assert (
        str(from_status("a/b", 503, {}, "<!DOCTYPE html><p>sorry")) == "a/b: the provider answered 503: an HTML page."
    )


class Leaf(BaseModel):
    name: str = Field(min_length=1)
    tags: list[str] = []


class Tree(BaseModel):
    leaf: Leaf | None
    colour: Literal["red", 3, None]
    kind: str = "x"
    leaves: list[Leaf]


class Node(BaseModel):
    children: list[Node]


@pytest.mark.parametrize(
    ("wanted", "enforceable"),
    [
        (Leaf, True),
        (Tree, True),
        (Node, False),
        (dict[str, int], False),
        (list[Leaf], False),
        (int, False),
        (Any, False),
    ],
)
def test_schemas_that_would_lose_their_meaning_are_not_enforced(wanted: Any, enforceable: bool) -> None:
    schema = TypeAdapter(wanted).json_schema()
    assert is_enforceable(schema) is enforceable
    if enforceable:
        assert transform_schema(schema)["additionalProperties"] is False


@pytest.mark.parametrize(
    "field",
    [
        {"type": "object"},
        {"type": ["string", "null"]},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"not": {"type": "string"}},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/$defs/gone"},
        {"$ref": "#"},
        {"enum": [{"a": 1}]},
        {"const": [1]},
        {"anyOf": [{"type": "string"}], "allOf": [{"type": "string"}]},
        {"anyOf": 3},
        True,
        {},
    ],
)
def test_odd_schemas_are_not_enforced(field: Any) -> None:
    assert not is_enforceable({"type": "object", "properties": {"a": field}})


@given(st.lists(st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=4), max_size=8))
def test_pieces_join_to_the_clean_text_however_it_was_cut(pieces: list[str]) -> None:
    joiner = Joiner()
    shown = "".join([joiner.feed(piece) for piece in pieces]) + joiner.rest()
    assert shown == joiner.text == clean("".join(pieces))
    shown.encode()


@given(st.text(max_size=30))
def test_any_input_of_a_tool_is_an_object_or_malformed(raw: str) -> None:
    use = tool_use("id", "name", raw)
    if not raw.strip():
        assert use == ToolUse(id="id", name="name", input={})
    else:
        assert (use.malformed == raw) != isinstance(use.input, dict) or use.input == {}
