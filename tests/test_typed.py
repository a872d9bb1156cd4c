"""What fits a JSON Schema: formats, and schemas that are none."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.typed import misfits


def fits(value: Any, format_: str) -> bool:
    return not misfits(value, {"format": format_})


@pytest.mark.parametrize(
    ("format_", "value"),
    [
        ("date-time", "2026-11-21T05:12:44Z"),
        ("date-time", "2026-11-21T05:12:44"),
        ("date-time", "2026-11-21t05:12:44.498334123z"),
        ("date-time", "2024-02-29T23:59:59.5-23:59"),
        ("date", "2024-02-29"),
        ("time", "23:59:59.123456+01:00"),
        ("time", "05:12:44Z"),
        ("time", "05:12:44"),
        ("email", "ada@example.com"),
        ("uuid", "2d9a1f0e-6e2c-4a55-9c1f-0f1d5b4c7a11"),
        ("of nobody", "anything"),
        ("date-time", 7),
        ("date", None),
        ("time", ["05:12:44"]),
    ],
)
def test_what_is_of_a_format_fits(format_: str, value: Any) -> None:
    assert fits(value, format_)


@pytest.mark.parametrize(
    ("format_", "value"),
    [
        ("date-time", "2026-11-21"),
        ("date-time", "2026-11-21 05:12:44Z"),
        ("date-time", "2026-11-21T05:12Z"),
        ("date-time", "2026-02-29T05:12:44Z"),
        ("date-time", "2026-11-21T24:00:00Z"),
        ("date-time", "2026-11-21T05:12:60Z"),
        ("date-time", "2026-11-21T05:12:44+24:00"),
        ("date-time", "2026-11-21T05:12:44+0100"),
        ("date-time", "2026-W47-6T05:12:44Z"),
        ("date-time", "2026-11-21T05:12:44Z\n"),
        ("date-time", "٢٠٢٦-11-21T05:12:44Z"),
        ("date", "2026-11-31"),
        ("date", "20261121"),
        ("date", "tomorrow"),
        ("time", "25:00:00Z"),
        ("time", "05:12"),
        ("time", "noon"),
        ("email", "ada"),
        ("uuid", "7"),
    ],
)
def test_what_is_not_of_a_format_is_a_misfit(format_: str, value: Any) -> None:
    (problem,) = misfits({"at": value}, {"properties": {"at": {"format": format_}}})
    assert problem == {"path": "$.at", "message": f"{value!r} is not a {format_!r}"}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (1, {"type": "text"}),
        ({"at": 1}, {"properties": 3}),
        ("text", {"pattern": "("}),
        (1, {"$ref": "#/$defs/nowhere"}),
        (1, {"$ref": "#"}),
        (1, {"$ref": "http://localhost:9/schema.json"}),
    ],
)
def test_nothing_fits_a_schema_that_cannot_be_used(value: Any, schema: dict[str, Any]) -> None:
    (problem,) = misfits(value, schema)
    assert problem["path"] == "$"
    assert problem["message"].startswith("the schema cannot be used: ")
    assert "\n" not in problem["message"]
