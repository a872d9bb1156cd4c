"""Tests inside of flow documents: what passes, what is said of what does not, and what is written back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.stepflow.case_update import UpdateRefused, as_expected, update_file, updated_text
from pyflue.stepflow.cases import (
    CaseResult,
    Executes,
    FileResult,
    Verdict,
    differences,
    executes_on,
    find_files,
    normalised,
    run_file,
)
from pyflue.stepflow.config import StepflowConfig
from pyflue.stepflow.environments import environment_for
from pyflue.stepflow.memory_runs import MemoryBackend
from pyflue.stepflow.yaml_reader import read_document

ECHO = """
name: echo
steps:
  - id: echo
    component: /noop
    input: {value: {$input: value}}
output: {$step: echo, path: value}
"""


@asynccontextmanager
async def opened(config: StepflowConfig) -> AsyncIterator[Executes]:
    backend = MemoryBackend(environment_for(config), limit_bytes=1024)
    try:
        yield executes_on(backend)
    finally:
        await backend.close()


def written(folder: Path, text: str, name: str = "flow.yaml") -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


async def ran(path: Path, **options: Any) -> FileResult:
    result = await run_file(path, opened, **options)
    assert result is not None
    return result


def success(value: Any) -> dict[str, Any]:
    return {"outcome": "success", "result": value}


def failed(code: Any, message: str, **more: Any) -> dict[str, Any]:
    return {"outcome": "failed", "error": {"code": code, "message": message, **more}}


# Running


async def test_each_case_is_run_and_compared_with_what_it_expects(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        ECHO
        + """
test:
  cases:
    - name: good
      input: {value: 1}
      output: {outcome: success, result: 1}
    - name: fails as it should
      input: {}
      output: {outcome: failed, error: {code: 1, message: Input path $.value not found}}
    - name: bad
      input: {value: 2}
      output: {outcome: success, result: 3}
    - name: undecided
      input: {value: 4}
