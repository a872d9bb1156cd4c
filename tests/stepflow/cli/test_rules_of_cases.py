"""Rules of the command line that the tests beside this one do not show: servers of test cases, where `flow submit`
goes, what `workflows show` says of a flow, who may call a server from a page, and exit codes."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow import StepflowRuntime
from pyflue.stepflow.case_servers import HealthCheck, ServerPlan
from tests.cli.cli_project import Cli, json_of, write_workflow
from tests.cli.test_serving import started
from tests.stepflow.cli.folder import ECHO, write
from tests.stepflow.cli.test_running import is_alive, success

# Servers of test cases

#: Listens, and notes where it is, what it was told, and how it was ended.
SERVER = """\
import http.server, json, os, signal, sys, threading, time

ends = os.environ["ENDS"]
note = open(os.environ["NOTES"] + "/" + os.environ["NAME"], "w", buffering=1)


def tell(**fields):
    note.write(json.dumps(fields) + "\\n")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


def end(number, frame):
    tell(asked_at=time.monotonic())
    if ends == "never":
        return
    time.sleep(float(ends))
    tell(ended=True)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
tell(pid=os.getpid(), cwd=os.getcwd(), args=sys.argv[1:], peer=os.environ.get("PEER"))
server.serve_forever()
"""

CASES = [{"name": "a", "input": 1, "output": {"outcome": "success", "result": 1}}]


def with_servers(folder: Path, servers: Mapping[str, Mapping[str, Any]], **test: Any) -> None:
    """A flow `cases.yaml` in `flows`, whose cases need servers."""
    write(folder, "flows/server.py", SERVER)
    (folder / "notes").mkdir()
    described = {
        name: {
            "command": sys.executable,
            "args": ["server.py", "{port}"],
            **server,
            "env": {"NAME": name, "ENDS": "0", "NOTES": str(folder / "notes"), **server.get("env", {})},
        }
        for name, server in servers.items()
    }
    flow = json.dumps({"servers": described, "cases": CASES, **test})
    write(folder, "flows/cases.yaml", f"{ECHO}test: {flow}\n")


def noted(folder: Path, name: str) -> dict[str, Any]:
    """What a server has noted, of everything the first."""
    lines = (folder / "notes" / name).read_text(encoding="utf-8").splitlines()
    return {key: value for line in reversed(lines) for key, value in json.loads(line).items()}


def test_a_server_works_in_the_folder_of_the_flow_or_in_the_one_that_is_named_from_there(
    folder: Path, cli: Cli
) -> None:
    write(folder, "flows/deep/down/server.py", SERVER)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "server.py").write_text(SERVER, encoding="utf-8")
    places = {
        "beside": ({}, folder / "flows"),
        "below": ({"workingDirectory": "deep/down"}, folder / "flows" / "deep" / "down"),
        "older": ({"working_directory": "deep/down"}, folder / "flows" / "deep" / "down"),
        "absolute": ({"workingDirectory": str(elsewhere)}, elsewhere),
    }
    with_servers(folder, {name: server for name, (server, _) in places.items()})

    answer = cli("flow", "test", "flows/cases.yaml")

    assert (answer.exit_code, answer.stdout) == (0, "passed    flows/cases.yaml: a\n")
    assert {name: noted(folder, name)["cwd"] for name in places} == {
        name: str(place) for name, (_, place) in places.items()
    }


def test_a_server_is_given_the_time_that_is_named_to_end_by_itself(folder: Path, cli: Cli) -> None:
    with_servers(folder, {"slow": {"env": {"ENDS": "0.3"}}})

    assert cli("flow", "test", "flows/cases.yaml").exit_code == 0
    # The five seconds that there are by default were enough, and were not waited for.
    assert noted(folder, "slow")["ended"] is True
    assert time.monotonic() - noted(folder, "slow")["asked_at"] < 4


def test_a_server_that_does_not_end_in_its_time_is_killed(folder: Path, cli: Cli) -> None:
    with_servers(folder, {"stubborn": {"env": {"ENDS": "never"}, "shutdownTimeoutMs": 700}})

    assert cli("flow", "test", "flows/cases.yaml").exit_code == 0

    found = noted(folder, "stubborn")
    took_s = time.monotonic() - found["asked_at"]
    assert not is_alive(found["pid"])
    assert 0.65 < took_s < 2  # once the time, not once for each way to end it


@pytest.mark.parametrize("name", ["shutdownTimeoutMs", "shutdown_timeout_ms"])
def test_without_any_time_to_end_a_server_is_killed_at_once(name: str, folder: Path, cli: Cli) -> None:
    with_servers(folder, {"web": {"env": {"ENDS": "60"}, name: 0}})

    began = time.monotonic()
    assert cli("flow", "test", "flows/cases.yaml").exit_code == 0

    found = noted(folder, "web")
    assert time.monotonic() - began < 20
    assert "ended" not in found
    assert not is_alive(found["pid"])


def test_a_server_that_leaves_its_health_open_is_asked_as_often_as_is_said(folder: Path, cli: Cli) -> None:
    health = {"path": "/hang", "timeoutMs": 100, "retryAttempts": 2, "retryDelayMs": 0}
    with_servers(folder, {"web": {"healthCheck": health}})
    hanging = SERVER.replace("    def do_GET(self):\n", "    def do_GET(self):\n        time.sleep(1)\n")
    write(folder, "flows/server.py", hanging.replace("http.server.HTTPServer", "http.server.ThreadingHTTPServer"))

    answer = cli("flow", "test", "flows/cases.yaml")

    assert answer.exit_code == 1
    [problem] = answer.stdout.splitlines()
    assert "Test server 'web': /hang was answered with ReadTimeout, 2 times." in problem
    assert not is_alive(noted(folder, "web")["pid"])


def test_a_server_gets_the_first_port_of_its_range_that_is_free(folder: Path, cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        # Two servers never get the same one.
        with_servers(folder, {name: {"portRange": [port, min(port + 50, 65535)]} for name in ("one", "two")})
        answer = cli("flow", "test", "flows/cases.yaml")
        assert answer.exit_code == 0
        one, two = (int(noted(folder, name)["args"][0]) for name in ("one", "two"))
        assert port < one < two <= port + 50

        flow = (folder / "flows" / "cases.yaml").read_text(encoding="utf-8")
        write(folder, "flows/cases.yaml", re.sub(r'"portRange": \[\d+, \d+\]', f'"portRange": [{port}, {port}]', flow))
        answer = cli("flow", "test", "flows/cases.yaml")
        assert answer.exit_code == 1
        [line] = answer.stdout.splitlines()
        assert line.endswith(f"Server 'one': no port from {port} to {port} is free.")


def test_what_is_not_said_of_a_server_has_its_defaults(tmp_path: Path) -> None:
    plan = {"command": "x", "healthCheck": {"path": "health"}}
    assert ServerPlan.read_all({"web": plan}, tmp_path) == [
        ServerPlan(
            name="web",
            command="x",
            args=[],
            env={},
            cwd=tmp_path,
            port_range=None,
            health_check=HealthCheck(path="/health", timeout_s=5, attempts=3, delay_s=1),
            start_s=10,
            stop_s=5,
        )
    ]


def test_servers_are_told_where_the_others_are_and_the_config_is_told_of_all(folder: Path, cli: Cli) -> None:
    config = {
        "plugins": {
            "mock": {
                "type": "mock",
                "components": {"/where": {"behaviors": {"x": success(["{first.port}", {"at": "{second.url}/"}])}}},
            }
        },
        "routes": {"/{*component}": [{"plugin": "mock"}]},
    }
    servers = {
        "first": {
            "args": ["server.py", "{port}", "own={first.port}", "other={second.url}", "{third.port}{nobody.port}"],
            "env": {"PEER": "{port} {second.port} {second.url}"},
        },
        "second": {"args": ["server.py", "{second.port}"], "env": {"PEER": "{first.url}"}},
    }
    with_servers(folder, servers, config=config, cases=[{"name": "a", "input": "x"}])
    flow = (folder / "flows" / "cases.yaml").read_text(encoding="utf-8").replace("/noop", "/where")
    write(folder, "flows/cases.yaml", flow)

    told = json_of(cli("flow", "test", "flows/cases.yaml", "--json"))

    first, second = noted(folder, "first"), noted(folder, "second")
    one, two = first["args"][0], second["args"][0]
    assert one != two
    assert first["args"] == [one, f"own={one}", f"other=http://127.0.0.1:{two}", "{third.port}{nobody.port}"]
    assert (first["peer"], second["peer"]) == (f"{one} {two} http://127.0.0.1:{two}", f"http://127.0.0.1:{one}")
    [case] = told["files"][0]["cases"]
    assert case["actual"] == success([one, {"at": f"http://127.0.0.1:{two}/"}])


# Writing outcomes back

ANCHORED = """\
test:
  cases:
  - name: a
    input: 1
    output: &expected {outcome: success, result: 2}
  - name: b
    input: 2
    output: *expected
