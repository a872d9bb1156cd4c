"""Configs: which one counts, what may stand in it, and what is said of what may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pyflue.errors import WorkflowInvalid
from pyflue.stepflow.backoff import Backoff, BackoffKind
from pyflue.stepflow.config import (
    CONFIG_NAMES,
    ConfigInvalid,
    PluginEntry,
    StateStore,
    StepflowConfig,
    Transport,
    default_config,
    find_config,
    read_config,
    read_config_value,
)
from pyflue.stepflow.paths import read_path
from pyflue.stepflow.routing import Condition, RouteRule

WHOLE = """\
workingDirectory: work
plugins:
  builtin: {type: builtin}
  python:
    type: stepflow
    transport: stdio
    command: python
    args: ["server.py", "--level=${LEVEL:-info}", 3, true]
    env: {KEY: "${KEY}", DEBUG: false, PLAIN: x}
    executionTimeoutSecs: 2.5
    maxMessageBytes: 2048
  remote: {type: stepflow, transport: http, url: "https://${HOST}:8080/rpc", headers: {Authorization: "Bearer ${KEY}"}}
  ours: {type: stepflow, command: python, args: [web.py]}
  files: {type: mcp, command: npx, args: [-y, server]}
  fake:
    type: mock
    components: {/x: {behaviors: {{a: 1}: {outcome: success, result: 2}}}}
routes:
  "/python/{*component}":
    - {plugin: python, conditions: [{path: $.model, value: {a: [1]}}], componentDeny: [udf]}
    - {plugin: remote, component: "/x/{component}", componentAllow: [/x/a]}
  /files: [{plugin: files}]
  "/{*component}": {plugin: builtin}
stateStore: {type: sqlite, databaseUrl: "sqlite:x.db", maxConnections: 3}
retry: {transportMaxRetries: 1, backoff: {type: exponential, minDelayMs: 100, maxDelayMs: 500, factor: 3}}
"""


def write(folder: Path, text: str, name: str = "stepflow-config.yml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_everything_that_a_config_may_say_is_read(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, WHOLE))

    folder = tmp_path / "work"
    assert (config.path, config.working_directory, [text.partition("$.")[2] for text in config.warnings]) == (
        tmp_path / "stepflow-config.yml",
        folder,
        ["retry.transportMaxRetries has no effect: what the end of a component server interrupts is sent once more."],
    )
    assert list(config.plugins) == ["builtin", "python", "remote", "ours", "files", "fake"]
    python = config.plugins["python"]
    assert python == PluginEntry(
        name="python",
        type="stepflow",
        folder=folder,
        transport=Transport.STDIO,
        command="python",
        args=("server.py", "--level=${LEVEL:-info}", "3", "true"),
        env={"KEY": "${KEY}", "DEBUG": "false", "PLAIN": "x"},
        execute_timeout_s=2.5,
        limit_bytes=2048,
        settings=python.settings,
        where=f"{tmp_path / 'stepflow-config.yml'}:5:11",
    )
    assert [entry.transport for entry in config.plugins.values()] == [
        None,
        Transport.STDIO,
        Transport.HTTP,
        Transport.SUBPROCESS,
        None,
        None,
    ]
    assert config.routes == {
        "/python/{*component}": (
            RouteRule(
                plugin="python",
                conditions=(Condition(path=read_path("$.model"), value={"a": [1]}),),
                component_deny=("udf",),
            ),
            RouteRule(plugin="remote", component="/x/{component}", component_allow=("/x/a",)),
        ),
        "/files": (RouteRule(plugin="files"),),
        "/{*component}": (RouteRule(plugin="builtin"),),
    }
    store = config.state_store
    assert store == StateStore(
        type="sqlite",
        database_url="sqlite:x.db",
        max_connections=3,
        settings={"type": "sqlite", "databaseUrl": "sqlite:x.db", "maxConnections": 3},
    )
    assert config.backoff == Backoff(kind=BackoffKind.EXPONENTIAL, min_delay_s=0.1, max_delay_s=0.5, factor=3)


def test_variables_are_replaced_in_arguments_environment_headers_and_address(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, WHOLE))
    environ = {"KEY": "planted-key", "HOST": "example.org", "LEVEL": ""}

    python, remote = (config.plugins[name].resolved(environ) for name in ("python", "remote"))

    assert python.args == ("server.py", "--level=info", "3", "true")
    assert python.env == {"KEY": "planted-key", "DEBUG": "false", "PLAIN": "x"}
    assert (remote.url, remote.headers) == ("https://example.org:8080/rpc", {"Authorization": "Bearer planted-key"})
    assert (python.secrets, remote.secrets) == (("planted-key",), ("example.org", "planted-key"))
    assert "planted-key" not in repr([python, remote, config])


def test_a_variable_that_is_not_set_is_named_to_those_who_need_it(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, WHOLE))

    assert config.unset_variables({"HOST": "x"}) == ["KEY"]
    assert config.plugins["builtin"].resolved({}) == config.plugins["builtin"]
    with pytest.raises(ConfigInvalid) as refused:
        config.plugins["python"].resolved({})
    assert str(refused.value) == (
        f"{tmp_path / 'stepflow-config.yml'}:5:11: plugin 'python' needs the environment variable KEY, which is not "
        "set. Set it, or give a default: ${KEY:-…}."
    )


def test_what_nobody_knows_is_passed_over_with_a_warning_that_says_what_was_meant(tmp_path: Path) -> None:
    text = """\
