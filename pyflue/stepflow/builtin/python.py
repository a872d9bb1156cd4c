"""The plugin of type `python`: a `StepflowServer` whose components run in this process, without a transport.

`{type: python, server: "my_components:server"}` in a config, or a server handed to `StepflowRuntime`. Coroutine
functions run on the event loop of the flow, plain functions in threads unless they say that they never wait. What a
component gets, may ask and is told is the same as over stdio; only its process is not one of its own, so one that ends
or blocks it harms all others.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from ... import codec
from ..config import ConfigInvalid, PluginEntry
from ..jsonrpc import RpcError
from ..plugins.port import ComponentCall, ComponentFailed, ComponentInfo
from ..protocol import Calls, answer, failure_of, output_of
from ..sdk import messages
from ..sdk.context import Waiting
from ..sdk.dispatcher import Call, Dispatcher
from ..sdk.exceptions import StepflowError
from ..sdk.server import StepflowServer
from ..sdk.threads import Threads

_INTERNAL = -32000


class _Answer(msgspec.Struct, frozen=True):
    """What a component came to, as the dispatcher writes it."""

    result: dict[str, Any] | None = None
    error: messages.RpcError | None = None


_read_answer = msgspec.json.Decoder(_Answer).decode


class PythonPlugin:
    """Components of a server in this process."""

    def __init__(self, name: str, server: StepflowServer) -> None:
        self._name = name
        self._components = server.components
        self._dispatcher = Dispatcher(server.components, is_initialized=True)
        self._threads = Threads()
        self._no_link = _NoLink(self._threads)

    @classmethod
    def of_entry(cls, entry: PluginEntry) -> PythonPlugin:
        """The plugin that a config describes. Imports the module, from the working directory if it is there.

        Raises:
            ConfigInvalid: there is no such server.
        """
        place = entry.settings.get("server")
        if not isinstance(place, str) or ":" not in place:
            problem = f"plugin {entry.name!r} needs `server`, a module and a name in it: 'my_components:server'."
            raise ConfigInvalid(entry.where, problem)
        module, _, attribute = place.partition(":")
        try:
            found = getattr(_import(module, entry.folder), attribute, None)
        except Exception as error:
            # The module is an author's, and may raise anything.
            problem = f"plugin {entry.name!r}: importing {module!r} failed: {type(error).__name__}: {error}"
            raise ConfigInvalid(entry.where, problem) from error
        if not isinstance(found, StepflowServer):
            problem = f"plugin {entry.name!r}: {attribute!r} in {module!r} is not a StepflowServer."
            raise ConfigInvalid(entry.where, problem)
        return cls(entry.name, found)

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> Sequence[ComponentInfo]:
        return [
            ComponentInfo(
                path=entry.name,
                description=entry.description,
                input_schema=entry.input_schema(),
                output_schema=entry.output_schema(),
            )
            for entry in list(self._components.entries.values())
        ]

    async def execute(self, call: ComponentCall) -> Any:
        try:
            entry, in_path = self._components.find(call.component)
        except StepflowError as error:
            raise failure_of(RpcError(error.code, error.message)) from error
        link = _Link(call, self._threads) if entry.expects_context else self._no_link
        observability = messages.Observability(
            span_id=link.span_id, run_id=call.run_id, flow_id=call.flow_id, step_id=call.step_id
        )
        params = messages.ExecuteParams(
            call.component, msgspec.Raw(memoryview(codec.encode(call.input))), call.attempt, observability
        )
        asked = Call(1, entry, in_path, params)
        try:
            if entry.is_async:
                said = await self._dispatcher.run_async(asked, link)
            elif entry.is_blocking:
                said = await self._threads.call(self._dispatcher.run, asked, link)
            else:
                said = self._dispatcher.run(asked, link)
        except SystemExit as error:
            # In a process of its own it would end that; this one is not the component's.
            raise ComponentFailed(f"The component ended with sys.exit({error.code!r}).") from error
        finally:
            if isinstance(link, _Link):
                await link.close()
        answered = _read_answer(said)
        if answered.error is not None:
            raise failure_of(RpcError(answered.error.code, answered.error.message, answered.error.data))
        return output_of(answered.result, self._name)

    async def close(self) -> None:
        """Its threads end with what they do."""


class _NoLink:
    """For components that do not look at their context."""

    span_id: str | None = None

    def __init__(self, threads: Threads) -> None:
        self.threads = threads
        self.waiting = Waiting()

    def send(self, message: bytes) -> None:
        raise AssertionError("there is no context to ask through")


class _Link:
    """The way of a component to the run that calls it. Implements `sdk.context.Link`."""

    def __init__(self, call: ComponentCall, threads: Threads) -> None:
        self.threads = threads
        self.waiting = Waiting()
        self._calls = Calls()
        self.span_id = self._calls.begin(call)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, message: bytes) -> None:
        self._loop.call_soon_threadsafe(self._begin, message)

    def _begin(self, message: bytes) -> None:
        task = self._loop.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes) -> None:
        asked = messages.read_message(data)
        method = asked.method if isinstance(asked.method, str) else ""
        params = msgspec.json.decode(asked.params) if isinstance(asked.params, msgspec.Raw) else None
        assert isinstance(asked.id, (int, str))  # noqa: S101  (the SDK's own requests have ids)
        try:
            answered = messages.success(asked.id, await answer(self._calls, method, params))
        except RpcError as error:
            answered = messages.failure(asked.id, error.code, error.message, error.data)
        except Exception as error:  # noqa: BLE001  (the component gets an answer, whatever went wrong)
            answered = messages.failure(asked.id, _INTERNAL, f"{type(error).__name__}: {error}")
        self.waiting.answer(messages.read_message(answered))

    async def close(self) -> None:
        self.waiting.end()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _import(module: str, folder: Path) -> Any:
    """A module, also one that lies in the folder."""
    place = str(folder)
    is_new = place not in sys.path
    if is_new:
        sys.path.insert(0, place)
    try:
        return import_module(module)
    finally:
        if is_new:
            sys.path.remove(place)
