"""The sample workflow `profile_csv`, through the command line."""

from __future__ import annotations

from typing import Any

import pytest

from .sample_runs import RunSample


def columns(result: dict[str, Any]) -> dict[str, Any]:
    return {column["name"]: column for column in result["columns"]}


def test_it_describes_the_columns_of_a_file_of_the_project(run_sample: RunSample) -> None:
    ran = run_sample("profile_csv", {"path": "examples/data/deliveries.csv"})

    assert (ran.exit_code, ran.status) == (0, "completed")
    assert (ran.result["rows"], ran.result["delimiter"]) == (398, ",")
    found = columns(ran.result)
    assert {name: column["type"] for name, column in found.items()} == {
        "delivery_id": "text",
        "sent_on": "date",
        "postal_code": "text",
        "town": "text",
        "courier": "text",
        "distance_km": "number",
        "weight_kg": "number",
        "price_eur": "number",
        "minutes": "integer",
        "delivered": "boolean",
        "note": "text",
    }
    assert found["town"]["distinct"] == 8
    assert found["weight_kg"]["missing"] == 18
    assert (found["sent_on"]["minimum"], found["sent_on"]["maximum"]) == ("2025-03-03", "2025-03-31")
    assert (found["minutes"]["minimum"], found["minutes"]["maximum"]) == (10, 1440)


def test_it_names_what_somebody_should_look_at(run_sample: RunSample) -> None:
    ran = run_sample("profile_csv", {"path": "examples/data/deliveries.csv"})

    found = columns(ran.result)
    assert found["weight_kg"]["outliers"].items() >= {"59": 2480, "205": 1750}.items()
    assert found["distance_km"]["outliers"]["124"] == -4.2
    assert found["price_eur"]["misfits"] == ["14,95"]
    assert found["sent_on"]["misfits"] == ["03/06/2025"]
    assert ran.result["bad_rows"] == {"152": "8 fields instead of 11", "281": "12 fields instead of 11"}


def test_its_record_tells_the_columns_the_bad_rows_and_the_progress(run_sample: RunSample) -> None:
    ran = run_sample("profile_csv", {"path": "examples/data/deliveries.csv"})

    assert [(entry["level"], entry["message"]) for entry in ran.events["log"]] == [
        ("info", "columns found"),
        ("warn", "rows left out"),
    ]
    assert ran.events["progress"][-1] == {"fraction": 1, "message": "398 rows"}


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [("a,b\n1,2\n3,4\n", ","), ("a;b\n1,5;2\n3,5;4\n", ";"), ("a\tb\n1\t2\n", "\t"), ("a|b\n1,0|2\n", "|")],
)
def test_it_finds_the_delimiter(text: str, delimiter: str, run_sample: RunSample) -> None:
    ran = run_sample("profile_csv", {"text": text})

    assert ran.result["delimiter"] == delimiter
    assert list(columns(ran.result)) == ["a", "b"]


def test_a_quoted_field_may_hold_delimiters_quotes_and_line_breaks(run_sample: RunSample) -> None:
    ran = run_sample("profile_csv", {"text": 'note,n\n"a, ""b""\nc",1\nd,2\n'})

    assert ran.result["rows"] == 2
    assert ran.result["bad_row_count"] == 0
    assert columns(ran.result)["n"]["type"] == "integer"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "3"], "integer"),
        (["1", "2.5", "1e3", ".5"], "number"),
        (["00123", "04567"], "text"),
        (["12345678901234567890"], "text"),
        (["1e999"], "text"),
        (["2024-02-29", "2024-03-01T10:00:00+01:00"], "date"),
        (["2024-02-30"], "text"),
        (["yes", "No", "TRUE"], "boolean"),
        (["n/a", "", "NULL"], "empty"),
        (["٣", "٤"], "text"),
    ],
)
def test_a_column_has_the_type_of_its_values(values: list[str], kind: str, run_sample: RunSample) -> None:
    text = "value,other\n" + "".join(f"{value},x\n" for value in values)

    assert columns(run_sample("profile_csv", {"text": text}).result)["value"]["type"] == kind


def test_without_a_header_and_with_double_or_empty_names_every_column_has_a_name(run_sample: RunSample) -> None:
    headless = run_sample("profile_csv", {"text": "1,2\n3,4\n", "has_header": False})
    double = run_sample("profile_csv", {"text": "a,a,\n1,2,3\n"})

    assert (list(columns(headless.result)), headless.result["rows"]) == (["column 1", "column 2"], 2)
    assert list(columns(double.result)) == ["a", "a (2)", "column 3"]


def test_a_column_with_more_values_than_are_kept_says_so(run_sample: RunSample) -> None:
    text = "n,m\n" + "".join(f"{number},1\n" for number in range(10_500))

    ran = run_sample("profile_csv", {"text": text})

    column = columns(ran.result)["n"]
    assert (column["distinct"], column["distinct_is_exact"]) == (10_000, False)
    assert (column["minimum"], column["maximum"], column["mean"]) == (0, 10_499, 5249.5)
    assert [entry["message"] for entry in ran.events["progress"]] == ["5,000 rows", "10,000 rows", "10,500 rows"]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"path": "no/such.csv"}, "file_not_found"),
        ({"path": "../outside.csv"}, "path_refused"),
        ({"path": "/etc/passwd"}, "path_refused"),
        ({"path": ".pyflue/journal.db"}, "path_refused"),
        ({"path": "a\0b"}, "path_refused"),
        ({"text": ""}, "csv_invalid"),
        ({"text": "a,b\n" + "x" * 1_100_000}, "csv_invalid"),
        ({"path": "LICENSE/x.csv"}, "file_not_found"),
    ],
)
def test_what_cannot_be_described_fails_with_a_type_of_its_own(payload: Any, kind: str, run_sample: RunSample) -> None:
    ran = run_sample("profile_csv", payload)

    assert (ran.exit_code, ran.status, ran.error["type"]) == (1, "failed", kind)
