"""`pyflue flow serve` as a process, and `pyflue flow submit` against it."""

from __future__ import annotations

import re
import signal
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pyflue import codec
from tests.cli.cli_project import Cli, json_of, spawn
from tests.cli.test_serving import started, url_told
from tests.stepflow.cli.folder import CONFIG, fill, write
from tests.stepflow.cli.test_running import RUN_ID, children_of, is_alive, success, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server without a project."""
    place = tmp_path_factory.mktemp("server")
    fill(place)
    with started(place, "flow", "serve", "--port", "0", "--allowed-origin", "http://editor.example") as url:
        yield url


def test_a_submitted_flow_runs_on_the_server(folder: Path, server: str, cli: Cli) -> None:
    (folder / "stepflow-config.yml").unlink()
    write(folder, "pid.yaml", "name: p\ndescription: p\nsteps: [{id: a, component: /server/pid}]\noutput: {$step: a}\n")
    answer = cli("flow", "submit", "pid.yaml", "--url", server)
    assert answer.exit_code == 0
    assert json_of(answer)["result"] > 0
    assert RUN_ID.fullmatch(answer.stderr.strip())


def test_everything_that_a_run_can_be_given_is_sent_along(folder: Path, server: str, cli: Cli) -> None:
    write(folder, "inputs", "1\n2\n")
    options = ("--inputs", "inputs", "--max-concurrent", "1", "--variables-json", '{"city": "Graz"}', "--json")
    told = json_of(cli("flow", "submit", "--flow", "variables.yaml", *options, "--url", server))
    outcomes = [success(["Graz", 3])] * 2
    assert told == {"run_id": told["run_id"], "status": "completed", "outcomes": outcomes}
    changes = '{"echo": {"value": {"input": "changed"}}}'
    answer = cli("flow", "submit", "echo.yaml", "--overrides-json", changes, "--input-json", "1", "--url", server)
    assert answer.exit_code == 0


def test_a_failed_run_ends_with_exit_code_1(folder: Path, server: str, cli: Cli) -> None:
    answer = cli("flow", "submit", "fail.yaml", "--url", server)
    assert (answer.exit_code, json_of(answer)["outcome"]) == (1, "failed")


def test_what_is_fatal_is_told_here_and_an_error_is_left_to_the_server(folder: Path, server: str, cli: Cli) -> None:
    assert cli("flow", "submit", "broken.yaml", "--url", "http://127.0.0.1:1").exit_code == 1
    write(folder, "slash.yaml", "name: s\ndescription: s\nsteps: [{id: a, component: x}]\noutput: {$step: a}\n")
    answer = cli("flow", "submit", "slash.yaml", "--url", server)
    assert (answer.exit_code, json_of(answer)["outcome"]) == (1, "failed")


def test_ctrl_c_cancels_the_submitted_run(folder: Path, server: str, cli: Cli) -> None:
    hanging = folder / "hanging"
    process = spawn("flow", "submit", "hang.yaml", "--input-json", f'"{hanging}"', "--url", server, cwd=folder)
    wait_for(hanging)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    found = re.search(r"^run ([0-9a-f]{32}) cancelled$", stderr, re.MULTILINE)
    assert found is not None
    assert process.returncode == 130
    with urllib.request.urlopen(f"{server}/api/v1/runs/{found[1]}") as answer:
        assert codec.decode(answer.read(), "the answer")["status"] == "cancelled"


def test_a_server_that_is_not_there_is_exit_code_3(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "submit", "echo.yaml", "--url", "http://127.0.0.1:1")
    assert answer.exit_code == 3
    assert "No answer from http://127.0.0.1:1" in answer.stderr
    assert cli("flow", "submit", "echo.yaml", "--url", "nonsense").exit_code == 2


def test_a_server_of_something_else_is_asked_about(folder: Path, cli: Cli) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(501)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        serving = threading.Thread(target=other.serve_forever)
        serving.start()
        url = f"http://127.0.0.1:{other.server_port}"
        answer = cli("flow", "submit", "echo.yaml", "--input-json", "1", "--url", url)
        other.shutdown()
        serving.join()
    assert answer.exit_code == 1
    assert answer.stderr.splitlines() == [
        "error: POST /flows: HTTP 501.",
        f"hint: That is not how a server of flows answers: is {url} one?",
    ]


def test_pages_of_allowed_origins_may_call(server: str) -> None:
    request = urllib.request.Request(f"{server}/api/v1/health", headers={"Origin": "http://editor.example"})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["access-control-allow-origin"] == "http://editor.example"


def test_the_servers_plugins_end_with_it(folder: Path, cli: Cli) -> None:
    process = spawn("flow", "serve", "--port", "0", "--config", "stepflow-config.yml", cwd=folder)
    url = url_told(process)
    hanging = folder / "hanging"
    submitting = spawn("flow", "submit", "hang.yaml", "--input-json", f'"{hanging}"', "--url", url, cwd=folder)
    wait_for(hanging)
    children = children_of(process.pid)
    assert children
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
    assert submitting.wait(20) in {1, 3}  # it hears of the cancelled run, or of nothing any more
    submitting.communicate()
    assert not [pid for pid in children if is_alive(pid)]


def test_runs_are_kept_where_the_config_says(folder: Path, cli: Cli) -> None:
    write(folder, "kept.yml", CONFIG + 'stateStore: {type: sqlite, databaseUrl: "sqlite:runs.db"}\n')
    with started(folder, "flow", "serve", STEPFLOW_PORT="0", STEPFLOW_CONFIG="kept.yml") as url:
        told = json_of(cli("flow", "submit", "echo.yaml", "--input-json", "5", "--url", url, "--json"))
    with (
        started(folder, "flow", "serve", STEPFLOW_PORT="0", STEPFLOW_CONFIG="kept.yml") as url,
        urllib.request.urlopen(f"{url}/api/v1/runs/{told['run_id']}/items") as answer,
    ):
        items = codec.decode(answer.read(), "the answer")["items"]
    assert items == [{"itemIndex": 0, "status": "completed", "result": success(5)}]
    assert (folder / "runs.db").is_file()


def test_in_a_project_runs_are_kept_in_its_journal(project: Path, cli: Cli) -> None:
    write(project, "src/workflows/ours.py", "def run(ctx):\n    return 'ours'\n")
    write(project, "other.yml", CONFIG.replace('"/server/', '"/other/'))
    write(project, "pid.yaml", "name: p\ndescription: p\nsteps: [{id: a, component: /other/pid}]\noutput: {$step: a}\n")
    with started(project, "flow", "serve", "--port", "0", "--config", "other.yml") as url:
        answer = cli("flow", "submit", "pid.yaml", "--url", url)
        assert (answer.exit_code, json_of(answer)["outcome"]) == (0, "success")
        assert cli("run", "ours", "--server", url).stdout == "ours\n"
    runs = json_of(cli("runs", "list", "--json"))["runs"]
    assert sorted(run["workflow"] for run in runs) == ["ours", "stepflow.inline"]


@pytest.mark.parametrize("where", ["folder", "project"])
def test_an_open_address_needs_a_token_which_clients_then_bring(
    where: str, cli: Cli, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = request.getfixturevalue(where)
    answer = cli("flow", "serve", "--host", "0.0.0.0", "--port", "0")
    assert answer.exit_code == 2
    assert "PYFLUE_TOKEN" in answer.stderr
    with started(folder, "flow", "serve", "--port", "0", PYFLUE_TOKEN="secret-token-of-tests") as url:
        refused = cli("flow", "submit", "echo.yaml", "--url", url)
        assert refused.exit_code == 4
        assert "PYFLUE_TOKEN" in refused.stderr
        monkeypatch.setenv("PYFLUE_TOKEN", "secret-token-of-tests")
        assert cli("flow", "submit", "echo.yaml", "--url", url).exit_code == 0


def test_a_config_or_a_store_that_cannot_be_used_is_told_at_the_start(folder: Path, cli: Cli) -> None:
    write(folder, "bad.yml", "plugins: {x: {type: nats}}\n")
    assert cli("flow", "serve", "--config", "bad.yml", "--port", "0").exit_code == 1
    write(folder, "store.yml", "stateStore: {type: oracle}\n")
    answer = cli("flow", "serve", "--config", "store.yml", "--port", "0")
    assert answer.exit_code == 1
    assert "oracle" in answer.stderr


def test_a_port_that_is_taken_is_wrong_use(folder: Path, server: str, cli: Cli) -> None:
    answer = cli("flow", "serve", "--port", server.rpartition(":")[2])
    assert answer.exit_code == 2
    assert "cannot listen" in answer.stderr