stat_store: {type: inMemory}
leaseManager: null
plugins:
  python: {type: stepflow, transport: stdio, command: x, max_retries: 3, arg: []}
routes:
  /python: [{plugin: python, componentAlow: [a]}]
"""
    path = write(tmp_path, text)

    assert read_config(path).warnings == (
        f"{path}:1:1: $.stat_store is not known; did you mean 'stateStore'?",
        f"{path}:4:58: $.plugins.python.max_retries is not known.",
        f"{path}:4:74: $.plugins.python.arg is not known; did you mean 'args'?",
        f"{path}:6:30: $.routes./python[0].componentAlow is not known; did you mean 'componentAllow'?",
    )


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("plugins: [", "2:1", "not valid YAML"),
        ("[1]", "1:1", "a config is a mapping of names to values, not a list"),
        ("plugins: 3", "1:10", "$.plugins: `plugins` is a mapping of names to values, not a number."),
        ("plugins: {a: {}}", "1:14", "$.plugins.a: `type` is missing."),
        ("plugins: {a: {type: 3}}", "1:21", "`type` is a text, not a number"),
        ("plugins: {a: {type: grpc}}", "1:21", "plugins of type 'grpc' are not spoken to. Use `type: stepflow`"),
        ("plugins: {a: {type: stepflow}}", "1:14", "`command` is missing"),
        ("plugins: {a: {type: stepflow, transport: pipe}}", "1:42", "`transport` is `stdio` or `http`"),
        ("plugins: {a: {type: stepflow, transport: http}}", "1:14", "`url` is missing"),
        ("plugins: {a: {type: stepflow, url: 'file:///etc/passwd'}}", "1:36", "starts with http:// or https://"),
        ("plugins: {a: {type: stepflow, url: 'http://'}}", "1:36", "starts with http:// or https://"),
        ("plugins: {a: {type: stepflow, url: 'http://[x'}}", "1:36", "starts with http:// or https://"),
        ('plugins: {a: {type: stepflow, url: "http://a/\\nb"}}', "1:36", "a character that an address cannot have"),
        ("plugins: {a: {type: mcp, command: ''}}", "1:35", "the name or the path of a program"),
        ("plugins: {a: {type: mcp}}", "1:14", "`command` is missing, or `url`"),
        ("plugins: {a: {type: mcp, url: 'x'}}", "1:31", "starts with http:// or https://"),
        ("plugins: {a: {type: mcp, url: 'http://x', args: []}}", "1:49", "give either `command` or `url`"),
        ("plugins: {a: {type: mcp, command: x, headers: {}}}", "1:47", "belongs to a server with a `url`"),
        ("plugins: {a: {type: mcp, url: 'http://x', headers: {A: '${A'}}}", "1:56", "`${` has no `}`"),
        ("plugins: {a: {type: mcp, command: x, args: {}}}", "1:44", "`args` is a list, not a mapping"),
        ("plugins: {a: {type: mcp, command: x, args: [[]]}}", "1:45", "this is a text, not a list"),
        ("plugins: {a: {type: mcp, command: x, args: ['${A']}}", "1:45", "`${` has no `}`"),
        ("plugins: {a: {type: mcp, command: x, env: {A: '${1+1}'}}}", "1:47", "does not name an environment variable"),
        ("plugins: {a: {type: mcp, command: x, env: {A: null}}}", "1:47", "this is a text, not nothing"),
        ("plugins: {a: {type: mcp, command: x, env: {1: a}}}", "1:43", "a key that is no text (put it in quotes)"),
        ("plugins: {a: {type: mcp, command: x, startTimeoutSecs: 0}}", "1:56", "is a number above 0"),
        ("plugins: {a: {type: mcp, command: x, startTimeoutSecs: soon}}", "1:56", "is a number from 0"),
        ("plugins: {a: {type: mcp, command: x, maxMessageBytes: 1}}", "1:55", "is a whole number from 1024"),
        ("routes: {/a: [{plugin: b}]}", "1:24", "route '/a' leads to plugin 'b', which there is not; there are none."),
        (
            "plugins: {python: {type: builtin}}\nroutes: {/a: [{plugin: pyton}]}",
            "2:24",
            "leads to plugin 'pyton', which there is not; did you mean 'python'?",
        ),
        ("routes: {/a: [3]}", "1:15", "is a mapping of names to values, not a number"),
        ("plugins: {b: {type: builtin}}\nroutes: {a: [{plugin: b}]}", "2:13", "a route starts with '/': write '/a'"),
        ("plugins: {b: {type: builtin}}\nroutes: {'/{*a}/b': [{plugin: b}]}", "2:21", "the rest of the path"),
        ("plugins: {b: {type: builtin}}\nroutes: {'/{a}/{a}': [{plugin: b}]}", "2:22", "a name of its own"),
        ("plugins: {b: {type: builtin}}\nroutes: {'/x{a}': [{plugin: b}]}", "2:19", "neither a text nor a placeholder"),
        ("plugins: {b: {type: builtin}}\nroutes: {'/a/': [{plugin: b}]}", "2:17", "no empty segments"),
        (
            "plugins: {b: {type: builtin}}\nroutes: {'/{a}': [{plugin: b}], '/{b}': [{plugin: b}]}",
            "2:9",
            "routes '/{a}' and '/{b}' are the same",
        ),
        (
            "plugins: {b: {type: builtin}}\nroutes: {/a: [{plugin: b, conditions: [{path: '$[x', value: 1}]}]}",
            "2:47",
            "$.routes./a[0].conditions[0].path",
        ),
        (
            "plugins: {b: {type: builtin}}\nroutes: {/a: [{plugin: b, conditions: [{path: a}]}]}",
            "2:40",
            "`value` is missing",
        ),
        ("retry: {transportMaxRetries: -1}", "1:30", "is a whole number from 0"),
        ("retry: {backoff: {type: random}}", "1:25", "is one of fibonacci, exponential, constant"),
        ("stateStore: {maxBlobBytes: 10}", "1:28", "`maxBlobBytes` is a whole number from 1024"),
        ("stateStore: {maxConnections: many}", "1:30", "`maxConnections` is a whole number, not a text"),
        ("a: 1\na: 2", "2:1", "there twice"),
    ],
)
def test_a_config_that_cannot_be_used_says_where_and_why(tmp_path: Path, text: str, where: str, problem: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(ConfigInvalid) as refused:
        read_config(path)

    message = str(refused.value)
    assert message.startswith(f"{path}:{where}: ")
    assert problem in message
    line, column = where.split(":")
    assert (refused.value.line, refused.value.column) == (int(line), int(column))
    assert isinstance(refused.value, WorkflowInvalid)


def test_a_config_that_is_not_there_or_too_large_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="it cannot be read: No such file"):
        read_config(tmp_path / "none.yml")
    with pytest.raises(ConfigInvalid, match="it is larger than"):
        read_config(write(tmp_path, "#" * (8 * 1024 * 1024 + 1)))


def test_spellings_of_later_releases_are_read(tmp_path: Path) -> None:
    text = """
