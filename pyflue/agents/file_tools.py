"""The built-in tools that a model gets for files and commands, over a sandbox and a policy.

The turn loop hands them to the model and runs them. What a model sends is hostile: its arguments are checked against
the tool's schema first, and every refusal is a sentence that the model can act on, raised as `ToolRefused` or as the
sandbox's own errors. Answers are cut at 2,000 lines and 51,200 characters, and say so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..errors import PyFlueError
from .sandboxes.policy import SandboxPolicy
from .sandboxes.port import CommandResult, FileInfo, Sandbox

MOST_LINES = 2000
MOST_CHARACTERS = 51_200
#: Longest time a model may give a command.
MOST_TIMEOUT_S = 3600.0

_DEFAULT_TIMEOUT_S = 120.0
_MOST_FOUND = 1000
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
}


class ToolRefused(ValueError):
    """A tool was called with something it cannot do. The message is for the model, and goes no further than to it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".rstrip())


def told_to_model(error: Exception) -> str:
    """What a model is told when a tool has failed: the sentence, and what to do."""
    if isinstance(error, OSError) and not isinstance(error, PyFlueError) and error.strerror is not None:
        return f"{error.strerror}: {error.filename}" if isinstance(error.filename, str) else error.strerror
    return str(error) or type(error).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinTool:
    """One tool. `execute` raises PyFlueError, OSError (TimeoutError, too) or ValueError; see `told_to_model`."""

    name: str
    description: str
    input_schema: Mapping[str, Any]
    execute: Callable[[Mapping[str, Any]], Awaitable[str]]
    #: Whether it may be run again when nobody knows whether it was.
    is_idempotent: bool
    #: Whether the sandbox has to be asked for changes after it.
    changes_files: bool


def builtin_tools(
    sandbox: Sandbox,
    policy: SandboxPolicy,
    *,
    env: Mapping[str, str] | None = None,
    with_refused: bool = True,
) -> tuple[BuiltinTool, ...]:
    """The tools of a sandbox, in the order that a model gets them. `env` is added to what commands see (secrets).

    Tools that the policy refuses are there, too, and say so when they are called; unless `with_refused` is false.
    """
    work = _Work(sandbox, policy.for_kind(sandbox.kind), env or {})
    # Whether commands can do more than change files. Of somebody else's sandbox nobody knows.
    reaches_out: bool = policy.network or getattr(sandbox, "reaches_out", True)
    tools = [
        _tool(sandbox, name, description, properties, required, getattr(work, name), reaches_out=reaches_out)
        for name, description, properties, required in _TOOLS
    ]
    allowed = work.policy
    if with_refused:
        return tuple(tools)
    refused = {
        *(() if allowed.reads else _READING),
        *(() if allowed.writes else _WRITING),
        *(() if allowed.shell else ("bash",)),
    }
    return tuple(tool for tool in tools if tool.name not in refused)


_READING = ("read", "stat", "exists", "grep", "glob")
_WRITING = ("write", "edit", "mkdir", "rm")
#: Run again, each of these ends in the same files: a second `write` writes the same.
_IDEMPOTENT_ON_A_HOST = frozenset({*_READING, "write"})

_PATH = {"type": "string", "description": "Path in the sandbox, relative to the working folder or below /workspace."}
_TOOLS: Sequence[tuple[str, str, Mapping[str, Any], Sequence[str]]] = (
    (
        "read",
        "Read a text file. Long files are cut; read on with offset (the first line, from 1) and limit (lines).",
        {
            "path": _PATH,
            "offset": {"type": "integer", "minimum": 1},
            "limit": {"type": "integer", "minimum": 1},
        },
        ["path"],
    ),
    (
        "write",
        "Write a file, folders above it included. Replaces what is there.",
        {"path": _PATH, "content": {"type": "string"}},
        ["path", "content"],
    ),
    (
        "edit",
        "Replace text in a file. old_text has to be there exactly once, unless replace_all is true.",
        {
            "path": _PATH,
            "old_text": {"type": "string", "minLength": 1},
            "new_text": {"type": "string"},
            "replace_all": {"type": "boolean"},
        },
        ["path", "old_text", "new_text"],
    ),
    ("stat", "Tell what is at a path: its kind, size, time and mode.", {"path": _PATH}, ["path"]),
    ("exists", "Tell whether there is something at a path: true or false.", {"path": _PATH}, ["path"]),
    (
        "mkdir",
        "Make a folder. With recursive (the default), folders above it as well, and it may be there already.",
        {"path": _PATH, "recursive": {"type": "boolean"}},
        ["path"],
    ),
    (
        "rm",
        "Delete a file or an empty folder; with recursive a full one. With force, it need not be there.",
        {"path": _PATH, "recursive": {"type": "boolean"}, "force": {"type": "boolean"}},
        ["path"],
    ),
    (
        "bash",
        "Run a command in a shell of its own. Nothing but files lasts from one command to the next.",
        {
            "command": {"type": "string", "minLength": 1},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_TIMEOUT_S, "description": "Seconds."},
            "cwd": {"type": "string"},
            "env": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        ["command"],
    ),
    (
        "grep",
        "Find lines that a regular expression (ripgrep's language) matches, as path:line:text.",
        {"pattern": {"type": "string"}, "path": _PATH, "include": {"type": "string", "description": "Such as *.py."}},
        ["pattern"],
    ),
    (
        "glob",
        "List files that a pattern fits, such as **/*.py, one path per line.",
        {"pattern": {"type": "string", "minLength": 1}},
        ["pattern"],
    ),
)


