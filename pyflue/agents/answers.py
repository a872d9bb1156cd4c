"""What a prompt answers: the model's text, and the data it was asked for.

With `result=` the model is told the JSON Schema of the type: by the provider's own schema mode where there is one,
otherwise in the prompt, between two marks. Whatever comes back is hostile until it fits the type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from .. import codec
from ..codec import Raw
from ..errors import InvalidJson
from ..typed import Misfit, Shape, shape_of
from .bounded import bounded_misfits
from .content import Usage

T = TypeVar("T")

START = "---RESULT_START---"
END = "---RESULT_END---"
_BLOCK = re.compile(rf"{START}(.*?){END}", re.DOTALL)
_FENCE = re.compile(r"```[A-Za-z0-9_-]*\n(.*?)```", re.DOTALL)


class Reply(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The answer to a prompt."""

    #: What the model said in the end.
    text: str
    #: The validated value of `result=`; None without it.
    data: T = None  # pyright: ignore[reportAssignmentType]  (T is None without `result=`)
    #: Whether the prompt had `result=`.
    has_data: bool = False
    #: Tokens and cost of all turns of the operation, those of its tasks included.
    usage: Usage = Usage()
    #: The model that answered last, in the provider's words.
    model: str = ""
    #: How many times a model was asked.
    turns: int = 0
    operation_id: str = ""
    session: str = ""

    def model_dump(self, **_: Any) -> Any:
        """The data as JSON; without `result=` the text. So a workflow may return the reply itself."""
        if not self.has_data:
            return self.text
        return codec.load(codec.encode_value(self.data, "The data of the reply"))

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "data": self.model_dump() if self.has_data else None,
            "usage": self.usage.to_dict(),
            "model": self.model,
            "turns": self.turns,
            "operation_id": self.operation_id,
            "session": self.session,
        }


class _Schema:
    """JSON Schema in the place of a type, as callers from outside give it; implements `Shape`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema

    def load(self, value: Any) -> Any:
        if problems := bounded_misfits(value, self.schema):
            raise Misfit(problems)
        return value

    def dump(self, value: Any) -> Any:
        return value


class Wanted:
    """The type of `result=`."""

    __slots__ = ("_is_wrapped", "schema", "shape")

    def __init__(self, annotation: Any) -> None:
        self.shape: Shape = _Schema(annotation) if isinstance(annotation, Mapping) else shape_of(annotation, "payload")  # pyright: ignore[reportUnknownArgumentType]
        schema = self.shape.schema
        #: Providers' schema modes take objects only.
        self._is_wrapped = schema.get("type") != "object"
        self.schema: Mapping[str, Any] = schema

    @property
    def provider_schema(self) -> Mapping[str, Any]:
        """The schema of an object that holds the value, or is it."""
        if not self._is_wrapped:
            return self.schema
        inner = dict(self.schema)
        defs = inner.pop("$defs", None)
        wrapped: dict[str, Any] = {
            "type": "object",
            "properties": {"value": inner},
            "required": ["value"],
            "additionalProperties": False,
        }
        return wrapped if defs is None else {**wrapped, "$defs": defs}

    @property
    def instruction(self) -> str:
        """What to say to a model without a schema mode."""
        return (
            f"Answer with one JSON value that fits this JSON Schema, between the lines {START} and {END}:\n"
            f"{json.dumps(self.schema, ensure_ascii=False)}"
        )

    def parse(self, text: str, *, is_native: bool) -> tuple[Any, Raw]:
        """The data in a model's text, as its type and as JSON.

        Raises:
            Misfit: there is none, or it does not fit; with what is wrong.
        """
        value = _json_in(text)
        if is_native and self._is_wrapped and isinstance(value, dict) and value.keys() == {"value"}:  # pyright: ignore[reportUnknownMemberType]
            value = value["value"]  # pyright: ignore[reportUnknownVariableType]
        data = self.shape.load(value)
        return data, codec.encode_value(self.shape.dump(data), "The data of the reply")


def problems_told(problems: Sequence[Any]) -> str:
    """What did not fit, as the model is told."""
    lines = [f"- {problem['path'] or '(the whole value)'}: {problem['message']}" for problem in problems]
    return "\n".join(lines)


def _json_in(text: str) -> Any:
    """The JSON value of an answer.

    Raises:
        Misfit
    """
    problem = "there is no JSON value in the answer"
    for candidate in _candidates(text):
        try:
            return codec.decode(candidate.encode(errors="replace"), "The answer")
        except InvalidJson as error:
            problem = error.message
    raise Misfit([{"path": "", "message": problem}])


def _candidates(text: str) -> Sequence[str]:
    """Where the value may be, the likeliest place first."""
    marked = _BLOCK.findall(text)
    if marked:
        return [marked[-1].strip()]
    stripped = text.strip()
    found = [stripped]
    found += [block.strip() for block in reversed(_FENCE.findall(text))]
    for opening, closing in ("{}", "[]"):
        start, end = stripped.find(opening), stripped.rfind(closing)
        if 0 <= start < end:
            found.append(stripped[start : end + 1])
    return found
