"""The components of a program, and the ways to serve them.

`StepflowServer` is what authors of components see; `stdio.py` and `http.py` serve what it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from .components import ComponentEntry, Components, component_name, description_of, names_around

_Function = TypeVar("_Function", bound=Callable[..., Any])


class StepflowServer:
    """A set of components. With `include_builtins` it has `/udf`, which runs code that is kept in a blob."""

    def __init__(self, include_builtins: bool = True) -> None:
        #: For the transports.
        self.components = Components()
        self._is_initialized = False
        if include_builtins:
            from .udf import UserFunctions

            functions = UserFunctions()
            self.components.add(ComponentEntry("/udf", functions.run, description_of(functions.run)))

    @overload
    def component(self, func: _Function, /) -> _Function: ...
    @overload
    def component(
        self, func: None = None, *, name: str | None = None, description: str | None = None, blocking: bool = True
    ) -> Callable[[_Function], _Function]: ...
    def component(
        self,
        func: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        blocking: bool = True,
    ) -> Callable[..., Any]:
        """Make a function a component: `@server.component` or `@server.component(name="core/{*path}")`.

        The first parameter is the input, by its annotation; the annotation of the result is the output. A parameter
        called `context` gets the `StepflowContext`, and parameters in the name are given by their names. Without
        `name` it is that of the function, without `description` its docstring. Plain functions run in threads of their
        own, so they may block. One that is short and never waits says `blocking=False` and needs no thread: it holds
        everything else up as long as it works, and is several times as fast in the process of the flow.

        Raises:
            TypeError: the function does not take what it is given, or a type has no JSON form.
            ValueError: there is a component of this name.
        """
        known = names_around(2)
        if func is not None:
            self._add(func, name, description, known, blocking)
            return func

        def decorate(function: _Function) -> _Function:
            self._add(function, name, description, known, blocking)
            return function

        return decorate

    @overload
    def langchain_component(self, func: _Function, /) -> _Function: ...
    @overload
    def langchain_component(
        self,
        func: None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        execution_mode: str = "invoke",
    ) -> Callable[[_Function], _Function]: ...
    def langchain_component(
        self,
        func: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        execution_mode: str = "invoke",
    ) -> Callable[..., Any]:
        """Make the LangChain runnable that a function returns a component.

        Its input is `{"input": …, "config"?: {…}, "execution_mode"?: "invoke" | "batch" | "stream"}`.

        Raises:
            StepflowExecutionError: langchain-core is not installed, or the function gives no runnable.
            ValueError: there is no such `execution_mode`, or there is a component of this name.
        """
        from .langchain import runnable_component

        def decorate(function: _Function) -> _Function:
            path = component_name(name, function)
            self.components.add(
                runnable_component(path, function, description or description_of(function), execution_mode)
            )
            return function

        return decorate if func is None else decorate(func)

    def get_component(self, component_path: str) -> ComponentEntry | None:
        """The component of this name, which begins with `/`."""
        return self.components.entries.get(component_path)

    def get_components(self) -> dict[str, ComponentEntry]:
        """All components by their names."""
        return dict(self.components.entries)

    def is_initialized(self) -> bool:
        """Whether a runtime has introduced itself."""
        return self._is_initialized

    def set_initialized(self, initialized: bool) -> None:
        """Called by transports."""
        self._is_initialized = initialized

    def start_stdio(self) -> None:
        """Serve a runtime that has started this process, until it has enough (`StepflowStdioServer.run`)."""
        from .stdio import StepflowStdioServer

        StepflowStdioServer(self).run()

    async def start_http(
        self,
        host: str = "localhost",
        port: int = 8080,
        workers: int = 3,
        backlog: int = 128,
        timeout_keep_alive: int = 5,
    ) -> None:
        """Serve over HTTP until the process is told to end (`StepflowHttpServer.run`)."""
        from .http import StepflowHttpServer

        await StepflowHttpServer(
            self, host, port, workers=workers, backlog=backlog, timeout_keep_alive=timeout_keep_alive
        ).run()

    def _add(
        self, function: Callable[..., Any], name: str | None, description: str | None, known: Any, is_blocking: bool
    ) -> None:
        path = component_name(name, function)
        described = description or description_of(function)
        self.components.add(ComponentEntry(path, function, described, known, is_blocking=is_blocking))
