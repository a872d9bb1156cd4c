"""What a model call costs, from the prices that come with genai-prices.

Never asks the network: the data is as old as the installed package. A model that is not in it has no price, which is
not the same as costing nothing. Importing the package takes a quarter of a second, so whoever prices in an event loop
calls `load_prices` in a thread before; a price itself takes microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from ..content import Usage
from . import fallback, scripted

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

_MILLION = 1_000_000


def load_prices() -> None:
    """Import the prices. Slow the first time, and safe to call from any thread."""
    _find("claude-haiku-4-5", "anthropic")


def price(usage: Usage, model_id: str, provider: str) -> float | None:
    """The cost in US dollars of one call; None if the model's price is not known.

    `model_id` is the reply's `model`, `provider` the model's. Tokens read from and written to a cache have prices of
    their own and count once.
    """
    if provider == fallback.PROVIDER:
        provider, _, model_id = model_id.partition("/")
    if provider == scripted.PROVIDER:
        return 0.0
    found = _find(model_id, provider)
    if found is None:
        return None
    return found.price(usage) if isinstance(found, _Flat) else _exact(usage, *found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flat:
    """Prices of a token that do not depend on how many there are, nor on the hour."""

    input: float
    output: float
    cache_read: float
    cache_write: float

    def price(self, usage: Usage) -> float:
        plain = max(0, usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens)
        return (
            plain * self.input
            + usage.cache_read_tokens * self.cache_read
            + usage.cache_write_tokens * self.cache_write
            + usage.output_tokens * self.output
        )


@lru_cache(maxsize=1024)
def _find(model_id: str, provider: str) -> _Flat | tuple[Provider, ModelInfo] | None:
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import ModelPrice

    try:
        owner, model = get_snapshot().find_provider_model(model_id, None, provider, None)
    except LookupError:
        return None
    prices = model.prices
    if not isinstance(prices, ModelPrice):
        return owner, model
    into, out = prices.input_mtok, prices.output_mtok
    read = into if prices.cache_read_mtok is None else prices.cache_read_mtok
    written = into if prices.cache_write_mtok is None else prices.cache_write_mtok
    match (into, out, read, written):
        case (Decimal(), Decimal(), Decimal(), Decimal()):
            return _Flat(
                input=float(into) / _MILLION,
                output=float(out) / _MILLION,
                cache_read=float(read) / _MILLION,
                cache_write=float(written) / _MILLION,
            )
        case _:
            return owner, model


def _exact(usage: Usage, provider: Provider, model: ModelInfo) -> float | None:
    """The package's own reckoning, for prices with tiers and times. Slower: about 0.2 ms."""
    from genai_prices import Usage as Counted

    counted = Counted(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        sum_ = model.calc_price(counted, provider, genai_request_timestamp=datetime.now(tz=UTC))
    except (LookupError, ValueError):
        return None  # no price for tokens of this kind
    return float(sum_.total_price)
