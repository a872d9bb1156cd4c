"""Settings: one table of names, read from options, environment variables and `pyflue.toml`, in that order.

`load_settings` is called once by `main.py`; everything else is handed the part it needs. A setting is a field below:
its name in `pyflue.toml` is `<group>.<field>`, its variable `PYFLUE_<GROUP>_<FIELD>`, and `docs/settings.md` shows the
same table (a test compares them). Plain dataclasses, because this is read on every start of the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ProjectNotFound, SettingsInvalid

FILE_NAME = "pyflue.toml"
#: Folders that hold workflow files, in the order they are read.
WORKFLOW_FOLDERS = ("src/workflows", "workflows", ".pyflue/workflows")
STATE_FOLDER = ".pyflue"
SCOPES = ("run", "read", "admin")
_SHORTEST_TOKEN = 16
#: Values below which a setting would break a promise.
_LEAST: Mapping[str, float] = {"journal.idempotency_keep_s": 86_400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token and what it allows: `run` starts workflows, `read` sees runs, `admin` changes them and more."""

    name: str
    value: str = field(repr=False)
    scopes: frozenset[str]


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What `pyflue dev` and `pyflue serve` listen on, and to whom they answer."""

    host: str = _setting("127.0.0.1", "Address to listen on; another than loopback needs a token.")
    port: int = _setting(2024, "Port to listen on; 0 takes a free one.")
    token: str = _setting("", "A token with every scope, for the server and for the client commands.")
    tokens: tuple[Token, ...] = _setting(
        (), 'Named tokens: `name = { token = "…", scopes = ["run", "read", "admin"] }`.'
    )
    allowed_hosts: tuple[str, ...] = _setting((), "Host names answered to besides IP addresses and localhost.")
    allowed_origins: tuple[str, ...] = _setting(
        (), "Origins of web pages that may call this server (opens CORS for them)."
    )
    wait_s: float = _setting(60.0, "How long `?wait=result` waits before it answers 202.")
    heartbeat_s: float = _setting(15.0, "Seconds between heartbeats of a quiet event stream.")
    send_timeout_s: float = _setting(30.0, "How long a reader may leave a stream unread before it is closed.")
    socket_idle_s: float = _setting(30.0, "How long a WebSocket may stay silent before its first message.")
    header_timeout_s: float = _setting(15.0, "How long a connection may take to send a request's headers and body.")
    connection_age_s: float = _setting(3600.0, "Age after which a connection is closed at the end of a request.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes and counts above which something is refused."""

    payload_bytes: int = _setting(8 * 1024**2, "Largest payload and largest result.")
    json_depth: int = _setting(100, "Deepest nesting of JSON.")
    event_bytes: int = _setting(256 * 1024, "Largest event data kept in the event; larger data becomes a blob.")
    events_per_run: int = _setting(1_000_000, "Most events of one run.")
    log_bytes: int = _setting(64 * 1024, "Longest message of a log event; the rest is cut off.")
    unwritten_events: int = _setting(4096, "Events of one run that may wait for the disk before its log blocks.")
    running: int = _setting(1000, "Runs that run at once; further ones wait on disk.")
    child_depth: int = _setting(16, "How many runs may stand above one another, each started by the one above.")
    header_bytes: int = _setting(32 * 1024, "Largest block of request headers.")
    connections: int = _setting(2000, "Most connections at once; further ones are answered 503.")
    websocket_bytes: int = _setting(1024**2, "Largest WebSocket message.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    """Where the journal is."""

    url: str = _setting(
        "", "Address of the journal: `sqlite:///path` or `memory:`. Empty: `.pyflue/journal.db` in the project."
    )
    busy_timeout_s: float = _setting(5.0, "How long a request waits for a journal that another process holds.")
    idempotency_keep_s: float = _setting(172_800.0, "How long an Idempotency-Key is remembered, at least 24 h.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How runs are driven."""

    stop_s: float = _setting(10.0, "How long a stopping server takes at most.")
    cancel_grace_s: float = _setting(1.0, "How long a cancelled run may clean up before it is cut off.")
    adopt_every_s: float = _setting(2.0, "Seconds between looks for runs whose engine has died.")
    import_timeout_s: float = _setting(20.0, "How long a workflow file may take to import.")
    blocked_loop_s: float = _setting(0.5, "A workflow that blocks the event loop for longer is named in the log.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a project."""

    root: Path
    server: ServerSettings = ServerSettings()
    limits: Limits = Limits()
    journal: JournalSettings = JournalSettings()
    engine: EngineSettings = EngineSettings()
    #: Tables of `pyflue.toml` that belong to no group above.
    unknown_tables: tuple[str, ...] = ()

    @property
    def state_folder(self) -> Path:
        """Where the journal and the locks are; not part of any workspace."""
        return self.root / STATE_FOLDER

    @property
    def journal_url(self) -> str:
        return self.journal.url or f"sqlite:///{self.state_folder / 'journal.db'}"


GROUPS: Mapping[str, type] = {
    "server": ServerSettings,
    "limits": Limits,
    "journal": JournalSettings,
    "engine": EngineSettings,
}
#: Variables with a shorter name than the rule gives; people type these.
SHORT_VARIABLES = {"server.token": "PYFLUE_TOKEN"}
#: How alike a variable must be to one of ours to be taken for it; `PYFLUE_…` variables of others are left alone.
_ALIKE = 0.85


def describe() -> Iterator[tuple[str, str, Any, str]]:
    """Each setting as (name, variable, default, what it is for), in the order of the groups."""
    for group, kind in GROUPS.items():
        for item in dataclasses.fields(kind):
            name = f"{group}.{item.name}"
            yield name, variable_of(name), item.default, item.metadata["doc"]


def variable_of(name: str) -> str:
    """The environment variable of a setting; empty for `server.tokens`, a table that only the file can hold."""
    if name == "server.tokens":
        return ""
    return SHORT_VARIABLES.get(name) or _variable_by_rule(name)


def _variable_by_rule(name: str) -> str:
    return "PYFLUE_" + name.replace(".", "_").upper()


def misspelt_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each variable that sets nothing but looks as if it should, with what was probably meant."""
    meant: dict[str, str] = {}
    for name, variable, *_ in describe():
        meant[_variable_by_rule(name)] = variable or f"{name} in {FILE_NAME}"
        if variable:
            meant[variable] = variable
    for variable in sorted(environ):
        if variable.startswith("PYFLUE_") and meant.get(variable) != variable and environ[variable]:
            for close in difflib.get_close_matches(variable, meant, n=1, cutoff=_ALIKE):
                yield variable, meant[close]


def find_root(start: Path) -> Path:
    """The project folder: `start` or the nearest folder above it with a `pyflue.toml` or a workflow folder.

    Raises:
        ProjectNotFound: there is none.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        # `src/` and `.pyflue/` hold a folder `workflows`, too: they are parts of a project, not projects.
        is_part = folder.name in {"src", STATE_FOLDER}
        if (folder / FILE_NAME).is_file() or any(
            (folder / name).is_dir() for name in WORKFLOW_FOLDERS if not (is_part and "/" not in name)
        ):
            return folder
    raise ProjectNotFound(str(start))


def load_settings(
    root: Path,
    *,
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read a project's settings: `options` win over variables, variables over `pyflue.toml`, that over the defaults.

    `options` maps names such as `server.port` to values; None means "not given".

    Raises:
        SettingsInvalid: naming the setting, where it came from and what was expected.
    """
    root = root.resolve()
    environ = os.environ if environ is None else environ
    tables = _read_file(root / FILE_NAME)
    given = _given(options or {})
    groups: dict[str, Any] = {}
    for group, kind in GROUPS.items():
        table = tables.pop(group, {})
        if not isinstance(table, dict):
            raise SettingsInvalid(group, FILE_NAME, "expected a table.")
        known = {item.name: item for item in dataclasses.fields(kind)}
        for key in table:  # pyright: ignore[reportUnknownVariableType]
            if key not in known:
                raise SettingsInvalid(f"{group}.{key}", FILE_NAME, _unknown(str(key), known))  # pyright: ignore[reportUnknownArgumentType]
        values: dict[str, Any] = {}
        for key, item in known.items():
            name = f"{group}.{key}"
            variable = variable_of(name)
            if name in given:
                values[key] = _convert(name, "the command line", given[name], item.default)
            elif variable and environ.get(variable):
                values[key] = _convert(name, variable, environ[variable], item.default)
            elif key in table:
                values[key] = _convert(name, FILE_NAME, table[key], item.default)
        groups[group] = kind(**values)
    for table, value in tables.items():
        if not isinstance(value, dict):
            raise SettingsInvalid(table, FILE_NAME, "it is in no table; write `[server]`, or another one, above it.")
        if difflib.get_close_matches(table, GROUPS, n=1):
            raise SettingsInvalid(table, FILE_NAME, _unknown(table, GROUPS))
    return Settings(root=root, unknown_tables=tuple(sorted(tables)), **groups)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: default for name, _, default, _ in describe()}
    for name in options:
        if name not in known:
            raise SettingsInvalid(name, "the options", _unknown(name, known))
    return {name: value for name, value in options.items() if value is not None}


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    import tomllib  # most projects have no file, and this costs a few milliseconds

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid("the file", str(path), f"it is not TOML: {error}.") from error
    except OSError as error:
        raise SettingsInvalid("the file", str(path), f"it cannot be read: {error.strerror}.") from error


def _unknown(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"there is no such setting; did you mean {close[0]!r}?" if close else "there is no such setting."


def _convert(name: str, source: str, value: Any, default: Any) -> Any:
    """`value` as the type of the default. Text is read leniently only where it comes from a variable or option."""
    if name == "server.tokens":
        return _tokens(source, value)
    if isinstance(default, tuple):
        items: Any = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):  # pyright: ignore[reportUnknownVariableType]
            raise SettingsInvalid(name, source, f"expected a list of strings, not {value!r}.")
        return tuple(items)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    if isinstance(default, str):
        if not isinstance(value, str):
            raise SettingsInvalid(name, source, f"expected a string, not {value!r}.")
        if name == "server.token" and 0 < len(value) < _SHORTEST_TOKEN:
            raise SettingsInvalid(name, source, f"expected at least {_SHORTEST_TOKEN} characters.")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise SettingsInvalid(name, source, f"expected a number, not {value!r}.")
    try:
        number = type(default)(value)
    except (ValueError, OverflowError):
        number = -1
    if not 0 <= number < 2**53 or (name not in {"server.port", "server.wait_s"} and number == 0):
        kind = "whole number" if isinstance(default, int) else "number"
        raise SettingsInvalid(name, source, f"expected a positive {kind}, not {value!r}.")
    if number < _LEAST.get(name, 0):
        raise SettingsInvalid(name, source, f"expected at least {_LEAST[name]}, not {value!r}.")
    if name == "server.port" and number > 65535:
        raise SettingsInvalid(name, source, f"expected a port up to 65535, not {value!r}.")
    return number


def _tokens(source: str, value: Any) -> tuple[Token, ...]:
    if not isinstance(value, dict):
        raise SettingsInvalid("server.tokens", source, "expected a table of tokens.")
    tokens: list[Token] = []
    for name, entry in value.items():  # pyright: ignore[reportUnknownVariableType]
        where = f"server.tokens.{name}"
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        text: Any = fields.get("token")
        if not isinstance(text, str) or len(text) < _SHORTEST_TOKEN:
            raise SettingsInvalid(
                where, source, f'expected {{ token = "at least {_SHORTEST_TOKEN} characters", scopes = [...] }}.'
            )
        scopes: Any = fields.get("scopes", [])
        if not isinstance(scopes, list) or not scopes or not set(scopes) <= set(SCOPES):  # pyright: ignore[reportUnknownArgumentType]
            raise SettingsInvalid(where, source, f"expected scopes out of {', '.join(SCOPES)}.")
        for earlier in tokens:
            if earlier.value == text:
                raise SettingsInvalid(where, source, f"it has the same value as {earlier.name!r}; each needs its own.")
        tokens.append(Token(name=str(name), value=text, scopes=frozenset(scopes)))  # pyright: ignore[reportUnknownArgumentType]
    return tuple(tokens)