""",
    )
    missing = failed(1, "Input path $.value not found")
    assert await ran(path) == FileResult(
        path=path,
        cases=[
            CaseResult(name="good", index=0, verdict=Verdict.PASSED, expected=success(1), actual=success(1)),
            CaseResult(name="fails as it should", index=1, verdict=Verdict.PASSED, expected=missing, actual=missing),
            CaseResult(
                name="bad",
                index=2,
                verdict=Verdict.FAILED,
                expected=success(3),
                actual=success(2),
                problems=("$.result: expected 3, got 2",),
            ),
            CaseResult(
                name="undecided",
                index=3,
                verdict=Verdict.UNDECIDED,
                actual=success(4),
                problems=("The case says no expected outcome: `--update` writes what came of it.",),
            ),
        ],
    )


async def test_only_the_cases_that_are_named_are_run(tmp_path: Path) -> None:
    path = written(tmp_path, ECHO + "test: {cases: [{name: a, input: {value: 1}}, {name: b, input: {value: 2}}]}\n")
    assert [(case.name, case.index) for case in (await ran(path, names=["b"])).cases] == [("b", 1)]
    assert (await ran(path, names=["c"])).cases == ()


async def test_a_diff_shows_expected_and_actual_line_by_line(tmp_path: Path) -> None:
    path = written(
        tmp_path, ECHO + "test: {cases: [{name: a, input: {value: 1}, output: {outcome: success, result: 2}}]}\n"
    )
    [case] = (await ran(path)).cases
    assert case.diff().splitlines()[2:] == [
        "@@ -1,4 +1,4 @@",
        " {",
        '   "outcome": "success",',
        '-  "result": 2',
        '+  "result": 1',
        " }",
    ]


async def test_files_that_are_no_flows_are_passed_over(tmp_path: Path) -> None:
    for text in ("plugins: {}\nroutes: {}\n", "- 1\n", "just text\n", "", "a: [\n"):
        assert await run_file(written(tmp_path, text), opened) is None


async def test_a_flow_without_cases_has_no_test(tmp_path: Path) -> None:
    path = written(tmp_path, ECHO)
    assert await ran(path) == FileResult(path=path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("steps: [\n", "line 2, column 1: "),
        ("steps: 5\ntest: {cases: [{name: a, input: 1}]}\n", "line 1, column 8, $.steps: "),
        (ECHO + "test: {config: {plugins: 5}, cases: [{name: a, input: 1}]}\n", "test.config of "),
        (ECHO + "test: {servers: {web: {}}, cases: [{name: a, input: 1}]}\n", "test.servers.web.command is missing."),
    ],
)
async def test_a_file_that_cannot_be_tested_says_why(tmp_path: Path, text: str, problem: str) -> None:
    result = await ran(written(tmp_path, text))
    assert not result.is_good
    assert problem in (result.problem or "")


async def test_a_flow_that_cannot_be_run_breaks_its_cases(tmp_path: Path) -> None:
    text = """
    steps: [{id: a, component: /noop}, {id: a, component: /noop}]
    test: {cases: [{name: one, input: 1, output: {outcome: success, result: 1}}]}
    """
    [case] = (await ran(written(tmp_path, text))).cases
    assert case.verdict is Verdict.BROKEN
    assert case.problems[0].startswith("The flow cannot be run: ")


def test_files_are_found_in_folders_and_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    (tmp_path / "node_modules").mkdir()
    for name in ("b.yaml", "a.yml", "c.txt", "deep/d.yaml", "deep/.hidden/e.yaml", "node_modules/f.yaml"):
        (tmp_path / name).write_text("")
    found = find_files([tmp_path, tmp_path / "c.txt", tmp_path / "b.yaml"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.yml", "b.yaml", "c.txt", "deep/d.yaml"]
    with pytest.raises(FileNotFoundError):
        find_files([tmp_path / "nowhere"])


# Which config


def mocked(answer: str) -> str:
    return f"""
    plugins: {{mock: {{type: mock, components: {{/who: {{behaviors: {{}}}}}}}}, builtin: {{type: builtin}}}}
    routes:
      "/{answer}/{{*component}}": [{{plugin: builtin}}]
    """


def reaching(name: str) -> str:
    return f"""
