"""Built-in components that look at values, blobs, files and models."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

from ... import codec
from ...errors import PyFlueError
from ..exceptions import DocumentMalformed
from ..plugins.port import BlobType, ComponentCall
from .inputs import Fields

_ROLES = ("system", "user", "assistant")
#: The model that the original has built in.
_MODEL = "openai/gpt-3.5-turbo"
_LARGEST_FILE_BYTES = 16 * 1024**2
_LONGEST_SLEEP_MS = 100 * 365 * 86_400_000


async def noop(call: ComponentCall, folder: Path) -> Any:
    """The input."""
    return call.input


async def create_messages(call: ComponentCall, folder: Path) -> Any:
    """`{"messages": [{"role", "content"}]}`, the system instructions first."""
    fields = Fields(call.component, call.input)
    prompt = fields.required("user_prompt", str)
    instructions = fields.optional("system_instructions", str)
    system = [] if instructions is None else [{"role": "system", "content": instructions}]
    return {"messages": [*system, {"role": "user", "content": prompt}]}


async def openai(call: ComponentCall, folder: Path) -> Any:
    """`{"response": <text>}`."""
    from ..project import Question, ask

    fields = Fields(call.component, call.input)
    messages: list[tuple[str, str]] = []
    for number, given in enumerate(fields.required("messages", list)):
        message = Fields(f"{call.component}, message {number + 1}", given)
        role = message.required("role", str)
        if role not in _ROLES:
            raise message.refusal("role", f"it has to be one of {', '.join(_ROLES)}, and is {role!r}")
        messages.append((role, message.required("content", str)))
    question = Question(
        model=fields.optional("model", str, default=_MODEL),
        messages=messages,
        max_tokens=fields.optional("max_tokens", int),
        temperature=fields.optional("temperature", float),
        api_key=fields.optional("api_key", str),
    )
    return {"response": await ask(question)}


async def put_blob(call: ComponentCall, folder: Path) -> Any:
    """`{"blob_id"}`."""
    fields = Fields(call.component, call.input)
    data, kind = fields.required("data"), fields.required("blob_type", str)
    if kind not in tuple(BlobType):
        raise fields.refusal("blob_type", f"it has to be 'data' or 'flow', and is {kind!r}")
    try:
        return {"blob_id": await call.services.put_blob(data, BlobType(kind))}
    except ValueError as error:
        raise fields.refusal("data", str(error).rstrip(".")) from error


async def get_blob(call: ComponentCall, folder: Path) -> Any:
    """`{"data"}`."""
    fields = Fields(call.component, call.input)
    blob_id = fields.required("blob_id", str)
    try:
        data, _ = await call.services.get_blob(blob_id)
    except (ValueError, LookupError) as error:
        raise fields.refusal("blob_id", str(error).rstrip(".")) from error
    return {"data": data}


async def sleep(call: ComponentCall, folder: Path) -> Any:
    """The input, later."""
    fields = Fields(call.component, call.input)
    duration_ms = fields.required("duration_ms", int)
    if not 0 <= duration_ms <= _LONGEST_SLEEP_MS:
        raise fields.refusal("duration_ms", f"it goes from 0 to {_LONGEST_SLEEP_MS}")
    await call.services.sleep(duration_ms / 1000)
    passed = fields.optional("passthrough")
    return {"duration_ms": duration_ms} if passed is None else {"duration_ms": duration_ms, "passthrough": passed}


async def load_file(call: ComponentCall, folder: Path) -> Any:
    """`{"data", "metadata": {"resolved_path", "size_bytes", "format"}}`."""
    fields = Fields(call.component, call.input)
    path = fields.required("path", str)
    given = fields.optional("format", str)
    if given not in {None, "json", "yaml", "text"}:
        raise fields.refusal("format", f"it has to be 'json', 'yaml' or 'text', and is {given!r}")
    kind = given or {".json": "json", ".yml": "yaml", ".yaml": "yaml"}.get(Path(path).suffix.lower(), "text")
    try:
        data = await asyncio.to_thread(_read_below, folder, path)
    except OSError as error:
        raise fields.refusal("path", f"{path!r} cannot be read: {error.strerror or error}") from error
    return {
        # A large one takes a while.
        "data": await asyncio.to_thread(_parsed, fields, data, kind),
        "metadata": {"resolved_path": str(folder / path), "size_bytes": len(data), "format": kind},
    }


def _parsed(fields: Fields, data: bytes, kind: str) -> Any:
    try:
        match kind:
            case "json":
                return codec.decode(data, "The file")
            case "yaml":
                from ..yaml_reader import read_yaml

                return read_yaml(data)
            case _:
                return data.decode("utf-8")
    except (PyFlueError, DocumentMalformed, UnicodeDecodeError) as error:
        what = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).rstrip(".")
        raise fields.refusal("path", f"the file cannot be read as {kind}: {what}") from error


def _read_below(folder: Path, path: str) -> bytes:
    """The content of a regular file below a folder.

    Whoever writes a flow is not trusted with the host's files: each part is opened by itself, without following links,
    and what is hidden (`.env`, `.pyflue`) stays hidden.

    Raises:
        OSError: also with a sentence of ours as `strerror`.
    """
    parts = Path(path).parts
    if not parts or "\0" in path or Path(path).is_absolute() or any(part.startswith(".") for part in parts):
        raise PermissionError(1, "only files below the working directory can be, and no hidden ones")
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened)
            os.close(opened)
            opened = inner
        # A pipe would never open.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
    finally:
        os.close(opened)
    with os.fdopen(file, "rb") as reader:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(1, "it is not a file")
        data = reader.read(_LARGEST_FILE_BYTES + 1)
    if len(data) > _LARGEST_FILE_BYTES:
        raise OSError(27, f"it is larger than {_LARGEST_FILE_BYTES:,} bytes")
    return data
