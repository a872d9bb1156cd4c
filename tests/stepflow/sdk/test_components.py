"""What can be a component, without a transport."""

# ruff: noqa: A002  (components call their input so)
from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pyflue.stepflow as stepflow
from pyflue.stepflow import StepflowHttpServer, StepflowServer, StepflowStdioServer
from pyflue.stepflow.sdk import StepflowExecutionError


def test_a_decorated_function_is_still_that_function() -> None:
    server = StepflowServer()

    @server.component
    def plain(input: Any) -> Any:
        """Told."""
        return input

    @server.component(name="/other", description="Told otherwise.")
    async def named(input: Any) -> Any:
        return input

    assert plain(5) == 5
    assert {name: entry.description for name, entry in server.get_components().items() if name != "/udf"} == {
        "/plain": "Told.",
        "/other": "Told otherwise.",
    }
    entry = server.get_component("/plain")
    assert entry is not None
    assert (entry.function, entry.input_type, entry.output_type) == (plain, Any, Any)
    assert server.get_component("plain") is None


def test_types_may_be_local_to_the_function_around() -> None:
    server = StepflowServer(include_builtins=False)

    class Local(msgspec.Struct):
        x: int

    @server.component
    def local(input: Local) -> Local:
        return input

    @server.component(name="again")
    def local_again(input: "Local") -> "Local":  # noqa: UP037  (that is the point)
        return input

    entries = server.get_components()
    assert [entry.input_type for entry in entries.values()] == [Local, Local]
    assert list(entries) == ["/local", "/again"]


def test_callables_of_other_kinds_need_a_name_at_most() -> None:
    server = StepflowServer(include_builtins=False)

    class Adder:
        """Not what the component does."""

        async def __call__(self, input: int) -> int:
            return input + 1

    def add(input: int, step: int = 1) -> int:
        return input + step

    server.component(name="adder")(Adder())
    server.component(name="partial")(functools.partial(add, step=2))
    with pytest.raises(TypeError, match="needs `name=`"):
        server.component(Adder())
    entries = server.get_components()
    assert {name: (entry.is_async, entry.input_schema()) for name, entry in entries.items()} == {
        "/adder": (True, {"type": "integer"}),
        "/partial": (False, {"type": "integer"}),
    }


def test_what_cannot_be_called_is_refused_when_it_is_registered() -> None:
    server = StepflowServer(include_builtins=False)
    with pytest.raises(TypeError, match="/nothing must take the input as its first parameter"):

        @server.component
        def nothing() -> None: ...

    with pytest.raises(TypeError, match="/more takes `other`, which nothing gives it"):

        @server.component
        def more(input: Any, other: Any) -> None: ...

    with pytest.raises(TypeError, match="cannot be called `context`"):

        @server.component(name="a/{context}")
        def of_context(input: Any, context: str) -> None: ...

    with pytest.raises(TypeError, match="/unknown: name 'Missing' is not defined"):

        @server.component
        def unknown(input: Missing) -> None: ...  # noqa: F821  # type: ignore[name-defined]

    @server.component
    def twice(input: Any) -> None: ...

    with pytest.raises(ValueError, match="two components of the name '/twice'"):
        server.component(twice)

    @server.component(name="p/{x}/{*y}")
    def pattern(input: Any) -> None: ...

    for name, text in (
        ("p/{a}/{*b}", "same paths"),
        ("{*rest}/more", "can only be last"),
        ("{x}/{x}", "a name of its own"),
        ("a{x}", "must be a name"),
        ("{", "must be a name"),
    ):
        with pytest.raises(ValueError, match=text):
            server.component(name=name)(pattern)
    assert list(server.get_components()) == ["/twice", "/p/{x}/{*y}"]


def test_all_transports_have_the_components_of_their_server() -> None:
    server = StepflowServer()
    stdio, http = StepflowStdioServer(server), StepflowHttpServer(server)

    @stdio.component
    def one(input: Any) -> Any: ...

    @http.component(name="two")
    def other(input: Any) -> Any: ...

    assert list(server.get_components()) == list(stdio.get_components()) == ["/udf", "/one", "/two"]
    assert stdio.get_component("/two") is server.get_component("/two") is not None
    assert (http.host, http.port, http.workers, http.backlog, http.timeout_keep_alive) == (
        "localhost",
        8080,
        3,
        128,
        5,
    )
    assert len(http.instance_id) == 16
    assert not server.is_initialized()
    server.set_initialized(True)
    assert server.is_initialized()


def test_a_langchain_component_without_langchain_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    with pytest.raises(StepflowExecutionError, match="pip install langchain-core"):

        @StepflowServer().langchain_component
        def chain() -> Any: ...

    with pytest.raises(ValueError, match="Invalid execution_mode 'sideways'"):
        StepflowServer().langchain_component(execution_mode="sideways")(chain_of_nothing)


def chain_of_nothing() -> Any: ...


def test_every_public_name_can_be_imported_and_is_in_the_table() -> None:
    for module in (stepflow, stepflow.sdk):  # type: ignore[attr-defined]
        assert sorted(set(module.__all__)) == sorted(module.__all__)
        for name in module.__all__:
            assert getattr(module, name) is not None
        assert set(module.__all__) <= set(dir(module))
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = module.nothing


def test_the_package_is_where_it_is_promised() -> None:
    assert Path(stepflow.__file__).parent.joinpath("sdk", "stdio.py").is_file()
