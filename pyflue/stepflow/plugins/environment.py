"""The plugins of a config, and the routes to them: what a flow runs in.

Made by the runtime for a config; shared by all runs with that config. A plugin is made when the first route leads to
it, and starts with its first use. One that cannot be made or used is a failure of the steps that need it, and of no
other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, TypeAlias

from ..config import ConfigInvalid, PluginEntry, StepflowConfig, Transport, url_problem
from ..jsonrpc import RpcLimits
from ..routing import Router
from .port import ComponentCall, ComponentFailed, ComponentInfo, Plugin

#: Makes the plugins of a type.
Factory: TypeAlias = Callable[[PluginEntry], Plugin]

#: How long all plugins together may take to end.
_CLOSE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the plugins offer."""

    #: By the paths that flows write, in the order of these.
    components: tuple[ComponentInfo, ...]
    #: Why a plugin could not be asked, by its name.
    failures: Mapping[str, str] = field(default_factory=dict[str, str])


class Environment:
    """Plugins and routes. Belongs to one event loop.

    `factories` make plugins of types that this room's plugins do not cover (`builtin`, `pyflue`); `plugins` are ready
    ones, by names that the config's routes use, and go before the config's.
    """

    def __init__(
        self,
        config: StepflowConfig,
        *,
        factories: Mapping[str, Factory] | None = None,
        plugins: Mapping[str, Plugin] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Look the config over; nothing is started.

        Raises:
            ConfigInvalid: a plugin is of a type that there is not.
        """
        self.config = config
        self._factories: dict[str, Factory] = {**_FACTORIES, **(factories or {})}
        #: The names of the plugins that do not come from the config.
        self.ready = frozenset(plugins or ())
        self._plugins: dict[str, Plugin] = dict(plugins or {})
        self._environ = os.environ if environ is None else environ
        self._is_closed = False
        for entry in config.plugins.values():
            if entry.type not in self._factories and entry.name not in self._plugins:
                raise _unknown_type(entry, list(self._factories))
        self.router = Router(config.routes, [*config.plugins, *self._plugins], self.plugin)

    def plugin(self, name: str) -> Plugin:
        """A plugin by its name; made when it is first asked for."""
        found = self._plugins.get(name)
        if found is None:
            found = self._plugins[name] = self._make(self.config.plugins[name])
        return found

    async def components(self, *, include_unreachable: bool = False) -> Found:
        """What flows can call, all plugins being asked at once.

        With `include_unreachable` also what no route leads to, by the path that its plugin knows.
        """
        names = [*self.config.plugins, *(name for name in self._plugins if name not in self.config.plugins)]
        answers = await asyncio.gather(*map(self._components_of, names))
        found: dict[str, ComponentInfo] = {}
        failures: dict[str, str] = {}
        unreachable: list[ComponentInfo] = []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, str):
                failures[name] = answer
                continue
            for info in answer:
                paths = self.router.paths_to(name, info.path)
                for path in paths:
                    found.setdefault(path, replace(info, path=path))
                if not paths:
                    unreachable.append(info)
        if include_unreachable:
            for info in unreachable:
                found.setdefault(info.path, info)
        return Found(components=tuple(found[path] for path in sorted(found)), failures=failures)

    async def close(self) -> None:
        """End all plugins; no process is left."""
        self._is_closed = True
        closing = [asyncio.ensure_future(plugin.close()) for plugin in self._plugins.values()]
        if not closing:
            return
        try:
            await asyncio.wait(closing, timeout=_CLOSE_S)
        finally:
            # Cancelled, they let go at once of what they hold.
            for task in closing:
                task.cancel()
            await asyncio.gather(*closing, return_exceptions=True)

    async def _components_of(self, name: str) -> list[ComponentInfo] | str:
        try:
            return list(await self.plugin(name).components())
        except ComponentFailed as error:
            return error.message

    def _make(self, entry: PluginEntry) -> Plugin:
        if self._is_closed:
            return BrokenPlugin(f"Plugin {entry.name!r} cannot be used: it is closed.")
        try:
            return self._factories[entry.type](entry.resolved(self._environ))
        except ConfigInvalid as error:
            return BrokenPlugin(str(error))


class BrokenPlugin:
    """Stands for a plugin that cannot be made: whoever needs it hears why."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> list[ComponentInfo]:
        raise ComponentFailed(self._problem, is_retryable=False)

    async def execute(self, call: ComponentCall) -> Any:
        raise ComponentFailed(self._problem, is_retryable=False)

    async def close(self) -> None:
        """There is nothing to let go of."""


def _server(entry: PluginEntry) -> Plugin:
    match entry.transport:
        case Transport.HTTP:
            from .http import HttpPlugin, HttpSettings

            _check_url(entry)
            return HttpPlugin(entry.name, HttpSettings(url=entry.url, headers=entry.headers, **_http_waits(entry)))
        case Transport.SUBPROCESS:
            from .http import HttpSettings
            from .subprocess import SubprocessPlugin, SubprocessSettings

            # The address is known when the program listens.
            http = HttpSettings(url="", **_http_waits(entry))
            return SubprocessPlugin(entry.name, SubprocessSettings(**_program(entry), http=http, **_start_wait(entry)))
        case _:
            from .stdio import StdioPlugin, StdioSettings

            return StdioPlugin(entry.name, StdioSettings(**_program(entry), **_waits(entry), **_start_wait(entry)))


def _mcp(entry: PluginEntry) -> Plugin:
    waits = _start_wait(entry)
    if entry.execute_timeout_s is not None:
        waits["read_timeout_s"] = entry.execute_timeout_s
    if entry.list_timeout_s is not None:
        waits["list_timeout_s"] = entry.list_timeout_s
    if entry.limit_bytes is not None:
        waits["limits"] = RpcLimits(message_bytes=entry.limit_bytes)
    if entry.transport is Transport.HTTP:
        from .mcp_http import McpHttpPlugin, McpHttpSettings

        _check_url(entry)
        settings = McpHttpSettings(url=entry.url, headers=entry.headers, secrets=entry.secrets, **waits)
        return McpHttpPlugin(entry.name, settings)
    from .mcp import McpPlugin, McpSettings

    program = _program(entry)
    # Servers of tools expect the user's environment, with their own variables on top of it.
    program["env"] = {**os.environ, **entry.env}
    return McpPlugin(entry.name, McpSettings(**program, **waits))


def _check_url(entry: PluginEntry) -> None:
    """Look at the address again: it may have come from the environment."""
    if (problem := url_problem(entry.url)) is not None:
        raise ConfigInvalid(entry.where, f"plugin {entry.name!r}: {problem}")


def _mock(entry: PluginEntry) -> Plugin:
    from .mock import MockMalformed, MockPlugin

    try:
        return MockPlugin(entry.name, entry.components)
    except MockMalformed as error:
        place = ".".join(("components", *error.path))
        raise ConfigInvalid(entry.where, f"mock {entry.name!r}, {place}: {error.problem}") from error


_FACTORIES: Mapping[str, Factory] = {"stepflow": _server, "mcp": _mcp, "mock": _mock}


def _program(entry: PluginEntry) -> dict[str, Any]:
    return {
        "command": entry.command,
        "args": entry.args,
        "env": entry.env,
        "cwd": entry.folder,
        "secrets": entry.secrets,
    }


def _start_wait(entry: PluginEntry) -> dict[str, Any]:
    return {} if entry.start_timeout_s is None else {"start_timeout_s": entry.start_timeout_s}


def _waits(entry: PluginEntry) -> dict[str, Any]:
    waits: dict[str, Any] = {"execute_timeout_s": entry.execute_timeout_s}
    if entry.list_timeout_s is not None:
        waits["list_timeout_s"] = entry.list_timeout_s
    if entry.limit_bytes is not None:
        waits["limits"] = RpcLimits(message_bytes=entry.limit_bytes)
    return waits


def _http_waits(entry: PluginEntry) -> dict[str, Any]:
    return {**_waits(entry), "secrets": entry.secrets}


def _unknown_type(entry: PluginEntry, known: list[str]) -> ConfigInvalid:
    close = get_close_matches(entry.type, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}."
    return ConfigInvalid(entry.where, f"plugin {entry.name!r} is of type {entry.type!r}, which there is not; {hint}")
