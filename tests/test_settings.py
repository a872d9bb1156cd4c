"""Settings: where a value comes from, which source wins, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pyflue.errors import ProjectNotFound, SettingsInvalid
from pyflue.settings import (
    SCOPES,
    McpServerSettings,
    ProviderSettings,
    Settings,
    Token,
    describe,
    find_root,
    load_settings,
    misspelt_variables,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    return tmp_path


def load(
    root: Path, toml: str = "", *, options: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    (root / "pyflue.toml").write_text(toml, encoding="utf-8")
    return load_settings(root, options=options, environ=environ or {})


def test_without_anything_every_setting_has_its_documented_default(root: Path) -> None:
    settings = load_settings(root, environ={})
    found = {name: getattr(getattr(settings, name.split(".")[0]), name.split(".")[1]) for name, *_ in describe()}
    assert found == {name: default for name, _, default, _ in describe()}


def test_an_option_wins_over_a_variable_over_the_file_over_the_default(root: Path) -> None:
    toml = "[server]\nport = 3001\n"
    environ = {"PYFLUE_SERVER_PORT": "3002"}
    assert load_settings(root, environ={}).server.port == 2024
    assert load(root, toml).server.port == 3001
    assert load(root, toml, environ=environ).server.port == 3002
    assert load(root, toml, environ=environ, options={"server.port": 3003}).server.port == 3003


def test_an_option_that_was_not_given_and_an_empty_variable_do_not_count(root: Path) -> None:
    settings = load(root, "[server]\nport = 3001\n", options={"server.port": None}, environ={"PYFLUE_SERVER_PORT": ""})
    assert settings.server.port == 3001


def test_the_token_has_a_short_variable(root: Path) -> None:
    assert load(root, environ={"PYFLUE_TOKEN": "a-secret-of-16-letters"}).server.token == "a-secret-of-16-letters"


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("PYFLUE_TOKEN", "short", "at least 16 characters"),
        ("PYFLUE_JOURNAL_IDEMPOTENCY_KEEP_S", "60", "at least 86400"),
    ],
)
def test_values_that_would_break_a_promise_are_refused(root: Path, variable: str, value: str, problem: str) -> None:
    with pytest.raises(SettingsInvalid, match=problem):
        load(root, environ={variable: value})


def test_the_model_of_every_agent_has_a_short_variable(root: Path) -> None:
    assert load(root, environ={"PYFLUE_MODEL": "scripted/hello"}).agent.model_override == "scripted/hello"


@pytest.mark.parametrize("written", ["false", "False", "0", "no", "off"])
def test_a_switch_is_a_word_in_a_variable_and_a_boolean_in_the_file(root: Path, written: str) -> None:
    assert load(root, environ={"PYFLUE_COMPACTION_ENABLED": written}).compaction.enabled is False
    assert load(root, "[compaction]\nenabled = false\n").compaction.enabled is False
    assert load(root, "[compaction]\nenabled = true\n").compaction.enabled is True


def test_0_is_a_number_where_it_means_something(root: Path) -> None:
    agent = load(root, "[agent]\ntask_depth = 0\nanswer_retries = 0\nmodel_retries = 0\n").agent
    assert (agent.task_depth, agent.answer_retries, agent.model_retries) == (0, 0, 0)


def test_providers_and_mcp_servers_have_the_names_a_project_gives_them(root: Path) -> None:
    settings = load(
        root,
        """
        [providers.ollama]
        base_url = "http://127.0.0.1:11434/v1"
        headers = { authorization = "hush" }
        key_variable = "OLLAMA_KEY"
        timeout_s = 5
        context_tokens = 32768
        [providers.anthropic]
        [mcp.servers.files]
        command = "mcp-files"
        args = ["--read-only"]
        env = { TOKEN = "hush" }
        [mcp.servers.search]
        url = "https://mcp.example/search"
        headers = { authorization = "hush" }
        """,
    )
    assert settings.providers == {
        "ollama": ProviderSettings(
            base_url="http://127.0.0.1:11434/v1",
            headers={"authorization": "hush"},
            key_variable="OLLAMA_KEY",
            timeout_s=5.0,
            context_tokens=32768,
        ),
        "anthropic": ProviderSettings(),
    }
    assert settings.mcp_servers == {
        "files": McpServerSettings(command="mcp-files", args=("--read-only",), env={"TOKEN": "hush"}),
        "search": McpServerSettings(url="https://mcp.example/search", headers={"authorization": "hush"}),
    }
    assert settings.unknown_tables == ()
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("providers = 1\n", r"providers \(from pyflue\.toml\): expected a table"),
        ("[providers]\nx = 1\n", r"providers\.x .*expected a table"),
        ("[providers.'a b']\n", r"'a b' cannot be a name"),
        ("[providers.x]\nbase_ulr = ''\n", r"providers\.x\.base_ulr .*did you mean 'base_url'"),
        ("[providers.x]\nbase_url = 'ftp://x'\n", r"base_url .*expected an address that starts with http"),
        ("[providers.x]\nbase_url = ''\n", r"base_url .*expected a string that is not empty"),
        ("[providers.x]\napi_key = 'hush'\n", r"api_key .*put it into a variable, and its name into key_variable"),
        ("[providers.x]\nheaders = ['hush']\n", r"headers .*expected a table of strings"),
        ("[providers.x]\nheaders = { a = 1 }\n", r"headers .*expected a table of strings"),
        ("[providers.x]\ntimeout_s = '5'\n", r"timeout_s .*expected a number, not '5'"),
        ("[providers.x]\ncontext_tokens = 0\n", r"context_tokens .*expected a positive whole number, not 0"),
        ("[provider.x]\n", r"did you mean 'providers'"),
        ("mcp = 1\n", r"mcp \(from pyflue\.toml\): expected a table"),
        ("[mcp.server.x]\ncommand = 'x'\n", r"mcp\.server .*did you mean 'servers'"),
        ("[mcp.servers.x]\n", r"expected either `command`, to start a server, or `url`"),
        ("[mcp.servers.x]\ncommand = 'x'\nurl = 'http://x'\n", r"expected either `command`"),
        ("[mcp.servers.x]\nurl = 'http://x'\nargs = ['y']\n", r"args .*it goes with `command`"),
        ("[mcp.servers.x]\ncommand = 'x'\nheaders = { a = 'b' }\n", r"headers .*it goes with `url`"),
        ("[mcp.servers.x]\ncommand = 'x'\nargs = [1]\n", r"args .*expected a list of strings"),
        ("[agent]\nthinking_level = 'deep'\n", r"thinking_level .*expected one of off, minimal, low"),
        ("[agent]\nmax_turns = 0\n", r"max_turns .*expected a positive whole number, not 0"),
        ("[agent]\nmax_task_depth = 3\n", r"did you mean 'task_depth'"),
        ("[compaction]\nenabled = 1\n", r"enabled .*expected true or false, not 1"),
        ("[compaction]\nenabled = 'maybe'\n", r"enabled .*expected true or false, not 'maybe'"),
    ],
)
def test_a_table_of_agents_that_cannot_be_used_is_named(root: Path, toml: str, problem: str) -> None:
    with pytest.raises(SettingsInvalid, match=problem) as refused:
        load(root, toml)
    assert "hush" not in str(refused.value)


def test_a_folder_with_agents_only_is_a_project(tmp_path: Path) -> None:
    (tmp_path / "src" / "agents").mkdir(parents=True)
    assert find_root(tmp_path / "src" / "agents") == tmp_path


def test_a_misspelt_table_is_refused_with_a_suggestion(root: Path) -> None:
    with pytest.raises(SettingsInvalid, match="did you mean 'server'"):
        load(root, "[servr]\nport = 1\n")


def test_the_process_environment_is_read_by_default(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYFLUE_LIMITS_RUNNING", "7")
    assert load_settings(root).limits.running == 7


def test_a_list_is_written_with_commas_in_a_variable_and_as_a_list_in_the_file(root: Path) -> None:
    expected = ("flue.example", "www.flue.example")
    file = 'allowed_hosts = ["flue.example", "www.flue.example"]'
    assert load(root, f"[server]\n{file}\n").server.allowed_hosts == expected
    variable = {"PYFLUE_SERVER_ALLOWED_HOSTS": " flue.example, www.flue.example,"}
    assert load(root, environ=variable).server.allowed_hosts == expected


def test_numbers_keep_their_kind(root: Path) -> None:
    settings = load(root, "[server]\nwait_s = 5\n", environ={"PYFLUE_SERVER_HEARTBEAT_S": "2.5"})
    assert (settings.server.wait_s, settings.server.heartbeat_s) == (5.0, 2.5)


def test_an_unknown_key_is_refused_and_the_nearest_one_suggested(root: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"server\.prot \(from pyflue\.toml\): .*did you mean 'port'\?"):
        load(root, "[server]\nprot = 3001\n")
    with pytest.raises(SettingsInvalid, match=r"limits\.zebra \(from pyflue\.toml\): there is no such setting\.$"):
        load(root, "[limits]\nzebra = 1\n")


@pytest.mark.parametrize("value", [3, None])
def test_an_unknown_option_is_refused_and_the_nearest_one_suggested(root: Path, value: int | None) -> None:
    with pytest.raises(SettingsInvalid, match=r"server\.prt \(from the options\): .*did you mean 'server\.port'\?"):
        load(root, options={"server.prt": value})


def test_a_key_outside_of_any_table_is_refused(root: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"port \(from pyflue\.toml\): it is in no table"):
        load(root, "port = 3001\n")


def test_a_misspelt_variable_is_noticed_and_those_of_others_are_not() -> None:
    environ = {
        "PYFLUE_SERVR_PORT": "1",
        "PYFLUE_SERVER_TOKEN": "a-secret-of-16-letters",
        "PYFLUE_SERVER_TOKENS": "x",
        "PYFLUE_SERVER_PORT": "1",
        "PYFLUE_TOKEN": "a-secret-of-16-letters",
        "PYFLUE_LIMITS_RUNING": "",
        "PYFLUE_COLOUR": "red",
        "SERVER_PORT": "1",
    }
    assert dict(misspelt_variables(environ)) == {
        "PYFLUE_SERVR_PORT": "PYFLUE_SERVER_PORT",
        "PYFLUE_SERVER_TOKEN": "PYFLUE_TOKEN",
        "PYFLUE_SERVER_TOKENS": "server.tokens in pyflue.toml",
    }


def test_tables_of_others_are_kept_apart(root: Path) -> None:
    assert load(root, "[plugin]\nkey = 1\n[server]\n").unknown_tables == ("plugin",)


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[server]\nport = 'many'\n", r"server\.port \(from pyflue\.toml\): expected a positive whole number"),
        ("[server]\nport = 70000\n", r"expected a port up to 65535, not 70000"),
        ("[server]\nport = -1\n", r"expected a positive whole number, not -1"),
        ("[server]\nport = true\n", r"expected a number, not True"),
        ("[server]\nhost = 1\n", r"server\.host .*expected a string, not 1"),
        ("[server]\nallowed_hosts = [1]\n", r"expected a list of strings, not \[1\]"),
        ("[limits]\nrunning = 0\n", r"limits\.running .*expected a positive whole number, not 0"),
        ("[limits]\nrunning = inf\n", r"limits\.running .*expected a positive whole number, not inf"),
        ("[engine]\nstop_s = nan\n", r"engine\.stop_s .*expected a positive number, not nan"),
        ("server = 1\n", r"Setting server \(from pyflue\.toml\): expected a table"),
        ("[server\n", r"it is not TOML"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_source(root: Path, toml: str, problem: str) -> None:
    with pytest.raises(SettingsInvalid, match=problem):
        load(root, toml)


def test_a_bad_value_of_a_variable_or_an_option_names_that(root: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"from PYFLUE_ENGINE_STOP_S"):
        load(root, environ={"PYFLUE_ENGINE_STOP_S": "soon"})
    with pytest.raises(SettingsInvalid, match=r"from the command line"):
        load(root, options={"server.port": 99999})


def test_a_file_that_is_not_utf_8_is_refused_by_name(root: Path) -> None:
    (root / "pyflue.toml").write_bytes(b'[server]\nhost = "\xff"\n')
    with pytest.raises(SettingsInvalid, match=r"pyflue\.toml\): it is not TOML"):
        load_settings(root, environ={})


def test_named_tokens_have_a_value_and_scopes(root: Path) -> None:
    settings = load(
        root,
        """
        [server.tokens]
        ci = { token = "0123456789abcdef", scopes = ["run", "read"] }
        boss = { token = "fedcba9876543210", scopes = ["admin"] }
        """,
    )
    assert settings.server.tokens == (
        Token(name="ci", value="0123456789abcdef", scopes=frozenset({"run", "read"})),
        Token(name="boss", value="fedcba9876543210", scopes=frozenset({"admin"})),
    )


def test_two_named_tokens_with_one_value_are_refused(root: Path) -> None:
    toml = """
        [server.tokens]
        ci = { token = "0123456789abcdef", scopes = ["run"] }
        boss = { token = "0123456789abcdef", scopes = ["admin"] }
        """
    with pytest.raises(SettingsInvalid, match=r"server\.tokens\.boss .*the same value as 'ci'") as refused:
        load(root, toml)
    assert "0123456789abcdef" not in str(refused.value)


def test_a_token_does_not_show_in_what_is_printed_of_it(root: Path) -> None:
    settings = load(root, '[server.tokens]\nci = { token = "0123456789abcdef", scopes = ["run"] }\n')
    assert "0123456789abcdef" not in repr(settings.server.tokens)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ('{ token = "short", scopes = ["run"] }', r"server\.tokens\.ci .*at least 16 characters"),
        ('{ scopes = ["run"] }', r"server\.tokens\.ci .*at least 16 characters"),
        ('"0123456789abcdef"', r"server\.tokens\.ci .*at least 16 characters"),
        ('{ token = "0123456789abcdef" }', rf"expected scopes out of {', '.join(SCOPES)}"),
        ('{ token = "0123456789abcdef", scopes = ["root"] }', r"expected scopes out of"),
        ('{ token = "0123456789abcdef", scopes = "run" }', r"expected scopes out of"),
    ],
)
def test_a_named_token_that_is_incomplete_is_refused(root: Path, entry: str, problem: str) -> None:
    with pytest.raises(SettingsInvalid, match=problem):
        load(root, f"[server.tokens]\nci = {entry}\n")


def test_a_project_is_found_from_any_folder_below_it(root: Path) -> None:
    below = root / "notes" / "2026"
    below.mkdir(parents=True)
    assert find_root(below) == root


def test_a_project_is_found_from_its_own_workflow_folder(root: Path) -> None:
    below = root / "src" / "workflows" / "orders"
    below.mkdir()
    assert find_root(below) == root


def test_a_folder_outside_of_any_project_is_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ProjectNotFound, match=r"No PyFlue project in .*pyflue init"):
        find_root(tmp_path)


def test_the_journal_is_in_the_state_folder_unless_its_address_says_otherwise(root: Path) -> None:
    assert load(root).journal_url == f"sqlite:///{root / '.pyflue' / 'journal.db'}"
    assert load(root, environ={"PYFLUE_JOURNAL_URL": "memory:"}).journal_url == "memory:"
