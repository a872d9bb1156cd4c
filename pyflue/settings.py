"""Settings: one table of names, read from options, environment variables and `pyflue.toml`, in that order.

`load_settings` is called once by `main.py`; everything else is handed the part it needs. A setting is a field below:
its name in `pyflue.toml` is `<group>.<field>`, its variable `PYFLUE_<GROUP>_<FIELD>`, and `docs/settings.md` shows the
same table (a test compares them). Plain dataclasses, because this is read on every start of the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .errors import ProjectNotFound, SettingsInvalid

T = TypeVar("T")

FILE_NAME = "pyflue.toml"
#: Folders that hold workflow files, in the order they are read.
WORKFLOW_FOLDERS = ("src/workflows", "workflows", ".pyflue/workflows")
#: Folders that hold agent files, likewise, unless `agent.agents_dir` names another one.
AGENT_FOLDERS = ("src/agents", "agents", ".agents")
STATE_FOLDER = ".pyflue"
SCOPES = ("run", "read", "admin")
#: The words of `pyflue.agents.models.port.ThinkingLevel`; a test compares them.
THINKING_LEVELS = ("off", "minimal", "low", "medium", "high", "xhigh")
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
    writer_process: bool = _setting(
        False, "Whether a server writes its journal in a process of its own, beside the one that drives the runs."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How runs are driven."""

    stop_s: float = _setting(10.0, "How long a stopping server takes at most.")
    cancel_grace_s: float = _setting(1.0, "How long a cancelled run may clean up before it is cut off.")
    adopt_every_s: float = _setting(2.0, "Seconds between looks for runs whose engine has died.")
    import_timeout_s: float = _setting(20.0, "How long a workflow file may take to import.")
    blocked_loop_s: float = _setting(0.5, "A workflow that blocks the event loop for longer is named in the log.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What agents have that do not say otherwise themselves."""

    model: str = _setting("", "Model of agents that name none, such as `anthropic/claude-haiku-4-5`.")
    model_override: str = _setting("", "Model of every agent, whatever it names: for tests and for work without a key.")
    thinking_level: str = _setting("", f"How much models think: {', '.join(THINKING_LEVELS)}.")
    sandbox: str = _setting("virtual", "Where an agent's files and shell are: `virtual`, `local`, `isolated`, …")
    agents_dir: str = _setting("", f"Folder of agent files. Empty: {', '.join(f'`{name}`' for name in AGENT_FOLDERS)}.")
    skills_dir: str = _setting(".agents/skills", "Folder of skills.")
    roles_dir: str = _setting(".agents/roles", "Folder of roles.")
    task_depth: int = _setting(8, "How many tasks may stand above one another; 0 allows none.")
    answer_retries: int = _setting(3, "How often a model is asked again for an answer of the wanted type.")
    max_turns: int = _setting(100, "Most model calls of one operation, unless its budget says otherwise.")
    model_retries: int = _setting(4, "How often a failed model call is tried again.")
    idle_timeout_s: float = _setting(120.0, "How long a model may be silent in the middle of its reply.")
    shell_output_bytes: int = _setting(1024**2, "Most output kept of a shell command; the middle of more is cut out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionSettings:
    """When and how far long conversations are summarised."""

    enabled: bool = _setting(True, "Whether a conversation is summarised before it outgrows its model.")
    context_window_tokens: int = _setting(
        0, "Tokens that models hold; 0 takes what is known of the model, else 128,000."
    )
    reserve_tokens: int = _setting(16_384, "Tokens kept free for the next reply.")
    keep_recent_tokens: int = _setting(20_000, "Tokens of the newest messages that stay as they are.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """How much model work one run may do, all of its agents and restarts together. 0 is no limit."""

    max_turns: int = _setting(0, "Most model calls of a run.")
    max_tokens: int = _setting(0, "Most tokens of a run, input and output together.")
    max_cost_usd: float = _setting(0.0, "Most that a run's model calls may cost.")
    max_seconds: float = _setting(0.0, "Longest time that a run's models and tools may work.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowgramSettings:
    """What graphs may do."""

    allowed_hosts: tuple[str, ...] = _setting(
        (), "Hosts, addresses and networks that http and llm nodes may reach although they are not public."
    )
    executors: tuple[str, ...] = _setting((), "Modules with executors for types of node, `module` or `module:Name`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """A table `[providers.<name>]`: how a provider of models is reached. Everything has a default."""

    #: Address of the API; None takes the provider's own.
    base_url: str | None = None
    #: Sent with every request; may hold secrets.
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    #: The environment variable that holds the key; None takes the provider's usual one.
    key_variable: str | None = None
    #: How long connecting and sending a request may take.
    timeout_s: float = 30.0
    #: How long an answer may be silent, from the request or the last byte on, before it counts as broken off.
    idle_timeout_s: float = 300.0
    #: Tokens that the provider's models hold, if that is known better than by the built-in table.
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServerSettings:
    """A table `[mcp.servers.<name>]`: an MCP server, either a `command` to start or a `url` to call."""

    command: str | None = None
    args: tuple[str, ...] = ()
    #: All that the command sees of the environment, besides what every program needs; may hold secrets.
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    #: The folder the command is started in, from the project folder.
    cwd: str | None = None
    url: str | None = None
    #: Sent with every request to `url`; may hold secrets.
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    #: How long connecting and each call may take.
    timeout_s: float = 60.0
    #: Whether to believe the server which of its tools do no harm if they are called twice, or side by side.
    trust_annotations: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a project."""

    root: Path
    server: ServerSettings = ServerSettings()
    limits: Limits = Limits()
    journal: JournalSettings = JournalSettings()
    engine: EngineSettings = EngineSettings()
    agent: AgentSettings = AgentSettings()
    compaction: CompactionSettings = CompactionSettings()
    budget: BudgetSettings = BudgetSettings()
    flowgram: FlowgramSettings = FlowgramSettings()
    #: Only the file can hold these two.
    providers: Mapping[str, ProviderSettings] = field(default_factory=dict[str, ProviderSettings])
    mcp_servers: Mapping[str, McpServerSettings] = field(default_factory=dict[str, McpServerSettings])
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
    "agent": AgentSettings,
    "compaction": CompactionSettings,
    "budget": BudgetSettings,
    "flowgram": FlowgramSettings,
}
#: Tables whose entries have names that are the project's.
_NAMED = ("providers", "mcp")
#: Variables with a shorter name than the rule gives; people type these.
SHORT_VARIABLES = {"server.token": "PYFLUE_TOKEN", "agent.model_override": "PYFLUE_MODEL"}
#: Numbers that may be 0, which is a meaning of its own.
_MAY_BE_ZERO = frozenset(
    {
        "server.port",
        "server.wait_s",
        "agent.task_depth",
        "agent.answer_retries",
        "agent.model_retries",
        "compaction.context_window_tokens",
        "compaction.reserve_tokens",
        "compaction.keep_recent_tokens",
        "budget.max_turns",
        "budget.max_tokens",
        "budget.max_cost_usd",
        "budget.max_seconds",
    }
)
_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
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
    """The project folder: `start` or the nearest one above it with a `pyflue.toml`, a workflow folder or `src/agents`.

    Raises:
        ProjectNotFound: there is none.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        # `src/` and `.pyflue/` hold a folder `workflows`, too: they are parts of a project, not projects.
        is_part = folder.name in {"src", STATE_FOLDER}
        if (folder / FILE_NAME).is_file() or any(
            (folder / name).is_dir()
            for name in (*WORKFLOW_FOLDERS, AGENT_FOLDERS[0])
            if not (is_part and "/" not in name)
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
    groups["providers"] = _entries("providers", tables.pop("providers", {}), provider_settings)
    groups["mcp_servers"] = _mcp_servers(tables.pop("mcp", {}))
    for table, value in tables.items():
        if not isinstance(value, dict):
            raise SettingsInvalid(table, FILE_NAME, "it is in no table; write `[server]`, or another one, above it.")
        if difflib.get_close_matches(table, (*GROUPS, *_NAMED), n=1):
            raise SettingsInvalid(table, FILE_NAME, _unknown(table, (*GROUPS, *_NAMED)))
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


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, tuple(known), n=1)
    return f"there is no such setting; did you mean {close[0]!r}?" if close else "there is no such setting."


def _convert(name: str, source: str, value: Any, default: Any) -> Any:
    """`value` as the type of the default. Text is read leniently only where it comes from a variable or option."""
    if name == "server.tokens":
        return _tokens(source, value)
    if isinstance(default, tuple):
        items: Any = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):  # pyright: ignore[reportUnknownVariableType]
            raise SettingsInvalid(name, source, f"expected a list of strings, not {value!r}.")
        if name == "flowgram.allowed_hosts":
            _check_hosts(name, source, items)  # pyright: ignore[reportUnknownArgumentType]
        return tuple(items)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    if isinstance(default, str):
        if not isinstance(value, str):
            raise SettingsInvalid(name, source, f"expected a string, not {value!r}.")
        if name == "server.token" and 0 < len(value) < _SHORTEST_TOKEN:
            raise SettingsInvalid(name, source, f"expected at least {_SHORTEST_TOKEN} characters.")
        if name == "agent.thinking_level" and value and value not in THINKING_LEVELS:
            raise SettingsInvalid(name, source, f"expected one of {', '.join(THINKING_LEVELS)}, not {value!r}.")
        return value
    if isinstance(default, bool):
        truth = _TRUTH.get(value.strip().lower()) if isinstance(value, str) else value
        if not isinstance(truth, bool):
            raise SettingsInvalid(name, source, f"expected true or false, not {value!r}.")
        return truth
    return _number(name, source, value, default)


def _check_hosts(name: str, source: str, hosts: Iterable[str]) -> None:
    for host in hosts:
        if "://" in host or any(letter.isspace() for letter in host):
            problem = f"expected names, addresses or networks, such as `localhost:8080` or `10.0.0.0/8`, not {host!r}."
            raise SettingsInvalid(name, source, problem)


def _number(name: str, source: str, value: Any, default: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise SettingsInvalid(name, source, f"expected a number, not {value!r}.")
    try:
        number = type(default)(value)
    except (ValueError, OverflowError):
        number = -1
    if not 0 <= number < 2**53 or (name not in _MAY_BE_ZERO and number == 0):
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


def provider_settings(where: str, source: str, table: Mapping[str, Any]) -> ProviderSettings:
    """One provider. `where` and `source` name it in errors.

    Raises:
        SettingsInvalid: naming the key.
    """
    if "api_key" in table:
        problem = "a key does not belong into a file; put it into a variable, and its name into key_variable."
        raise SettingsInvalid(f"{where}.api_key", source, problem)
    entry = ProviderSettings(**_fields(ProviderSettings, where, source, table))
    _check_url(f"{where}.base_url", source, entry.base_url)
    return entry


def mcp_server_settings(where: str, source: str, table: Mapping[str, Any]) -> McpServerSettings:
    """One MCP server, also one that an agent brings itself.

    Raises:
        SettingsInvalid: naming the key.
    """
    entry = McpServerSettings(**_fields(McpServerSettings, where, source, table))
    if bool(entry.command) == bool(entry.url):
        raise SettingsInvalid(where, source, "expected either `command`, to start a server, or `url`, to call one.")
    misplaced = ("headers",) if entry.command else ("args", "env", "cwd")
    for key in misplaced:
        if getattr(entry, key):
            raise SettingsInvalid(f"{where}.{key}", source, f"it goes with `{'url' if entry.command else 'command'}`.")
    _check_url(f"{where}.url", source, entry.url)
    return entry


def _mcp_servers(table: Any) -> Mapping[str, McpServerSettings]:
    if not isinstance(table, dict):
        raise SettingsInvalid("mcp", FILE_NAME, "expected a table.")
    for key in table:  # pyright: ignore[reportUnknownVariableType]
        if key != "servers":
            raise SettingsInvalid(f"mcp.{key}", FILE_NAME, _unknown(str(key), ("servers",)))  # pyright: ignore[reportUnknownArgumentType]
    return _entries("mcp.servers", table.get("servers", {}), mcp_server_settings)  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]


def _entries(where: str, table: Any, read: Callable[[str, str, Mapping[str, Any]], T]) -> dict[str, T]:
    """A table of tables whose names are the project's."""
    entries: dict[str, T] = {}
    for name, entry in _items(where, table):
        if not _NAME.fullmatch(name):
            problem = f"{name!a} cannot be a name; take letters, digits, '_' and '-', 64 at most."
            raise SettingsInvalid(where, FILE_NAME, problem)
        entries[name] = read(f"{where}.{name}", FILE_NAME, dict(_items(f"{where}.{name}", entry)))
    return entries


def _items(where: str, table: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(table, dict):
        raise SettingsInvalid(where, FILE_NAME, "expected a table.")
    return table.items()  # pyright: ignore[reportUnknownVariableType]


def _fields(kind: type, where: str, source: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table, each checked against the type its field has."""
    known = {item.name: str(item.type) for item in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}.{key}"
        if key not in known:
            raise SettingsInvalid(name, source, _unknown(str(key), known))
        values[key] = _field(name, source, value, known[key])
    return values


def _field(name: str, source: str, value: Any, annotation: str) -> Any:
    """A value as its field wants it. The message never shows one: it may be a secret."""
    if annotation.startswith("Mapping"):
        if not isinstance(value, Mapping) or not all(isinstance(part, str) for pair in value.items() for part in pair):  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
            raise SettingsInvalid(name, source, "expected a table of strings.")
        return dict(value)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    if annotation.startswith("tuple"):
        return _convert(name, source, value if isinstance(value, (list, tuple)) else [value], ())
    if annotation.startswith("str"):
        if not isinstance(value, str) or not value.strip():
            raise SettingsInvalid(name, source, "expected a string that is not empty.")
        return value
    if annotation == "bool":
        if not isinstance(value, bool):
            raise SettingsInvalid(name, source, "expected true or false.")
        return value
    if isinstance(value, str):
        raise SettingsInvalid(name, source, f"expected a number, not {value!r}.")
    return _number(name, source, value, 1 if annotation.startswith("int") else 1.0)


def _check_url(name: str, source: str, url: str | None) -> None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise SettingsInvalid(name, source, f"expected an address that starts with http:// or https://, not {url!r}.")