steps: [{{id: a, component: /{name}/noop, input: 1}}]
output: {{$step: a}}
"""


CASE = "cases: [{name: one, input: null, output: {outcome: success, result: 1}}]"


async def test_the_config_is_the_given_one_else_the_tests_own_else_one_for_tests_else_the_flows(
    tmp_path: Path,
) -> None:
    given = written(tmp_path, mocked("given"), "given.yml")
    own = "config: {plugins: {b: {type: builtin}}, routes: {'/own/{*component}': [{plugin: b}]}}"
    older = own.replace("config:", "stepflow_config:").replace("/own/", "/older/")
    written(tmp_path, mocked("plain"), "stepflow-config.yml")

    async def is_good(component: str, test: str = "", **options: Any) -> bool:
        text = reaching(component) + f"test: {{{test + ', ' if test else ''}{CASE}}}\n"
        return (await ran(written(tmp_path, text), **options)).is_good

    assert await is_good("plain")
    written(tmp_path, mocked("tests"), "stepflow-config.test.yml")
    assert not await is_good("plain")
    assert await is_good("tests")
    assert await is_good("own", own)
    assert await is_good("older", older)
    assert await is_good("given", own, config=given)
    written(tmp_path, mocked("tests"), "stepflow_config.test.yaml")
    result = await ran(written(tmp_path, reaching("tests") + f"test: {{{CASE}}}\n"))
    assert "there are several configs for tests" in (result.problem or "")


# Servers

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        ready = self.path != "/health" or Handler.asked > int(os.environ.get("READY_AFTER", "0"))
        self.send_response(200 if ready else 503)
        self.end_headers()
    def log_message(self, *args):
        pass
open(os.environ["SEEN"], "a").write(f"{os.getpid()} {os.environ['WHERE']} {os.environ.get('OTHER', '')}\\n")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def with_server(folder: Path, **server: Any) -> Path:
    written(folder, SERVER, "server.py")
    described: Mapping[str, Any] = {
        "command": sys.executable,
        "args": ["server.py", "{port}"],
        "env": {"WHERE": "{web.url}", "SEEN": str(folder / "seen")},
        **server,
    }
    config = {
        "plugins": {"b": {"type": "builtin"}, "w": {"type": "stepflow", "transport": "http", "url": "{web.url}/"}},
        "routes": {"/{*component}": [{"plugin": "b"}]},
    }
    test = {"servers": {"web": described}, "config": config, "cases": [{"name": "a", "input": {"value": 1}}]}
    return written(folder, ECHO + f"test: {json.dumps(test)}\n")


async def test_servers_run_while_the_cases_run_and_are_gone_afterwards(tmp_path: Path) -> None:
    health = {"path": "health", "retryAttempts": 3, "retry_delay_ms": 10}
    env = {"WHERE": "{web.url}", "SEEN": str(tmp_path / "seen"), "READY_AFTER": "2"}
    configs: list[StepflowConfig] = []

    @asynccontextmanager
    async def watched(config: StepflowConfig) -> AsyncIterator[Executes]:
        configs.append(config)
        async with opened(config) as execute:
            yield execute

    result = await run_file(with_server(tmp_path, health_check=health, env=env), watched)
    assert result is not None
    assert [case.actual for case in result.cases] == [success(1)], result.problem
    pid, where = (tmp_path / "seen").read_text().split()
    assert where.startswith("http://127.0.0.1:")
    assert configs[0].plugins["w"].url == f"{where}/"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_a_server_gets_a_port_of_its_range(tmp_path: Path) -> None:
    result = await ran(with_server(tmp_path, port_range=[20000, 30000]))
    assert result.problem is None
    port = int((tmp_path / "seen").read_text().split()[1].rpartition(":")[2])
    assert 20000 <= port <= 30000


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ({"args": ["-c", "import sys; sys.exit('no luck')"]}, "Test server 'web': it ended. Its last words:\nno luck"),
        ({"command": "no-such-program"}, "Test server 'web' cannot be started: there is no program"),
        (
            {"healthCheck": {"path": "/health", "retryAttempts": 1}, "env": {"READY_AFTER": "9"}},
            "/health was answered with HTTP 503, 1 times",
        ),
        (
            {"args": ["-c", "import time; time.sleep(60)"], "startupTimeoutMs": 200},
            "it did not answer within 0.2 s",
        ),
        ({"portRange": [2, 1]}, "test.servers.web.portRange is a list of two ports, the lower one first."),
        ({"args": "x"}, "test.servers.web.args is of the wrong kind."),
    ],
)
async def test_a_server_that_does_not_start_is_the_problem_of_the_file(
    tmp_path: Path, server: Mapping[str, Any], problem: str
) -> None:
    env = {"WHERE": "{web.url}", "SEEN": str(tmp_path / "seen"), **server.get("env", {})}
    result = await ran(with_server(tmp_path, **{**server, "env": env}))
    assert problem in (result.problem or "")
    if (tmp_path / "seen").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "seen").read_text().split()[0]), 0)


# Comparing


@pytest.mark.parametrize(
    ("expected", "actual", "found"),
    [
        (success({"a": 1}), success({"a": 1, "b": 2}), []),
        (success({"a": 1, "b": 2}), success({"a": 1}), ["$.result.b: expected 2, is not there"]),
        (success([1, 2]), success([1]), ["$.result: expected 2 values, got 1"]),
        (success([{"a": 1}]), success([{"a": 2, "b": 0}]), ["$.result[0].a: expected 1, got 2"]),
        (success(1), success(1.0), ["$.result: expected 1, got 1.0"]),
        (success(1), success(True), ["$.result: expected 1, got true"]),
        (success(None), success(0), ["$.result: expected null, got 0"]),
        (success({}), success([]), ["$.result: expected {}, got []"]),
        (success(1), failed(5, "no"), ["$.outcome: expected success, got failed: no"]),
        (failed(5, "no"), failed(5, "no", data={"x": 1}), []),
        (failed(5, "no", data={"x": 1}), failed(5, "no", data={"x": 1, "y": 2}), []),
        (failed(5, "no", data={"x": 1}), failed(5, "no"), ['$.error.data: expected {"x": 1}, got null']),
        (
            failed(5, "no"),
            failed(6, "yes"),
            ["$.error.code: expected 5, got 6", '$.error.message: expected "no", got "yes"'],
        ),
        (failed("COMPONENT_FAILED", "no"), failed(500, "no"), []),
        (failed("EXPRESSION_FAILURE", "no"), failed(1, "no"), []),
        (failed("TIMEOUT", "no"), failed(1, "no"), ['$.error.code: expected "TIMEOUT", got 1']),
        (failed("NONSENSE", "no"), failed(1, "no"), ['$.error.code: expected "NONSENSE", got 1']),
        ({"outcome": "failed"}, failed(1, "no"), ["$.error: what is expected needs `code` and `message`."]),
        ({"outcome": "skipped"}, {"outcome": "skipped", "reason": "why"}, []),
        (
            {"result": 1},
            success(1),
            ["The case's `output` is no outcome: it needs `outcome` (success, failed or skipped)."],
        ),
    ],
)
def test_what_is_expected_has_to_be_there_and_there_may_be_more(
    expected: Any, actual: Mapping[str, Any], found: list[str]
) -> None:
    assert differences(expected, actual) == found


def test_a_long_list_of_differences_is_cut() -> None:
    found = differences(success(list(range(30))), success([None] * 30))
    assert (len(found), found[-1]) == (11, "and 20 more")


def test_ids_of_runs_and_backtraces_are_not_compared() -> None:
    value = {"run_id": "abc", "deep": [{"run_id": 5, "backtrace": "x", "kept": 1}]}
    assert normalised(value) == {
        "run_id": "00000000-0000-0000-0000-000000000000",
        "deep": [{"run_id": 5, "kept": 1}],
    }


# Writing back

COMMENTED = """\
# A flow.
name: echo   # its name
steps: []
output: null
test:
  cases:
    # the first
    - name: one  # of three
      input: {value: 1}   # given
      # expected:
      output: {outcome: success, result: 0}   # not yet

    - name: two
      input:
        value: |
          a text
          # no comment

      # about three
    - output:
        outcome: success
        result:
          - 1
          # inside
          - 2
      # below
      name: three
      input: null
