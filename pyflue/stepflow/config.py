"""The config of flows: which plugins there are, how components are routed to them, where state is kept.

Format as in stepflow-ai/stepflow (`stepflow-config.yml`), with the spellings of its 0.13 (prefix routes,
`storageConfig`, `retry`). Keys that nobody knows are passed over with a warning. `${VAR}` and `${VAR:-default}` in
`args`, `env`, `headers` and `url` are replaced when a plugin is made, so a variable that is not set only matters to
those who use the plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from ..errors import WorkflowInvalid
from .backoff import Backoff, BackoffKind
from .exceptions import DocumentMalformed, PathInvalid, Place, place_text
from .paths import read_path
from .routing import Condition, Router, RouteRule, read_pattern, unknown_plugin
from .yaml_reader import Marks, PairList, read_document

CONFIG_NAMES = ("stepflow-config.yml", "stepflow-config.yaml", "stepflow_config.yml", "stepflow_config.yaml")

_LIMIT_BYTES = 8 * 1024 * 1024
_BLOB_BYTES = 256 * 1024 * 1024
_LEAST_BLOB_BYTES = 1024


class ConfigInvalid(WorkflowInvalid):
    """A config file is there, but cannot be used; says which file, which line and column, and what to do."""

    def __init__(self, path: str, problem: str, *, line: int | None = None, column: int | None = None) -> None:
        details = None if line is None else {"line": line, "column": column}
        super().__init__(path if column is None else f"{path}:{line}:{column}", problem, details=details)
        self.path = path
        self.line = line
        self.column = column


class Transport(StrEnum):
    """How a component server is spoken to."""

    STDIO = "stdio"
    HTTP = "http"
    #: HTTP, to a program that is started here and says which port it took.
    SUBPROCESS = "subprocess"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginEntry:
    """A plugin as the config describes it. What does not belong to its type is empty."""

    name: str
    #: `builtin`, `mock`, `stepflow`, `mcp`, or what a factory of `Environment` makes.
    type: str
    #: The config's working directory.
    folder: Path
    transport: Transport | None = None
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    start_timeout_s: float | None = None
    list_timeout_s: float | None = None
    execute_timeout_s: float | None = None
    limit_bytes: int | None = None
    #: Of a mock: what stands under `components`.
    components: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: Everything as it was written.
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    #: Values that came out of the environment: they are not to be told.
    secrets: tuple[str, ...] = field(default=(), repr=False)
    #: Where it stands, for texts.
    where: str = ""

    def resolved(self, environ: Mapping[str, str]) -> PluginEntry:
        """With its variables replaced.

        Raises:
            ConfigInvalid: one is not set and has no default.
        """
        used: list[str] = []

        def texts(given: Mapping[str, str]) -> dict[str, str]:
            return {name: self._substitute(value, environ, used) for name, value in given.items()}

        return replace(
            self,
            args=tuple(self._substitute(arg, environ, used) for arg in self.args),
            env=texts(self.env),
            headers=texts(self.headers),
            url=self._substitute(self.url, environ, used),
            # Longest first: one may be a part of another. Short ones stand everywhere.
            secrets=tuple(sorted({value for value in used if len(value) >= 6}, key=lambda value: (-len(value), value))),
        )

    def unset_variables(self, environ: Mapping[str, str]) -> list[str]:
        """The variables that it needs and that are not set."""
        needed = [
            name
            for text in (*self.args, *self.env.values(), *self.headers.values(), self.url)
            for name, default in _variables(text)
            if default is None and name not in environ
        ]
        return list(dict.fromkeys(needed))

    def _substitute(self, text: str, environ: Mapping[str, str], used: list[str]) -> str:
        if "${" not in text:
            return text
        parts: list[str] = []
        rest = text
        while True:
            before, mark, after = rest.partition("${")
            parts.append(before)
            if not mark:
                return "".join(parts)
            inside, _, rest = after.partition("}")
            name, has_default, default = inside.partition(":-")
            value = environ.get(name)
            if has_default and not value:
                parts.append(default)
            elif value is None:
                raise ConfigInvalid(
                    self.where,
                    f"plugin {self.name!r} needs the environment variable {name}, which is not set. Set it, or give a "
                    f"default: ${{{name}:-…}}.",
                )
            else:
                used.append(value)
                parts.append(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateStore:
    """Where runs and blobs are kept, as the config says it."""

    type: str = "inMemory"
    database_url: str | None = None
    auto_migrate: bool = True
    max_connections: int = 10
    #: The most bytes of blobs that are kept in memory.
    max_blob_bytes: int = _BLOB_BYTES
    #: Everything as it was written.
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepflowConfig:
    """A config that can be used."""

    #: The file; None if it came in another way.
    path: Path | None = None
    working_directory: Path
    plugins: Mapping[str, PluginEntry] = field(default_factory=dict[str, PluginEntry])
    routes: Mapping[str, Sequence[RouteRule]] = field(default_factory=dict[str, Sequence[RouteRule]])
    #: None if the config does not say.
    state_store: StateStore | None = None
    backoff: Backoff = field(default_factory=Backoff)
    #: What was passed over, and what was probably meant.
    warnings: tuple[str, ...] = ()

    def unset_variables(self, environ: Mapping[str, str]) -> list[str]:
        """The environment variables that plugins need and that are not set."""
        needed = [name for entry in self.plugins.values() for name in entry.unset_variables(environ)]
        return list(dict.fromkeys(needed))


def find_config(*folders: Path | None) -> Path | None:
    """The config file for a flow: in the first of the folders (the flow's own, then the current one) that has one.

    Raises:
        ConfigInvalid: a folder has two.
    """
    for folder in folders:
        if folder is None:
            continue
        found = [folder / name for name in CONFIG_NAMES if (folder / name).is_file()]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ConfigInvalid(str(folder), f"there are several configs ({names}). Keep one, or name one.")
        if found:
            return found[0]
    return None


def default_config(folder: Path) -> StepflowConfig:
    """What flows run with if there is no config: the built-in components, by their own names."""
    return StepflowConfig(
        working_directory=folder.absolute(),
        plugins={"builtin": PluginEntry(name="builtin", type="builtin", folder=folder.absolute())},
        routes={"/{*component}": (RouteRule(plugin="builtin"),)},
    )


def read_config(path: Path) -> StepflowConfig:
    """Read a config file (YAML or JSON).

    Raises:
        ConfigInvalid
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(str(path), f"it cannot be read: {error.strerror}.") from error
    if len(data) > _LIMIT_BYTES:
        raise ConfigInvalid(str(path), f"it is larger than {_LIMIT_BYTES:,} bytes.")
    try:
        document = read_document(data, path.suffix, pairs=True)
    except DocumentMalformed as error:
        raise ConfigInvalid(str(path), error.message, line=error.line, column=error.column) from error
    return read_config_value(document.value, path.absolute().parent, path=path, marks=document.marks)


def read_config_value(
    value: Any, folder: Path, *, path: Path | None = None, marks: Marks | None = None, name: str = "the config"
) -> StepflowConfig:
    """A config from its JSON value. Relative paths in it start at the folder.

    Raises:
        ConfigInvalid
    """
    return _Reader(folder, path, marks, name).read(value)


_TOP = ("workingDirectory", "plugins", "routes", "stateStore", "storageConfig", "retry")
#: Settings of the original that mean nothing here.
_SILENT_TOP = ("leaseManager", "recovery", "blobApi", "$schema")
_TIMEOUTS = ("startTimeoutSecs", "listTimeoutSecs", "executionTimeoutSecs", "maxMessageBytes")
_PLUGIN_KEYS: Mapping[str, tuple[str, ...]] = {
    "builtin": ("type",),
    "mock": ("type", "components"),
    "stepflow": ("type", "transport", "command", "args", "env", "url", "headers", *_TIMEOUTS),
    "mcp": ("type", "command", "args", "env", "url", "headers", *_TIMEOUTS),
}
_RULE = ("plugin", "conditions", "componentAllow", "componentDeny", "component")


class _Reader:
    """Reads one config: knows where it is, and what it has passed over."""

    def __init__(self, folder: Path, path: Path | None, marks: Marks | None, name: str) -> None:
        self._folder = folder.absolute()
        self._path = path
        self._marks = marks
        self._name = str(path) if path is not None else name
        self._warnings: list[str] = []

    def read(self, value: Any) -> StepflowConfig:
        fields = self._mapping({} if value is None else value, ())
        self._warn_unknown(fields, (*_TOP, *_SILENT_TOP), ())
        folder = self._folder / (self._optional(fields, "workingDirectory", str, ()) or ".")
        plugins = {
            name: self._plugin(name, entry, folder) for name, entry in self._mapping_in(fields, "plugins", ()).items()
        }
        return StepflowConfig(
            path=self._path,
            working_directory=folder,
            plugins=plugins,
            routes=self._routes(fields, plugins),
            state_store=self._store(fields),
            backoff=self._backoff(fields),
            warnings=tuple(self._warnings),
        )

    # Plugins

    def _plugin(self, name: str, value: Any, folder: Path) -> PluginEntry:
        place: Place = ("plugins", name)
        fields = self._mapping(value, place)
        kind = self._required(fields, "type", place)
        known = _PLUGIN_KEYS.get(kind)
        if kind in ("grpc", "nats"):
            raise self._wrong(
                (*place, "type"),
                f"plugins of type {kind!r} are not spoken to. Use `type: stepflow` with `transport: stdio` or `http`.",
            )
        if known is not None:
            self._warn_unknown(fields, known, place)
        entry = PluginEntry(name=name, type=kind, folder=folder, settings=fields, where=self._where((*place, "type")))
        match kind:
            case "stepflow":
                return self._server(entry, fields, place)
            case "mcp":
                return self._mcp(self._timeouts(entry, fields, place), fields, place)
            case "mock":
                return replace(entry, components=self._mapping_in(fields, "components", place))
            case _:
                return entry

    def _server(self, entry: PluginEntry, fields: Mapping[str, Any], place: Place) -> PluginEntry:
        given = fields.get("transport")
        if given is None:
            given = Transport.HTTP if "url" in fields else Transport.SUBPROCESS
        if given not in Transport.__members__.values():
            raise self._wrong((*place, "transport"), "`transport` is `stdio` or `http`.")
        transport = Transport(given)
        if transport is Transport.HTTP and "url" not in fields and "command" in fields:
            transport = Transport.SUBPROCESS
        entry = replace(self._timeouts(entry, fields, place), transport=transport)
        if transport is not Transport.HTTP:
            return self._program(entry, fields, place)
        return self._address(entry, fields, place)

    def _mcp(self, entry: PluginEntry, fields: Mapping[str, Any], place: Place) -> PluginEntry:
        has_url = fields.get("url") is not None
        others = ("command", "args", "env") if has_url else ("headers",)
        if wrong := [name for name in others if fields.get(name) is not None]:
            problem = "belongs to a server that is started" if has_url else "belongs to a server with a `url`"
            raise self._wrong((*place, wrong[0]), f"`{wrong[0]}` {problem}: give either `command` or `url`.")
        if has_url:
            return self._address(replace(entry, transport=Transport.HTTP), fields, place)
        if fields.get("command") is None:
            raise self._wrong(place, "`command` is missing, or `url`.")
        return self._program(entry, fields, place)

    def _address(self, entry: PluginEntry, fields: Mapping[str, Any], place: Place) -> PluginEntry:
        url = self._required(fields, "url", place)
        headers = self._strings(fields, "headers", place)
        for name, text in headers.items():
            self._check_variables(text, (*place, "headers", name))
        return replace(entry, url=self._checked_url(url, (*place, "url")), headers=headers)

    def _program(self, entry: PluginEntry, fields: Mapping[str, Any], place: Place) -> PluginEntry:
        command = self._required(fields, "command", place)
        if not command or "\0" in command:
            raise self._wrong((*place, "command"), "`command` is the name or the path of a program.")
        args = self._list_in(fields, "args", place)
        entry = replace(
            entry,
            command=command,
            args=tuple(self._text(arg, (*place, "args", index)) for index, arg in enumerate(args)),
            env=self._strings(fields, "env", place),
        )
        for key, text in (*enumerate(entry.args), *entry.env.items()):
            self._check_variables(text, (*place, "args" if isinstance(key, int) else "env", key))
        return entry

    def _timeouts(self, entry: PluginEntry, fields: Mapping[str, Any], place: Place) -> PluginEntry:
        limit = fields.get("maxMessageBytes")
        if limit is not None and (type(limit) is not int or limit < 1024):
            raise self._wrong((*place, "maxMessageBytes"), "`maxMessageBytes` is a whole number from 1024.")
        return replace(
            entry,
            start_timeout_s=self._seconds(fields, "startTimeoutSecs", place),
            list_timeout_s=self._seconds(fields, "listTimeoutSecs", place),
            execute_timeout_s=self._seconds(fields, "executionTimeoutSecs", place),
            limit_bytes=limit,
        )

    def _checked_url(self, url: str, place: Place) -> str:
        self._check_variables(url, place)
        if "${" not in url and (problem := url_problem(url)) is not None:
            raise self._wrong(place, problem)
        return url

    def _check_variables(self, text: str, place: Place) -> None:
        if any("}" not in part for part in text.split("${")[1:]):
            raise self._wrong(place, "`${` has no `}`.")
        for name, _ in _variables(text):
            if not (name.isidentifier() and name.isascii()):
                raise self._wrong(place, f"`${{{name}}}` does not name an environment variable.")

    # Routes

    def _routes(
        self, fields: Mapping[str, Any], plugins: Mapping[str, PluginEntry]
    ) -> Mapping[str, Sequence[RouteRule]]:
        routes: dict[str, Sequence[RouteRule]] = {}
        names = list(plugins)
        for pattern, given in self._mapping_in(fields, "routes", ()).items():
            place: Place = ("routes", pattern)
            rules = cast("list[Any]", given) if isinstance(given, list) else [given]
            routes[pattern] = tuple(
                self._rule(rule, (*place, index) if isinstance(given, list) else place)
                for index, rule in enumerate(rules)
            )
            for index, rule in enumerate(routes[pattern]):
                if rule.plugin not in plugins:
                    raise self._wrong((*place, index, "plugin"), unknown_plugin(pattern, rule.plugin, names))
            try:
                read_pattern(pattern)
            except ValueError as error:
                raise self._wrong(place, f"{error}.") from error
        try:
            Router(routes, names, _never)
        except ValueError as error:
            raise self._wrong(("routes",), f"{error}.") from error
        return routes

    def _rule(self, value: Any, place: Place) -> RouteRule:
        fields = self._mapping(value, place)
        self._warn_unknown(fields, _RULE, place)
        return RouteRule(
            plugin=self._required(fields, "plugin", place),
            conditions=tuple(
                self._condition(condition, (*place, "conditions", index))
                for index, condition in enumerate(self._list_in(fields, "conditions", place))
            ),
            component_allow=self._names(fields, "componentAllow", place),
            component_deny=self._names(fields, "componentDeny", place),
            component=self._optional(fields, "component", str, place),
        )

    def _condition(self, value: Any, place: Place) -> Condition:
        fields = self._mapping(value, place)
        self._warn_unknown(fields, ("path", "value"), place)
        for name in ("path", "value"):
            if name not in fields:
                raise self._wrong(place, f"`{name}` is missing.")
        try:
            return Condition(path=read_path(fields["path"]), value=fields["value"])
        except PathInvalid as error:
            raise self._wrong((*place, "path"), str(error)) from error

    def _names(self, fields: Mapping[str, Any], name: str, place: Place) -> tuple[str, ...] | None:
        if fields.get(name) is None:
            return None
        listed = self._list_in(fields, name, place)
        return tuple(self._text(entry, (*place, name, index)) for index, entry in enumerate(listed))

    # The rest

    def _store(self, fields: Mapping[str, Any]) -> StateStore | None:
        name = "storageConfig" if fields.get("storageConfig") is not None else "stateStore"
        if fields.get(name) is None:
            return None
        place: Place = (name,)
        store = self._mapping(fields[name], place)
        if "metadata" in store and "type" not in store:
            # Later releases have several stores; there is one here.
            place = (name, "metadata")
            store = self._mapping(store["metadata"], place)
        kind = self._optional(store, "type", str, place) or "inMemory"
        connections = self._optional(store, "maxConnections", int, place)
        migrate = self._optional(store, "autoMigrate", bool, place)
        blob_bytes = self._optional(store, "maxBlobBytes", int, place)
        if blob_bytes is not None and blob_bytes < _LEAST_BLOB_BYTES:
            raise self._wrong((*place, "maxBlobBytes"), f"`maxBlobBytes` is a whole number from {_LEAST_BLOB_BYTES}.")
        return StateStore(
            type=kind,
            database_url=self._optional(store, "databaseUrl", str, place),
            auto_migrate=True if migrate is None else migrate,
            max_connections=10 if connections is None else connections,
            max_blob_bytes=_BLOB_BYTES if blob_bytes is None else blob_bytes,
            settings=store,
        )

    def _backoff(self, fields: Mapping[str, Any]) -> Backoff:
        retry = self._mapping_in(fields, "retry", ())
        self._warn_unknown(retry, ("transportMaxRetries", "backoff"), ("retry",))
        retries = self._optional(retry, "transportMaxRetries", int, ("retry",))
        if retries is not None and retries < 0:
            raise self._wrong(("retry", "transportMaxRetries"), "`transportMaxRetries` is a whole number from 0.")
        if retries is not None:
            here: Place = ("retry", "transportMaxRetries")
            self._warnings.append(
                f"{self._where(here, of_key=True)}: {place_text(here)} has no effect: "
                "what the end of a component server interrupts is sent once more."
            )
        place: Place = ("retry", "backoff")
        given = self._mapping_in(retry, "backoff", ("retry",))
        self._warn_unknown(given, ("type", "minDelayMs", "maxDelayMs", "factor", "delayMs"), place)
        kind = self._optional(given, "type", str, place) or BackoffKind.FIBONACCI
        if kind not in BackoffKind.__members__.values():
            raise self._wrong((*place, "type"), f"`type` is one of {', '.join(BackoffKind)}.")
        usual = Backoff()
        first = "delayMs" if kind == BackoffKind.CONSTANT else "minDelayMs"
        return Backoff(
            kind=BackoffKind(kind),
            min_delay_s=self._milliseconds(given, first, usual.min_delay_s, place),
            max_delay_s=self._milliseconds(given, "maxDelayMs", usual.max_delay_s, place),
            factor=self._number(given, "factor", usual.factor, place),
        )

    # Values

    def _milliseconds(self, fields: Mapping[str, Any], name: str, default_s: float, place: Place) -> float:
        return self._number(fields, name, default_s * 1000, place) / 1000

    def _seconds(self, fields: Mapping[str, Any], name: str, place: Place) -> float | None:
        value = self._number(fields, name, -1.0, place, is_optional=True)
        if value == 0:
            raise self._wrong((*place, name), f"`{name}` is a number above 0.")
        return None if value < 0 else value

    def _number(
        self, fields: Mapping[str, Any], name: str, default: float, place: Place, *, is_optional: bool = False
    ) -> float:
        value = fields.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
            raise self._wrong((*place, name), f"`{name}` is a number from 0{' or is left out' if is_optional else ''}.")
        return float(value)

    def _mapping(self, value: Any, place: Place) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in cast("Mapping[Any, Any]", value)):
            what = f"`{place[-1]}`" if place else "a config"
            raise self._wrong(place, f"{what} is a mapping of names to values, not {_kind(value)}.")
        return cast("Mapping[str, Any]", value)

    def _mapping_in(self, fields: Mapping[str, Any], name: str, place: Place) -> Mapping[str, Any]:
        value = fields.get(name)
        return {} if value is None else self._mapping(value, (*place, name))

    def _list_in(self, fields: Mapping[str, Any], name: str, place: Place) -> Sequence[Any]:
        value = fields.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._wrong((*place, name), f"`{name}` is a list, not {_kind(value)}.")
        return cast("list[Any]", value)

    def _strings(self, fields: Mapping[str, Any], name: str, place: Place) -> dict[str, str]:
        return {
            key: self._text(value, (*place, name, key)) for key, value in self._mapping_in(fields, name, place).items()
        }

    def _text(self, value: Any, place: Place) -> str:
        """A text; numbers and booleans as they are written."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str | int | float):
            return str(value)
        raise self._wrong(place, f"this is a text, not {_kind(value)}.")

    def _required(self, fields: Mapping[str, Any], name: str, place: Place) -> str:
        value = self._optional(fields, name, str, place)
        if value is None:
            raise self._wrong(place, f"`{name}` is missing.")
        return value

    def _optional(self, fields: Mapping[str, Any], name: str, kind: type[Any], place: Place) -> Any:
        value = fields.get(name)
        if value is None or type(value) is kind:
            return value
        raise self._wrong((*place, name), f"`{name}` is {_KINDS[kind]}, not {_kind(value)}.")

    def _warn_unknown(self, fields: Mapping[str, Any], known: Sequence[str], place: Place) -> None:
        for name in fields:
            if name not in known:
                close = get_close_matches(_camel(name), known, n=1)
                meant = f"; did you mean {close[0]!r}?" if close else "."
                here: Place = (*place, name)
                self._warnings.append(f"{self._where(here, of_key=True)}: {place_text(here)} is not known{meant}")

    def _wrong(self, place: Place, problem: str) -> ConfigInvalid:
        line, column = (None, None) if self._marks is None else self._marks.position(place)
        shown = f"{place_text(place)}: {problem}" if place else problem
        return ConfigInvalid(self._name, shown, line=line, column=column)

    def _where(self, place: Place, *, of_key: bool = False) -> str:
        if self._marks is None:
            return self._name
        line, column = self._marks.position(place, of_key=of_key)
        return f"{self._name}:{line}:{column}"


_KINDS: Mapping[type[Any], str] = {str: "a text", int: "a whole number", bool: "true or false"}


def url_problem(url: str) -> str | None:
    """What is wrong with the address of a component server."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host, parts = False, None
    if parts is None or parts.scheme not in ("http", "https") or not has_host:
        return "`url` is an address that starts with http:// or https://."
    if not url.isascii() or any(character.isspace() or not character.isprintable() for character in url):
        return "`url` holds a character that an address cannot have."
    return None


def _variables(text: str) -> Iterator[tuple[str, str | None]]:
    """The environment variables that a text names, with their defaults."""
    for part in text.split("${")[1:]:
        name, has_default, default = part.partition("}")[0].partition(":-")
        yield name, default if has_default else None


def _never(name: str) -> Any:
    raise AssertionError(name)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case PairList():
            return "one with a key that is no text (put it in quotes)"
        case list():
            return "a list"
        case _:
            return "a mapping"
