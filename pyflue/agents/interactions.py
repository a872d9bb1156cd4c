"""Interactions: one prompt to, or one dispatch for, the instance of a continuing agent.

To the engine an interaction is a run of a workflow `agent:<name>`, so it is as durable as any: it goes on after a
crash, waits for approvals, can be cancelled. It is shown as what it is: on the instance's stream, and in no list of
runs. Interactions of one session go one after the other (their lane).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import codec
from ..codec import Raw
from ..engine import FlueContext, Graph, Recovery
from ..errors import PayloadInvalid
from ..ids import AGENT_PREFIX
from .bounded import check_outside_schema
from .content import Document, Image
from .files import AgentFile

KIND = "agent"
_MOST_SESSION_CHARACTERS = 100
_FIELDS = frozenset({"message", "session", "images", "schema", "kind"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """What somebody wants of an agent's instance."""

    #: What is said to the model.
    message: str
    session: str = "default"
    images: tuple[Image | Document, ...] = ()
    #: JSON Schema of the data wanted.
    schema: Mapping[str, Any] | None = None
    #: Whether somebody waits for the answer, or it was handed in.
    kind: Literal["prompt", "dispatch"] = "prompt"

    @classmethod
    def of(cls, value: Any, *, what: str) -> Interaction:
        """An interaction out of JSON, which is hostile.

        Raises:
            PayloadInvalid: with the path of each problem.
        """
        problems: list[dict[str, str]] = []
        if not isinstance(value, Mapping):
            raise PayloadInvalid(what, [{"path": "$", "message": "expected an object with a `message`"}])
        given: Mapping[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        problems += [{"path": f"$.{name}", "message": "there is no such field"} for name in given.keys() - _FIELDS]
        message = given.get("message")
        if not isinstance(message, str) or not message.strip():
            problems.append({"path": "$.message", "message": "expected a text that is not empty"})
        session = given.get("session", "default")
        if not _is_session_name(session):
            problems.append({"path": "$.session", "message": "expected 1 to 100 printable characters without '/'"})
        schema = given.get("schema")
        if schema is not None:
            try:
                check_outside_schema(schema)
            except (ValueError, TypeError) as error:
                problems.append({"path": "$.schema", "message": str(error)})
        images: list[Image | Document] = []
        listed: Any = given.get("images") or []
        for index, entry in enumerate(listed if isinstance(listed, list) else [None]):  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
            image = _attachment(entry)
            if image is None:
                expected = "expected {mime_type, data} with data in base64, or {url}"
                problems.append({"path": f"$.images[{index}]", "message": expected})
            else:
                images.append(image)
        if problems:
            raise PayloadInvalid(what, problems)
        kind: Any = given.get("kind", "prompt")
        return cls(
            message=str(message),
            session=session,
            images=tuple(images),
            schema=schema,
            kind="dispatch" if kind == "dispatch" else "prompt",
        )

    def to_raw(self) -> Raw:
        """As the journal keeps it."""
        told: dict[str, Any] = {"kind": self.kind, "session": self.session, "message": self.message}
        if self.images:
            told["images"] = [_attachment_told(image) for image in self.images]
        if self.schema is not None:
            told["schema"] = self.schema
        return Raw(codec.encode(told))


class AgentWorkflow:
    """The workflow that interactions with one agent are runs of; implements `engine.Workflow`."""

    kind = KIND
    input_schema: Mapping[str, Any] = {}
    output_schema: Mapping[str, Any] = {}
    recovery = Recovery.RESUME
    is_strict = False

    def __init__(self, file: AgentFile) -> None:
        self._file = file
        self.name = AGENT_PREFIX + file.name
        self.path: Path = file.path
        self.version: str = file.version
        self.description: str = file.description

    def parse(self, payload: Any) -> Interaction:
        """As `Workflow.parse`."""
        return Interaction.of(payload, what=self.name)

    def graph(self) -> Graph | None:
        """As `Workflow.graph`."""
        return None

    async def run(self, ctx: FlueContext[Any]) -> Any:
        """Prompt the session, and return the reply as JSON."""
        asked: Interaction = ctx.payload
        harness = await ctx.init(self._file.agent)
        session = await harness.session(asked.session)
        options: dict[str, Any] = {} if asked.schema is None else {"result": asked.schema}
        reply = await session.prompt(asked.message, images=asked.images, **options)
        return reply.to_dict()


def _is_session_name(value: Any) -> bool:
    # Names with a slash are those of tasks' sessions.
    return (
        isinstance(value, str)
        and 0 < len(value) <= _MOST_SESSION_CHARACTERS
        and value.isprintable()
        and "/" not in value
    )


def _attachment(entry: Any) -> Image | Document | None:
    if not isinstance(entry, Mapping):
        return None
    given: Mapping[str, Any] = entry  # pyright: ignore[reportUnknownVariableType]
    url, data, mime_type = given.get("url"), given.get("data"), given.get("mime_type", "image/png")
    if not isinstance(mime_type, str):
        return None
    if isinstance(url, str) and data is None:
        return Image(mime_type=mime_type, url=url)
    if not isinstance(data, str):
        return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    if mime_type.startswith("image/"):
        return Image(mime_type=mime_type, data=content)
    name = given.get("name")
    return Document(mime_type=mime_type, data=content, name=name if isinstance(name, str) else None)


def _attachment_told(image: Image | Document) -> dict[str, Any]:
    if isinstance(image, Image) and image.url is not None:
        return {"mime_type": image.mime_type, "url": image.url}
    data = base64.b64encode(image.data or b"").decode()
    told = {"mime_type": image.mime_type, "data": data}
    if isinstance(image, Document) and image.name is not None:
        told["name"] = image.name
    return told