plugins: {b: {type: builtin}}
routes: {/: [{plugin: b}]}
storageConfig: {metadata: {type: sqlite, databaseUrl: "sqlite:m.db"}, journal: {type: inMemory}}
workingDirectory: null
recovery: null
blobApi: {enabled: true}
retry: {backoff: {type: constant, delayMs: 50}}
"""
    config = read_config(write(tmp_path, text))

    assert config.warnings == ()
    assert config.state_store is not None
    assert (config.state_store.type, config.state_store.database_url) == ("sqlite", "sqlite:m.db")
    assert config.backoff.delay_s(5) == 0.05


def test_json_is_read_as_well(tmp_path: Path) -> None:
    value = {"plugins": {"b": {"type": "builtin"}}, "routes": {"/{*component}": [{"plugin": "b"}]}}
    path = write(tmp_path, json.dumps(value), "config.json")

    assert read_config(path).routes == read_config_value(value, tmp_path).routes
    assert read_config_value(None, tmp_path) == StepflowConfig(working_directory=tmp_path)


def test_the_config_beside_the_flow_goes_before_that_of_the_current_folder(tmp_path: Path) -> None:
    beside, current = tmp_path / "flows", tmp_path / "current"
    beside.mkdir()
    current.mkdir()

    assert find_config(beside, current) is None
    second = write(current, "", CONFIG_NAMES[3])
    assert find_config(beside, current) == second
    assert find_config(beside, None) is None
    first = write(beside, "", CONFIG_NAMES[2])
    assert find_config(beside, current) == first


def test_two_configs_in_one_folder_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "", CONFIG_NAMES[0])
    write(tmp_path, "", CONFIG_NAMES[3])

    with pytest.raises(ConfigInvalid, match=r"several configs \(stepflow-config.yml, stepflow_config.yaml\)"):
        find_config(tmp_path)


def test_without_a_config_the_builtin_components_are_reached_by_their_names(tmp_path: Path) -> None:
    assert default_config(tmp_path) == StepflowConfig(
        working_directory=tmp_path,
        plugins={"builtin": PluginEntry(name="builtin", type="builtin", folder=tmp_path)},
        routes={"/{*component}": (RouteRule(plugin="builtin"),)},
    )


SCHEMA = Path(__file__).parents[3] / "pyflue" / "stepflow" / "schemas" / "config.json"


@pytest.mark.parametrize(
    ("value", "is_fine"),
    [
        ({}, True),
        ({"plugins": {"b": {"type": "builtin"}}, "routes": {"/": [{"plugin": "b"}]}}, True),
        ({"plugins": {"p": {"type": "stepflow", "transport": "stdio", "command": "x", "env": {"A": "b"}}}}, True),
        ({"plugins": {"p": {"type": "stepflow", "transport": "stdio"}}}, False),
        ({"plugins": {"p": {"type": "stepflow", "transport": "http", "url": "http://x"}}}, True),
        ({"plugins": {"p": {"type": "stepflow", "transport": "http"}}}, False),
        ({"plugins": {"p": {"type": "mcp", "command": "x", "args": ["a"]}}}, True),
        ({"plugins": {"p": {"type": "mcp"}}}, False),
        ({"plugins": {"p": {"type": "mcp", "url": "http://x", "headers": {"A": "b"}}}}, True),
        ({"plugins": {"p": {"type": "mcp", "url": "http://x", "command": "x"}}}, False),
        ({"plugins": {"p": {"type": "mcp", "url": "http://x", "env": {}}}}, False),
        ({"plugins": {"p": {"type": "mcp", "command": "x", "headers": {"A": "b"}}}}, False),
        ({"plugins": {"p": {"command": "x"}}}, False),
        ({"plugins": {"p": {"type": "python", "server": "components:server"}}}, True),
        ({"plugins": {"m": {"type": "mock", "components": {"/x": {"behaviors": {}}}}}}, True),
        ({"routes": {"x": [{"plugin": "b"}]}}, False),
        ({"routes": {"/x": [{}]}}, False),
        ({"stateStore": {"maxBlobBytes": 1000}}, False),
        (
            {
                "stateStore": {"type": "inMemory", "maxBlobBytes": 5000},
                "retry": {"backoff": {"type": "constant", "delayMs": 3}},
            },
            True,
        ),
        ({"retry": {"backoff": {"type": "random"}}}, False),
    ],
)
def test_the_schema_for_editors_agrees_with_the_reader(value: dict[str, Any], is_fine: bool, tmp_path: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)

    assert jsonschema.Draft202012Validator(schema).is_valid(value) == is_fine
    names = {rule["plugin"] for rules in value.get("routes", {}).values() for rule in rules if "plugin" in rule}
    with_plugins = {**value, "plugins": {**{name: {"type": "builtin"} for name in names}, **value.get("plugins", {})}}
    try:
        read_config_value(with_plugins, tmp_path)
    except ConfigInvalid:
        assert not is_fine
    else:
        assert is_fine
