"""The bodies that have a shape of our own: what decides an approval, and what forks a run.

Read by their routes and shown in the OpenAPI document. Imported with the first such request, in a thread, because
pydantic takes its time; payloads and the data of signals never pass here.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from .. import codec
from ..errors import InvalidRequest
from ..typed import Misfit, shape_of

#: As many characters as are always kept whole.
_LONGEST_REASON = 2000
_LONGEST_NAME = 256
_PROBLEMS_SAID = 5


class Input(BaseModel):
    """A body of which every field is known."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def gives(self, name: str) -> bool:
        """Whether a field was given at all; null is a value."""
        return name in self.model_fields_set


class Decision(Input):
    """Approves or rejects."""

    approved: bool
    reason: str | None = Field(default=None, max_length=_LONGEST_REASON, description="Why, for people.")
    data: Any = Field(default=None, description="Approved instead of what was asked; it has to fit the `schema`.")
    by: str | None = Field(
        default=None,
        min_length=1,
        max_length=_LONGEST_NAME,
        description="Who decides. Where the server has tokens it is the name of the token, and nothing else.",
    )


class Fork(Input):
    """Where a new run begins, and with what payload."""

    from_step: str = Field(min_length=1, description="The key of a step, or its name if only one step has that.")
    payload_patch: Any = Field(default=None, description="A JSON merge patch (RFC 7396) of the payload.")


class Attachment(Input):
    """An image or a document: its bytes, or where an image is."""

    mime_type: str = "image/png"
    data: str | None = Field(default=None, description="Its bytes in base64.")
    url: str | None = Field(default=None, description="Where an image is, instead of `data`.")
    name: str | None = None


_SESSION = Field(default="default", min_length=1, max_length=128, description="Which conversation.")
_SCHEMA = Field(default=None, alias="schema", description="JSON Schema of the data wanted.")


class Prompt(Input):
    """What is said to an agent. Read by the agents room; here for the document."""

    message: str = Field(min_length=1)
    session: str = _SESSION
    images: list[Attachment] | None = None
    schema_: dict[str, Any] | None = _SCHEMA


class Dispatch(Input):
    """Work for an agent. Read by the agents room; here for the document."""

    input: Any = Field(description="Text is said as it is, anything else as JSON.")
    session: str = _SESSION
    schema_: dict[str, Any] | None = _SCHEMA


#: Every shape that the document names.
INPUTS: tuple[type[Input], ...] = (Decision, Fork, Prompt, Dispatch)

T = TypeVar("T", bound=Input)


def read_input(kind: type[T], body: bytes, max_depth: int) -> T:
    """The body as its shape.

    Raises:
        InvalidJson, TooDeep; InvalidRequest: it does not fit; `details` lists each problem with its path.
    """
    value = codec.decode(body, "The request's body", max_depth=max_depth)
    try:
        return shape_of(kind, "payload").load(value)
    except Misfit as misfit:
        listed = "; ".join(f"{problem['path']}: {problem['message']}" for problem in misfit.problems[:_PROBLEMS_SAID])
        raise InvalidRequest(f"The request's body does not fit: {listed}.", details=misfit.problems) from misfit