def _tool(
    sandbox: Sandbox,
    name: str,
    description: str,
    properties: Mapping[str, Any],
    required: Sequence[str],
    run: Callable[..., Awaitable[str]],
    *,
    reaches_out: bool,
) -> BuiltinTool:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }

    async def execute(args: Mapping[str, Any]) -> str:
        return await run(**checked(name, schema, args))

    return BuiltinTool(
        name=name,
        description=description,
        input_schema=schema,
        execute=execute,
        # What it did to files that live in the journal is committed with its record, or never was.
        is_idempotent=name in _IDEMPOTENT_ON_A_HOST or (sandbox.is_journaled and not (name == "bash" and reaches_out)),
        changes_files=name not in _READING,
    )


def checked(tool: str, schema: Mapping[str, Any], args: Any) -> dict[str, Any]:
    """The arguments of a call, if they fit the tool's schema; those that are null are left to their defaults.

    Raises:
        ToolRefused: with everything that is wrong.
    """
    if not isinstance(args, Mapping):
        raise ToolRefused(f"The arguments of {tool} must be a JSON object.")
    properties: Mapping[str, Mapping[str, Any]] = schema["properties"]
    given = cast("Mapping[Any, Any]", args)
    taken: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        if name not in properties:
            problems.append(f"{str(name)[:50]!r} is not one of its arguments ({', '.join(properties)})")
        elif value is not None:
            problem = _problem(properties[name], value)
            if problem is None:
                taken[name] = value
            else:
                problems.append(f"{name} {problem}")
    problems += [f"{name} is missing" for name in schema["required"] if given.get(name) is None]
    if problems:
        raise ToolRefused(f"{tool} was called wrongly: {'; '.join(problems[:10])}.")
    return taken


def _problem(schema: Mapping[str, Any], value: Any) -> str | None:
    wanted: str = schema["type"]
    is_truth = isinstance(value, bool)  # which is a number, too, for Python only
    if not isinstance(value, _JSON_TYPES[wanted]) or is_truth != (wanted == "boolean"):
        return f"must be of type {wanted}, not {type(value).__name__}"
    match wanted:
        case "string":
            return _text_problem(value, schema.get("minLength", 0))
        case "integer" | "number":
            return _number_problem(value, schema)
        case "object":
            return _variables_problem(value)
        case _:
            return None


def _text_problem(value: str, least_characters: int) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not Unicode text"
    return "must not be empty" if len(value) < least_characters else None


def _number_problem(value: float, schema: Mapping[str, Any]) -> str | None:
    # Written so that NaN does not pass.
    if not (value >= schema.get("minimum", value) and value > schema.get("exclusiveMinimum", value - 1)):
        return "is too small"
    return None if value <= schema.get("maximum", value) else f"must be at most {schema['maximum']:g}"


def _variables_problem(value: Mapping[Any, Any]) -> str | None:
    for name, member in value.items():
        shown = repr(str(name)[:50])
        if not isinstance(name, str) or not isinstance(member, str) or _text_problem(name + member, 0) is not None:
            return f"must hold text only; {shown} is something else"
        if not name or "=" in name or "\0" in name + member:
            return f"holds {shown}, which cannot be the name or value of a variable"
    return None