# the end
"""


def test_outcomes_are_written_where_they_belong_and_comments_stay() -> None:
    outputs = {0: success({"a": [1, "yes"]}), 1: failed(1, "no"), 2: success(3)}
    assert updated_text(COMMENTED, ".yaml", outputs) == (
        """\
# A flow.
name: echo   # its name
steps: []
output: null
test:
  cases:
    # the first
    - name: one  # of three
      input: {value: 1}   # given
      # expected:
      output:
        outcome: success
        result:
          a:
          - 1
          - 'yes'   # not yet

    - name: two
      input:
        value: |
          a text
          # no comment
      output:
        outcome: failed
        error:
          code: 1
          message: 'no'

      # about three
    - output:
        outcome: success
        result: 3
      # below
      name: three
      input: null
# the end
"""
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "test: {cases: [{name: a, input: 1}]}  # x\n",
            'test: {cases: [{name: a, input: 1, output: {"outcome": "success", "result": 5}}]}  # x\n',
        ),
        (
            "test: {cases: [{name: a, output: {outcome: failed}, input: 1}]}\n",
            'test: {cases: [{name: a, output: {"outcome": "success", "result": 5}, input: 1}]}\n',
        ),
        (
            "test:\n  cases:\n  - name: a\n    input: 1",
            "test:\n  cases:\n  - name: a\n    input: 1\n    output:\n      outcome: success\n      result: 5\n",
        ),
        (
            "test:\r\n  cases:\r\n  - name: a\r\n    output:\r\n    input: 1\r\n",
            (
                "test:\r\n  cases:\r\n  - name: a\r\n    output:\r\n      outcome: success\r\n      result: 5\r\n"
                "    input: 1\r\n"
            ),
        ),
        (
            "\ufefftest:\n  cases:\n  - {name: a, input: 1}\n",
            '\ufefftest:\n  cases:\n  - {name: a, input: 1, output: {"outcome": "success", "result": 5}}\n',
        ),
    ],
)
def test_every_way_to_write_a_case_can_be_changed(before: str, after: str) -> None:
    assert updated_text(before, ".yaml", {0: success(5)}) == after


def test_a_text_that_yaml_would_take_for_a_number_is_written_so_that_it_is_none() -> None:
    text = updated_text("test:\n  cases:\n  - name: a\n    input: 1\n", ".yaml", {0: success("0o17")})
    assert text.splitlines()[-1] == '    output: {"outcome": "success", "result": "0o17"}'


ANCHORED = """
test:
  cases:
  - name: a
    input: 1
    output: &x {outcome: success, result: 1}
  - name: b
    input: *x