"""


def test_a_case_that_cannot_be_changed_without_another_is_left_and_told(folder: Path, cli: Cli) -> None:
    path = write(folder, "flows/cases.yaml", ECHO + ANCHORED)
    answer = cli("flow", "test", "flows", "--update")
    assert answer.exit_code == 1
    assert [line for line in answer.stderr.splitlines() if line.startswith("flows/cases.yaml: not updated: ")]
    assert path.read_text(encoding="utf-8") == ECHO + ANCHORED


# Where `flow submit` goes


@contextmanager
def proxy_to(server: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy that leads every request to one server; its address, and the addresses that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.answer(urllib.request.Request(server + self.way(), body, {"content-type": "application/json"}))

        def do_GET(self) -> None:
            self.answer(urllib.request.Request(server + self.way()))

        def way(self) -> str:
            base, mark, rest = self.path.partition("/api/")
            asked.append(base)
            return mark + rest

        def answer(self, request: urllib.request.Request) -> None:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request) as answer:
                body = answer.read()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        serving = threading.Thread(target=proxy.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}", asked
        finally:
            proxy.shutdown()
            serving.join()


def test_a_flow_is_submitted_to_the_usual_port_of_this_machine_unless_a_server_is_named(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(folder, "flow", "serve", "--port", "0") as server, proxy_to(server) as (proxy, asked):
        # Whatever listens at that port right now is left alone.
        for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy)
        answer = cli("flow", "submit", "echo.yaml", "--input-json", "5")
        assert (answer.exit_code, json_of(answer)) == (0, success(5))
        assert set(asked) == {"http://localhost:7837"}
        asked.clear()
        assert cli("flow", "submit", "echo.yaml", "--url", "http://flows.example:81").exit_code == 0
        assert set(asked) == {"http://flows.example:81"}


def test_flows_are_served_on_that_port_unless_another_is_named(folder: Path, cli: Cli) -> None:
    with taken(7837):
        answer = cli("flow", "serve")
    assert answer.exit_code == 2
    assert "127.0.0.1:7837" in answer.stderr


@contextmanager
def taken(port: int) -> Iterator[None]:
    """A port that is ours; somebody else may have to let go of it before."""
    deadline = time.monotonic() + 60
    while True:
        try:
            listening = socket.create_server(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            break
    with listening:
        yield


# A flow among the workflows of a project

SHOWN = """\
schema: flow/v1
name: any name
description: Doubles twice.
schemas:
  properties:
    input: {type: object, properties: {n: {type: integer}}, required: [n]}
    output: {type: integer}