class _Work:
    """What the tools do, each method under its tool's name."""

    def __init__(self, sandbox: Sandbox, policy: SandboxPolicy, env: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self.policy = policy
        self._env = dict(env)

    async def read(self, path: str, offset: int | None = None, limit: int | None = None) -> str:
        self.policy.check_read()
        data = await self._sandbox.read_bytes(path)
        if b"\0" in data[:8192]:
            raise ToolRefused(f"{path} is a binary file of {len(data):,} bytes.", hint="Use a command to look into it.")
        text = data.decode(errors="replace")
        if offset is None and limit is None:
            return cut(text, "file")[0]
        lines = text.splitlines(keepends=True)
        first = (offset or 1) - 1
        if first and first >= len(lines):
            raise ToolRefused(f"{path} has {len(lines):,} lines, so there is none at offset {first + 1:,}.")
        return cut("".join(lines[first : None if limit is None else first + limit]), "file")[0]

    async def write(self, path: str, content: str) -> str:
        self.policy.check_write()
        await self._sandbox.write_bytes(path, content.encode())
        return f"Wrote {path}"

    async def edit(self, path: str, old_text: str, new_text: str, replace_all: bool = False) -> str:
        self.policy.check_read()
        self.policy.check_write()
        try:
            text = (await self._sandbox.read_bytes(path)).decode()
        except UnicodeDecodeError:
            raise ToolRefused(f"{path} is not a text file (UTF-8).") from None
        count = text.count(old_text)
        if count == 0:
            raise ToolRefused(f"The text to replace is not in {path}.", hint="Read the file, and copy it exactly.")
        if count > 1 and not replace_all:
            raise ToolRefused(
                f"The text to replace is in {path} {count} times.",
                hint="Give more of the text around it, or replace_all=true.",
            )
        await self._sandbox.write_bytes(path, text.replace(old_text, new_text).encode())
        return f"Edited {path} ({count} replacement{'' if count == 1 else 's'})"

    async def stat(self, path: str) -> str:
        self.policy.check_read()
        return _described(await self._sandbox.stat(path))

    async def exists(self, path: str) -> str:
        self.policy.check_read()
        try:
            await self._sandbox.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return "false"
        return "true"

    async def mkdir(self, path: str, recursive: bool = True) -> str:
        self.policy.check_write()
        await self._sandbox.mkdir(path, parents=recursive)
        return f"Created {path}"

    async def rm(self, path: str, recursive: bool = False, force: bool = False) -> str:
        self.policy.check_write()
        try:
            await self._sandbox.remove(path, recursive=recursive)
        except FileNotFoundError:
            if not force:
                raise
        return f"Removed {path}"

    async def bash(
        self,
        command: str,
        timeout: float = _DEFAULT_TIMEOUT_S,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> str:
        line = self.policy.checked_command(command)
        if env and self.policy.allowed_commands:
            # PATH and its like decide which program a name stands for.
            raise ToolRefused("Variables cannot be set where only some commands are allowed.", hint="Leave out env.")
        result = await self._sandbox.exec(line, timeout_s=float(timeout), cwd=cwd, env={**self._env, **(env or {})})
        return told_of_command(result)

    async def grep(self, pattern: str, path: str = ".", include: str | None = None) -> str:
        self.policy.check_read()
        found = await self._sandbox.grep(pattern, path=path, include=include, limit=_MOST_FOUND + 1)
        lines = [f"{match.path}:{match.line}:{match.text}" for match in found[:_MOST_FOUND]]
        return _listed(lines, len(found) > _MOST_FOUND, "grep")

    async def glob(self, pattern: str) -> str:
        self.policy.check_read()
        found = await self._sandbox.glob(pattern, limit=_MOST_FOUND + 1)
        return _listed(found[:_MOST_FOUND], len(found) > _MOST_FOUND, "glob")


def cut(text: str, label: str) -> tuple[str, bool]:
    """The text as a model gets it, and whether it was cut: not more than 2,000 lines and 51,200 characters of it."""
    shown = text
    lines = text.splitlines(keepends=True)
    if len(lines) > MOST_LINES:
        shown = "".join(lines[:MOST_LINES])
    shown = shown[:MOST_CHARACTERS]
    if len(shown) == len(text):
        return text, False
    shown_lines = shown.count("\n") + (not shown.endswith("\n"))
    note = f"[{label} truncated: {shown_lines:,} of {len(lines):,} lines, {len(shown):,} of {len(text):,} characters]"
    return f"{shown}{'' if shown.endswith(chr(10)) else chr(10)}{note}", True


def told_of_command(result: CommandResult) -> str:
    stdout, is_cut = cut(result.stdout, "stdout")
    stderr, is_cut_too = cut(result.stderr, "stderr")
    parts = [f"exit code: {result.exit_code}"]
    if result.is_timed_out:
        parts.append("timed out: true")
    if is_cut or is_cut_too or result.is_truncated:
        parts.append("truncated: true")
    if stdout:
        parts.append(f"stdout:\n{stdout.rstrip(chr(10))}")
    if stderr:
        parts.append(f"stderr:\n{stderr.rstrip(chr(10))}")
    return "\n".join(parts)


def _listed(lines: Sequence[str], has_more: bool, label: str) -> str:
    if not lines:
        return "Nothing was found."
    text, _ = cut("\n".join(lines), label)
    return f"{text}\n[{label} truncated: only the first {_MOST_FOUND:,} are shown]" if has_more else text


def _described(info: FileInfo) -> str:
    kind = "link" if info.is_link else "folder" if info.is_folder else "file" if info.is_file else "other"
    at = "" if info.modified_at is None else f"\nmodified: {info.modified_at.isoformat()}"
    return f"path: {info.path}\nkind: {kind}\nsize: {info.size_bytes}\nmode: {info.mode:o}{at}"
