"""Prices come from installed data; what is not known has no price."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from genai_prices import Usage as Counted
from genai_prices import calc_price

from pyflue.agents.content import Usage
from pyflue.agents.models import load_prices, price

USAGE = Usage(input_tokens=10_000, output_tokens=500, cache_read_tokens=8_000, cache_write_tokens=1_500)


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("claude-haiku-4-5-20251001", "anthropic"),
        ("claude-opus-4-6", "anthropic"),
        ("claude-haiku-5-5", "anthropic"),  # tiers
        ("gpt-4o-mini", "openai"),
        ("gpt-5.4", "openai"),  # tiers
        ("o3", "openai"),  # by date
    ],
)
def test_a_price_is_the_one_of_the_data(model: str, provider: str) -> None:
    counted = Counted(input_tokens=10_000, output_tokens=500, cache_read_tokens=8_000, cache_write_tokens=1_500)
    expected = float(calc_price(counted, model, provider_id=provider).total_price)
    assert price(USAGE, model, provider) == pytest.approx(expected, rel=1e-9)
    assert expected > 0


def test_cached_tokens_have_prices_of_their_own() -> None:
    # Claude Haiku 4.5: 1 $ in, 5 $ out, 0.10 $ read, 1.25 $ written, per million tokens.
    assert price(USAGE, "claude-haiku-4-5", "anthropic") == pytest.approx(
        (500 * 1.0 + 8_000 * 0.1 + 1_500 * 1.25 + 500 * 5.0) / 1_000_000
    )


@pytest.mark.parametrize(
    ("model", "provider", "expected"),
    [
        ("claude-nobody-9", "anthropic", None),
        ("gpt-4o", "my-gateway", None),
        ("llama3", "ollama-at-home", None),
        ("scripted/hello", "scripted", 0.0),
        ("scripted/hello", "fallback", 0.0),
        ("my-gateway/gpt-4o", "fallback", None),
        ("", "openai", None),
    ],
)
def test_what_is_not_known_has_no_price(model: str, provider: str, expected: float | None) -> None:
    assert price(USAGE, model, provider) == expected


def test_a_fallback_is_priced_as_the_one_who_answered() -> None:
    assert price(USAGE, "openai/gpt-4o-mini", "fallback") == price(USAGE, "gpt-4o-mini", "openai")


def test_prices_are_quick_and_never_asked_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> None:
        raise AssertionError("a price asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_prices()
    price(USAGE, "claude-haiku-4-5", "anthropic")
    started = time.perf_counter()
    for _ in range(1000):
        price(USAGE, "claude-haiku-4-5", "anthropic")
    assert (time.perf_counter() - started) / 1000 < 0.000_05