steps:
  first: {component: /math/double, input: {$input: n}}
  second:
    component: /math/double
    input: {$step: first}
  never: {component: /noop}
output: {$if: {$step: first}, then: {$step: second}}
"""


@pytest.fixture
def flows(project: Path) -> Path:
    write(project, "src/workflows/twice.yaml", SHOWN)
    return project


def test_a_flow_is_shown_as_any_workflow(flows: Path, cli: Cli) -> None:
    told = json_of(cli("workflows", "show", "twice", "--json"))
    graph = {
        "nodes": [
            {"id": "first", "label": "first", "kind": "/math/double"},
            {"id": "second", "label": "second", "kind": "/math/double"},
            {"id": "never", "label": "never", "kind": "/noop"},
            {"id": "output", "label": "output", "kind": "output"},
        ],
        "edges": [
            {"source": "first", "target": "second", "label": ""},
            {"source": "first", "target": "output", "label": ""},
            {"source": "second", "target": "output", "label": ""},
        ],
    }
    assert told == {
        "name": "twice",
        "kind": "stepflow",
        "path": "src/workflows/twice.yaml",
        "version": told["version"],
        "description": "Doubles twice.",
        "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        "output_schema": {"type": "integer"},
        "graph": graph,
    }
    assert json_of(cli("workflows", "show", "twice", "--graph", "json")) == graph


def test_a_flow_is_shown_to_read(flows: Path, cli: Cli) -> None:
    answer = cli("workflows", "show", "twice")
    assert answer.exit_code == 0
    lines = [line.split(maxsplit=1) for line in answer.stdout.splitlines()[:5]]
    assert [name for name, _ in lines] == ["name", "kind", "path", "version", "description"]
    assert [value for name, value in lines if name != "version"] == [
        "twice",
        "stepflow",
        "src/workflows/twice.yaml",
        "Doubles twice.",
    ]
    drawn = cli("workflows", "show", "twice", "--graph", "mermaid").stdout
    assert drawn.startswith("flowchart")
    assert "first" in drawn
    assert cli("workflows", "show", "twice", "--graph", "svg").stdout.startswith("<svg")


def test_a_server_shows_a_flow_as_the_project_does(flows: Path, cli: Cli) -> None:
    here = json_of(cli("workflows", "show", "twice", "--json"))
    with started(flows, "serve", "--port", "0") as url:
        assert json_of(cli("workflows", "show", "twice", "--json", "--server", url)) == here


def test_a_flow_that_changes_has_another_version(flows: Path, cli: Cli) -> None:
    before = json_of(cli("workflows", "show", "twice", "--json"))["version"]
    write(flows, "src/workflows/twice.yaml", SHOWN.replace("Doubles twice.", "Doubles."))
    assert json_of(cli("workflows", "show", "twice", "--json"))["version"] != before


# Pages of other origins

API = ["/api/v1/health", "/api/v1/components", "/api/v1/runs", "/api/v1/openapi.json"]


def asked(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, {name.lower(): value for name, value in refused.headers.items()}


@pytest.mark.parametrize("where", ["folder", "project"])
def test_no_page_may_call_a_server_of_flows_unless_its_origin_is_allowed(
    where: str, request: pytest.FixtureRequest
) -> None:
    place: Path = request.getfixturevalue(where)
    page = {"Origin": "http://evil.example"}
    before = {**page, "Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type"}
    with started(place, "flow", "serve", "--port", "0") as url:
        answers = [asked(url + path, **page) for path in API]
        answers.append(asked(url + "/api/v1/runs", "POST", b"{}", Content_Type="application/json", **page))
        answers.append(asked(url + "/api/v1/runs", "OPTIONS", **before))
        assert [status for status, _ in answers[:-1]] == [403] * 5
        assert answers[-1][0] >= 400
        assert [name for _, headers in answers for name in headers if name.startswith("access-control-allow")] == []
        assert [asked(url + path, Origin=url)[0] for path in API] == [200] * 4


def test_no_page_may_call_a_runtime_that_listens(folder: Path) -> None:
    with StepflowRuntime.start(port=0) as runtime:
        answers = [asked(runtime.url + path, Origin="http://evil.example") for path in API]
        assert [status for status, _ in answers] == [403] * 4
        assert not [name for _, headers in answers for name in headers if name.startswith("access-control-allow")]
        assert [asked(runtime.url + path)[0] for path in API] == [200] * 4


# Exit codes

SKIPPED = """\
name: skipped
description: An older flow that has nothing to do.
steps:
- id: a
  component: /noop
  skipIf: true
