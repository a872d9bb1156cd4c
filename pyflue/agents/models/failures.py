"""What went wrong at a provider, in our words: one map for all adapters.

An adapter hands over what its library raised as a status, headers and body; which of them is worth another try, and
when, is said here. Nothing of a key, and no page of HTML, gets into a message.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from ...errors import ContextOverflow, ModelError, ModelFailed, ModelUnknown
from .parts import mapping

_OVERFLOW = re.compile(
    r"prompt is too long|context_length_exceeded|request_too_large|model_context_window_exceeded"
    r"|context (length|window|limit|size)|maximum context|too many (input )?tokens|input is too long"
    r"|exceeds? the (maximum )?(number of )?tokens",
    re.IGNORECASE,
)
_USED_UP = ("insufficient_quota", "billing")
_RETRYABLE = frozenset((408, 409, 425, 429))
_NOT_RETRYABLE = frozenset((501, 505))
_MESSAGE_CHARS = 500
#: A provider that wants us back later than this may say so, but nobody waits that long inside of a run.
_LONGEST_RETRY_AFTER_S = 24 * 3600.0


class StreamBroken(Exception):
    """A stream ended too early or is not what the API promises; private to the adapters."""

    def __init__(self, problem: str, *, is_retryable: bool = True) -> None:
        super().__init__(problem)
        self.problem = problem
        self.is_retryable = is_retryable


def from_status(
    model: str, status: int, headers: Mapping[str, str], body: object, *, secrets: tuple[str, ...] = ()
) -> ModelError:
    """The error of an answer whose status is not a good one. `headers` are looked up in lower case."""
    code, said = _said(body)
    for secret in filter(None, secrets):
        said = said.replace(secret, "…")
    sentence = f"{model}: the provider answered {status}{f' {code}' if code else ''}{f': {said}' if said else ''}"
    if not sentence.endswith("."):
        sentence += "."
    details = f"{code} {said}"
    if status == 413 or (status in (400, 422, 500) and _OVERFLOW.search(details)):
        return ContextOverflow(sentence, details={"provider_status": status})
    if code == "model_not_found" or (status == 404 and code and "model" in details.lower()):
        return ModelUnknown(sentence, hint="Check the model's name.", details={"provider_status": status})
    return ModelFailed(
        sentence,
        is_retryable=_is_retryable(status, headers, details),
        retry_after_s=retry_after_s(headers),
        provider_status=status,
        hint=_hint(status, code),
    )


def unreachable(model: str, base_url: object, problem: str) -> ModelFailed:
    """The provider could not be reached, or the connection to it broke: both pass."""
    where = _address(str(base_url))
    return ModelFailed(f"{model}: no answer from the provider at {where}: {problem}.", is_retryable=True)


def broken(model: str, problem: str, *, is_retryable: bool = True) -> ModelFailed:
    """The answer ended too early, or is not what the API promises."""
    return ModelFailed(f"{model}: the provider's answer {problem}.", is_retryable=is_retryable)


@contextmanager
def understanding() -> Generator[None]:
    """Reading bytes of a stranger's: what trips over them is their fault, and the next answer may be better.

    Raises:
        StreamBroken
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise StreamBroken(f"cannot be understood ({type(error).__name__})") from error


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """When the provider wants to be asked again at the earliest: `retry-after-ms`, or `retry-after` in either form."""
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    given = headers.get("retry-after")
    if seconds is None:
        seconds = _number(given)
    if seconds is None and given:
        parsed = email.utils.parsedate_tz(given)
        seconds = None if parsed is None else email.utils.mktime_tz(parsed) - time.time()
    return None if seconds is None else min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S)


def check_content_type(content_type: str) -> None:
    """Refuse an answer that is plainly not a stream: a login page of a proxy, an API that does not stream.

    Raises:
        StreamBroken
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("text/html", "application/json", "text/plain"):
        what = "an HTML page" if kind == "text/html" else kind
        raise StreamBroken(f"is {what}, not a stream of events; check the provider's base_url", is_retryable=False)


def _address(url: str) -> str:
    """An address to show: without a user's name, a password or a query, any of which may be a key."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is none"
    host = parts.netloc.rpartition("@")[2]
    return _short(f"{parts.scheme}://{host}{parts.path}" if parts.scheme or host else parts.path)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _said(body: object) -> tuple[str, str]:
    """The code and the message in an answer's body, whichever provider's shape it has."""
    whole = mapping(body)
    if whole is not None:
        error = whole.get("error", whole)
        inner = mapping(error)
        if inner is not None:
            code = inner.get("code") or inner.get("type")
            return (code if isinstance(code, str) else ""), _short(inner.get("message"))
        return "", _short(error)
    return "", _short(body)


def _short(text: object) -> str:
    if not isinstance(text, str):
        return ""
    if "<html" in text[:1000].lower() or text.lstrip().lower().startswith("<!doctype"):
        return "an HTML page"
    text = " ".join(text[:4000].split())
    return text if len(text) <= _MESSAGE_CHARS else text[:_MESSAGE_CHARS] + "…"


def _is_retryable(status: int, headers: Mapping[str, str], details: str) -> bool:
    wanted = headers.get("x-should-retry")
    if wanted in ("true", "false"):
        return wanted == "true"
    if any(word in details for word in _USED_UP):
        return False
    return status in _RETRYABLE or (status >= 500 and status not in _NOT_RETRYABLE)


def _hint(status: int, code: str) -> str | None:
    if status in (401, 403):
        return "Check the provider's key and what it may do."
    if status == 402 or any(word in code for word in _USED_UP):
        return "Check the provider's plan and billing."
    if status == 404:
        return "Check the provider's base_url."
    return None
