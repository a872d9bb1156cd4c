"""Commands: what an author lets an agent run by name, as a shell command of theirs or as a Python function.

`define_command` makes a `PyFlueCommand`; the harness offers each one to the model as a tool, and to a sandbox's shell
where that takes commands of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import AgentInvalid
from . import checking

_FIELDS = ("description", "command", "callable", "schema", "cwd", "env", "timeout_s")
#: A shell command takes further words, which are quoted and written behind it.
_ARGUMENTS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "args": {"type": "array", "items": {"type": "string"}, "description": "Arguments, one item for each word."}
    },
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PyFlueCommand:
    """A command by name: either `command`, text for the sandbox's shell, or `callable`, a function of keywords."""

    name: str
    description: str
    command: str | None = None
    callable: Callable[..., Any] | None = None
    #: JSON Schema of what `callable` takes.
    schema: Mapping[str, Any] | None = None
    cwd: str | None = None
    #: Further variables of the shell command; may hold secrets.
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    timeout_s: float = 120.0

    @property
    def input_schema(self) -> Mapping[str, Any]:
        """JSON Schema of the tool that the model sees."""
        if self.command is not None:
            return _ARGUMENTS_SCHEMA
        return self.schema if self.schema is not None else {"type": "object", "properties": {}}

    @property
    def executable(self) -> str | None:
        """The program that a shell command runs, which is granted with it."""
        return None if self.command is None else shlex.split(self.command)[0]

    def shell_text(self, arguments: Mapping[str, Any]) -> str:
        """The shell command with the arguments of a call, which have passed `input_schema`."""
        words = [shlex.quote(word) for word in arguments.get("args", ())]
        return " ".join([self.command or "", *words])


def define_command(
    name: str,
    implementation: str | Callable[..., Any] | Mapping[str, Any] | None = None,
    *,
    description: str | None = None,
    command: str | None = None,
    callable: Callable[..., Any] | None = None,  # noqa: A002  (the word that its users were promised)
    schema: Mapping[str, Any] | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> PyFlueCommand:
    """Define a command. `implementation` is a shell command, a function, or a mapping of the other arguments.

    Without `schema` a function's signature gives its schema; without `description` its docstring gives that.

    Raises:
        AgentInvalid: naming what cannot be used.
    """
    checking.call_name(f"Command {checking.shown(name)}", name)
    what = f"Command {name!r}"
    given: dict[str, Any] = {
        "description": description,
        "command": command,
        "callable": callable,
        "schema": schema,
        "cwd": cwd,
        "env": env,
        "timeout_s": timeout_s,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if isinstance(implementation, Mapping):
        options: Mapping[str, Any] = checking.mapping(what, "implementation", implementation)
        checking.refuse_unknown(what, "command", options, _FIELDS)
        given = {**options, **given}
    elif isinstance(implementation, str):
        given.setdefault("command", implementation)
    elif implementation is not None:
        given.setdefault("callable", implementation)
    return _checked(what, name, given)


def _checked(what: str, name: str, given: dict[str, Any]) -> PyFlueCommand:
    command, function = given.get("command"), given.get("callable")
    if (command is None) == (function is None):
        found = "neither" if command is None else "both"
        raise AgentInvalid(f"{what}: it needs either a shell command or a callable, and has {found}.")
    schema = given.get("schema")
    if function is not None:
        if not callable(function):
            checking.refuse(what, "callable", function, "it must be a function")
        for field_name in ("cwd", "env"):
            if given.get(field_name):
                raise AgentInvalid(f"{what}: {field_name} goes with a shell command, not with a callable.")
        if schema is None:
            from .tools import schema_of

            schema = schema_of(name, function)
    else:
        _check_shell(what, command)
        if schema is not None:
            raise AgentInvalid(f"{what}: schema goes with a callable; a shell command takes a list `args`.")
    return PyFlueCommand(
        name=name,
        description=checking.text(what, "description", given.get("description") or _doc(function) or command),
        command=command,
        callable=function,
        schema=None if schema is None else checking.mapping(what, "schema", schema),
        cwd=None if given.get("cwd") is None else checking.text(what, "cwd", given["cwd"]),
        env=environment(what, "env", given.get("env") or {}),
        timeout_s=checking.number(what, "timeout_s", given.get("timeout_s", 120.0)),
    )


def checked_commands(what: str, value: Any) -> tuple[str | PyFlueCommand, ...]:
    """The `commands` of an agent or a call: commands, and names of programs that the shell may run besides.

    Raises:
        AgentInvalid: one is neither, or a name is taken.
    """
    from .tools import refuse_taken_names

    commands: list[str | PyFlueCommand] = []
    for each in checking.items(what, "commands", value):
        if not isinstance(each, PyFlueCommand) and not (isinstance(each, str) and each.strip()):
            checking.refuse(
                what, "a command", each, "give the name of a program, or make a command with define_command"
            )
        commands.append(each)
    refuse_taken_names(what, [each.name for each in commands if isinstance(each, PyFlueCommand)])
    return tuple(commands)


def _check_shell(what: str, command: Any) -> None:
    checking.text(what, "command", command)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise AgentInvalid(f"{what}: command {command!r} is no shell command: {error}.") from error
    if not words:
        checking.refuse(what, "command", command, "it must name a program")


def _doc(function: Any) -> str:
    return (getattr(function, "__doc__", None) or "").strip().partition("\n")[0]


def environment(what: str, field_name: str, value: Any) -> Mapping[str, str]:
    """Variables of an environment. Values are never shown: they may be secrets."""
    variables = checking.mapping(what, field_name, value)
    for key, each in variables.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            checking.refuse(what, f"a name in {field_name}", key, "it must be the name of a variable")
        if not isinstance(each, str) or "\0" in each:
            raise AgentInvalid(f"{what}: {field_name}[{key!r}] is a {type(each).__name__}; it must be a string.")
    return dict(variables)
