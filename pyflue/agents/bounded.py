"""JSON Schema of strangers, checked in bounded time: callers of an agent may say what its answers look like.

Python's own `re` takes exponential time for some patterns, and a schema whose parts refer to each other may ask for
more checks than there is time for. Patterns are searched by pydantic's engine here, which takes linear time, and a
check that takes too long ends. Called by `answers.py`, and by `interactions.py` for what comes from outside.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast

from ..typed import check_schema, misfits

#: A check that takes longer than this blocks others.
MOST_S = 1.0

_deadline: ContextVar[float] = ContextVar("pyflue_schema_deadline")


def check_outside_schema(schema: Any) -> None:
    """Refuse what is no JSON Schema, and what cannot be checked in bounded time.

    Raises:
        ValueError, TypeError: saying where and why.
    """
    check_schema(schema)
    _check_patterns(schema, "$")


def bounded_misfits(data: Any, schema: Mapping[str, Any]) -> list[dict[str, str]]:
    """As `typed.misfits`; if it takes too long, that is the problem."""
    token = _deadline.set(time.monotonic() + MOST_S)
    try:
        return list(misfits(data, schema, validator=_validator()))
    finally:
        _deadline.reset(token)


def _check_patterns(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for name, member in cast("Mapping[str, Any]", value).items():
            if name == "patternProperties":
                raise ValueError(f"{path}.patternProperties: names cannot be described by patterns here")
            if name == "pattern" and isinstance(member, str):
                try:
                    _compiled(member)
                except Exception:  # noqa: BLE001  (it is whatever the engine has against a stranger's pattern)
                    problem = f"{path}.pattern: it cannot be searched for in linear time (look-around cannot)"
                    raise ValueError(problem) from None
            _check_patterns(member, f"{path}.{name}")
    elif isinstance(value, list):
        for index, member in enumerate(cast("Sequence[Any]", value)):
            _check_patterns(member, f"{path}[{index}]")


@functools.lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    from pydantic_core import SchemaValidator, core_schema

    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Generator[Any]:
    import jsonschema
    from pydantic_core import SchemaError, ValidationError

    if not isinstance(instance, str):
        return
    try:
        _compiled(pattern).validate_python(instance)
    except SchemaError:
        # Only an author's own schema comes here with such a pattern.
        yield from jsonschema.Draft202012Validator.VALIDATORS["pattern"](validator, pattern, instance, schema) or ()
    except ValidationError:
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator, validators

    keywords: dict[str, Any] = {**Draft202012Validator.VALIDATORS, "pattern": _pattern}
    extend: Callable[..., Any] = validators.extend  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]  (has no types)
    return extend(Draft202012Validator, {name: _in_time(check) for name, check in keywords.items()})


def _in_time(check: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*args: Any) -> Any:
        if time.monotonic() > _deadline.get():
            raise TimeoutError(f"checking it takes longer than {MOST_S:g} s")
        return check(*args)

    return checked
