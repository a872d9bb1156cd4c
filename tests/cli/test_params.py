"""Lengths of time on the command line."""

from __future__ import annotations

import pytest

from pyflue.cli.params import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("250ms", 0.25), ("10m", 600), ("1h30m", 5400), ("30d", 2_592_000), (" 2w ", 1_209_600)],
)
def test_a_length_of_time_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "0m", "-5", "m", "5 m", "5x", "1e3", "10m!", "inf", "nan", "9999999999999d"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)
