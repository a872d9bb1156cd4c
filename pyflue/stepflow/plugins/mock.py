"""Components that answer what the config says they answer to an input: for tests of flows.

As in stepflow-ai/stepflow (`crates/stepflow-mock`): the whole input has to be equal to one that is listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from ..outcome import Failed, Outcome, Skipped, Success, from_wire
from ..yaml_reader import PairList
from .port import ComponentCall, ComponentFailed, ComponentInfo, ComponentSkipped


class MockMalformed(ValueError):
    """What a config says about a mock cannot be used. `path` leads to it, from `components` on."""

    def __init__(self, path: tuple[str, ...], problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class _Component:
    info: ComponentInfo
    #: By the input, in the one form that all spellings of a value have: an outcome, or the text of an error.
    behaviors: Mapping[bytes, Outcome | str] = field(default_factory=dict[bytes, "Outcome | str"])


class MockPlugin:
    """Components that do nothing but answer."""

    def __init__(self, name: str, components: Mapping[str, Any]) -> None:
        """Read what the config says.

        Raises:
            MockMalformed
        """
        self._name = name
        self._components = {
            path if path.startswith("/") else f"/{path}": _read(path, entry) for path, entry in components.items()
        }

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> Sequence[ComponentInfo]:
        return [component.info for component in self._components.values()]

    async def execute(self, call: ComponentCall) -> Any:
        component = self._components.get(call.component)
        if component is None:
            raise ComponentFailed(f"Mock {self._name!r} has no component {call.component!r}.", is_retryable=False)
        behavior = component.behaviors.get(_exact(call.input))
        match behavior:
            case Success(value):
                return value
            case Failed():
                raise ComponentFailed(behavior.message, failure=behavior)
            case Skipped(reason):
                raise ComponentSkipped(reason)
            case str():
                raise ComponentFailed(behavior, attachments=("error executing user-defined function", behavior))
            case None:
                text = msgspec.json.encode(call.input).decode()
                problem = f"No behavior defined for {call.component} on {text}"
                raise ComponentFailed(
                    problem, attachments=("error executing user-defined function", problem), is_retryable=False
                )

    async def close(self) -> None:
        """There is nothing to let go of."""


def _read(path: str, entry: Any) -> _Component:
    fields = _mapping(entry, (path,))
    behaviors: dict[bytes, Outcome | str] = {}
    for given, behavior in _pairs(fields.get("behaviors"), (path, "behaviors")):
        made = _behavior(behavior, (path, "behaviors", str(given)))
        behaviors[_exact(given)] = made
        if isinstance(given, str) and given[:1] in ("{", "["):
            # In a JSON config the keys are texts; one that holds an object or a list stands for that as well.
            with suppress(msgspec.MsgspecError):
                behaviors.setdefault(_exact(msgspec.json.decode(given)), made)
    info = ComponentInfo(
        path=path if path.startswith("/") else f"/{path}",
        input_schema=_schema(fields.get("input_schema", fields.get("inputSchema"))),
        output_schema=_schema(fields.get("output_schema", fields.get("outputSchema"))),
    )
    return _Component(info=info, behaviors=behaviors)


def _behavior(value: Any, path: tuple[str, ...]) -> Outcome | str:
    fields = _mapping(value, path)
    if "outcome" not in fields and isinstance(fields.get("error"), str):
        return cast("str", fields["error"])
    try:
        return from_wire(fields)
    except ValueError as error:
        raise MockMalformed(path, f"{error} Or write `error` and a text.") from error


def _pairs(value: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """Inputs and what is answered to each. YAML allows any value as a key; such mappings are read as pairs."""
    if value is None:
        return
    if isinstance(value, Mapping):
        yield from cast("Mapping[Any, Any]", value).items()
    elif isinstance(value, PairList):
        yield from value
    else:
        raise MockMalformed(path, "`behaviors` is a mapping of inputs to what is answered.")


def _mapping(value: Any, path: tuple[str, ...]) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    raise MockMalformed(path, "this is a mapping.")


def _schema(value: Any) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def _exact(value: Any) -> bytes:
    """Equal for values that are equal as JSON: whatever the order of keys; 1, 1.0 and true are three."""
    return msgspec.json.encode(value, order="deterministic")