"""


def test_an_anchor_that_is_used_elsewhere_is_not_broken() -> None:
    with pytest.raises(UpdateRefused, match="Change it by hand"):
        updated_text(ANCHORED, ".yaml", {0: success(5)})


def test_a_json_document_is_written_anew() -> None:
    text = updated_text('{"test": {"cases": [{"name": "a", "input": "ä"}]}}', ".json", {0: success(1.5)})
    assert '"input": "ä"' in text
    assert read_document(text, ".json").value["test"]["cases"][0]["output"] == success(1.5)


def test_the_layers_of_a_failure_are_not_expected() -> None:
    assert as_expected(failed(500, "no", data={"stack": [{"error": "x"}]})) == failed(500, "no")
    assert as_expected(failed(5, "no", data={"mine": 1})) == failed(5, "no", data={"mine": 1})


def test_a_file_keeps_its_rights_and_is_not_touched_if_it_cannot_be_changed(tmp_path: Path) -> None:
    path = written(tmp_path, "test:\n  cases:\n  - name: a\n    input: 1\n")
    path.chmod(0o640)
    update_file(path, {0: success(5)})
    assert (path.stat().st_mode & 0o777, path.read_text().splitlines()[-1]) == (0o640, "      result: 5")
    path.write_text(ANCHORED)
    with pytest.raises(UpdateRefused):
        update_file(path, {0: success(5)})
    assert path.read_text() == ANCHORED
    assert [entry.name for entry in tmp_path.iterdir()] == ["flow.yaml"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(values, values)
def test_whatever_is_written_is_read_again_and_nothing_else_changes(first: Any, second: Any) -> None:
    before = read_document(COMMENTED).value
    text = updated_text(COMMENTED, ".yaml", {0: success(first), 1: success(second)})
    after = read_document(text).value
    cases = after["test"]["cases"]
    assert (cases[0].pop("output"), cases[1].pop("output")) == (success(first), success(second))
    del before["test"]["cases"][0]["output"]
    assert after == before
    assert [line for line in text.splitlines() if "#" in line and "output" not in line][:4] == [
        line for line in COMMENTED.splitlines() if "#" in line and "output" not in line
    ][:4]


async def test_what_was_written_back_passes_afterwards(tmp_path: Path) -> None:
    path = written(tmp_path, ECHO + "test:\n  cases:\n  - name: a\n    input: {value: [1, yes, 0o17]}\n")
    result = await ran(path)
    assert not result.is_good
    update_file(path, {case.index: case.actual for case in result.cases if case.actual is not None})
    assert (await ran(path)).is_good