output: {$from: {step: a}}
"""
NO_FLOW = "steps: 5\n"


@pytest.mark.parametrize("where", ["folder", "project"])
@pytest.mark.parametrize(
    ("arguments", "exit_code", "outcomes"),
    [
        (["echo.yaml"], 0, ["success"]),
        (["skipped.yaml"], 0, ["skipped"]),
        (["fail.yaml"], 1, ["failed"]),
        (["echo.yaml", "--inputs", "two.jsonl"], 0, ["success", "success"]),
        (["fail.yaml", "--inputs", "two.jsonl"], 1, ["failed", "failed"]),
        (["fail.yaml", "--output", "out.json"], 1, []),
        (["broken.yaml"], 1, []),
        (["no_flow.yaml"], 1, []),
        (["echo.yaml", "--config", "no_config.yml"], 1, []),
        (["none.yaml"], 2, []),
        (["echo.yaml", "--input-json", "{"], 2, []),
        (["variables.yaml"], 2, []),
        (["echo.yaml", "--overrides-json", '{"none": {"value": {}}}'], 2, []),
    ],
)
def test_the_exit_code_of_flow_run_says_whether_it_ran_and_what_came_of_it(
    where: str,
    arguments: list[str],
    exit_code: int,
    outcomes: list[str],
    cli: Cli,
    request: pytest.FixtureRequest,
) -> None:
    place: Path = request.getfixturevalue(where)
    for name, text in {"skipped.yaml": SKIPPED, "no_flow.yaml": NO_FLOW, "two.jsonl": "1\n2\n"}.items():
        write(place, name, text)
    write(place, "no_config.yml", "plugins: 5\n")

    answer = cli("flow", "run", *arguments)

    lines = answer.stdout.splitlines() if "--inputs" in arguments else [answer.stdout] if answer.stdout else []
    assert (answer.exit_code, [json.loads(line)["outcome"] for line in lines]) == (exit_code, outcomes)
    told = [line for line in answer.stderr.splitlines() if line.lower().startswith("error: ")]
    assert len(told) == (1 if exit_code else 0)
    if "--output" in arguments:
        assert json.loads((place / "out.json").read_text(encoding="utf-8"))["outcome"] == "failed"


def test_a_flow_of_the_project_that_fails_ends_pyflue_run_with_the_same_exit_code(flows: Path, cli: Cli) -> None:
    write_workflow(flows, "python", "def run(ctx):\n    raise ValueError('no')\n")
    write(flows, "src/workflows/failing.yaml", "name: f\noutput: {$input: nothing}\n")
    codes = {name: cli("run", name, "--payload", "{}").exit_code for name in ("failing", "python")}
    assert codes == {"failing": 1, "python": 1}
