"""Getting at agents' instances for the routes and the WebSocket: the room imported late, what is asked read strictly.

Called by `agents.py` and `agent_socket.py`. The agents room is imported with the first request that concerns agents,
in a thread.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from .. import codec
from ..codec import Raw
from ..engine import RequestInfo, RunHandle
from ..errors import AgentInvalid, PayloadInvalid
from ..logs import logger
from .services import Services

if TYPE_CHECKING:
    from ..agents.files import AgentFile
    from ..agents.instances import Instances
    from ..agents.interactions import Interaction

_log = logger("pyflue.server")

_PROMPT = frozenset({"message", "session", "images", "schema"})
_DISPATCH = frozenset({"input", "session", "schema"})


class Asking:
    """What routes ask of instances, on behalf of callers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._instances: Instances | None = None

    async def instances(self) -> Instances:
        """The continuing agents."""
        if self._instances is None:
            self._instances = await asyncio.to_thread(self._services.agents)
        return self._instances

    async def find(
        self, name: str, instance_id: str, *, action: str, session: str | None = None, request: Raw
    ) -> tuple[AgentFile, str]:
        """An agent whose instance the caller may do this with, and the instance's stream.

        Raises:
            AgentNotFound; AgentInvalid; InvalidRequest: no id of an instance; AccessRefused, and what the file's hook
            raises.
        """
        instances = await self.instances()
        asked_by = RequestInfo.from_raw(request)
        try:
            return await instances.find(name, instance_id, action=action, session=session, request=asked_by)
        except AgentInvalid as error:
            raise self.hidden(name, error) from None

    def hidden(self, name: str, error: AgentInvalid) -> AgentInvalid:
        """What a caller learns of a broken file: outside of `dev` not its text, nor where it lies on this machine."""
        if self._services.dev:
            return error
        _log.warning("agent_invalid", agent=name, problem=str(error))
        return AgentInvalid(f"The file of agent {name!r} cannot be used; the server's log says why.")

    async def submit(
        self, name: str, instance_id: str, asked: Asked, *, request: Raw, idempotency_key: str | None = None
    ) -> RunHandle:
        """Accept a prompt or a dispatch. Nothing is said of what is wrong with it to whoever may not make it.

        Raises:
            As `find` and `Instances.submit`; PayloadInvalid.
        """
        file, stream_id = await self.find(
            name, instance_id, action=asked.action, session=asked.session, request=request
        )
        interaction = asked.interaction(f"agent:{name}")
        instances = await self.instances()
        return await instances.submit(file, stream_id, interaction, request=request, idempotency_key=idempotency_key)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller wants of an agent, as it came: not checked yet."""

    #: `prompt` or `dispatch`.
    action: str
    value: Any

    @property
    def session(self) -> str:
        """The session it is for; a value that can be none is refused later, by `interaction`."""
        session = self._fields.get("session")
        return session if isinstance(session, str) else "default"

    @property
    def _fields(self) -> dict[str, Any]:
        value: Any = self.value
        return dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}

    def interaction(self, what: str) -> Interaction:
        """It as an interaction.

        Raises:
            PayloadInvalid: with the path of each problem.
        """
        from ..agents.interactions import Interaction

        known = _PROMPT if self.action == "prompt" else _DISPATCH
        wanted = "a `message`" if self.action == "prompt" else "an `input`"
        given = self._fields
        if not isinstance(self.value, Mapping):
            raise PayloadInvalid(what, [{"path": "$", "message": f"expected an object with {wanted}"}])
        strange = sorted(str(name) for name in given.keys() - known)
        if strange:
            problems = [{"path": f"$.{name}", "message": "there is no such field"} for name in strange]
            raise PayloadInvalid(what, problems)
        if self.action == "prompt":
            return Interaction.of(given, what=what)
        if "input" not in given:
            raise PayloadInvalid(what, [{"path": "$.input", "message": "is missing"}])
        said = given.pop("input")
        message = said if isinstance(said, str) else codec.encode(said).decode()
        if not message.strip():
            raise PayloadInvalid(what, [{"path": "$.input", "message": "expected a text that is not empty"}])
        return dataclasses.replace(Interaction.of({**given, "message": message}, what=what), kind="dispatch")
