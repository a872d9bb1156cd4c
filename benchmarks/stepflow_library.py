"""Flow documents beside stepflow 0.13.0: the same flows over HTTP, on its Rust server and on ours, turn about.

    python -m benchmarks.stepflow_library --rounds 3

Its two packages are installed from the package index at first use, into an environment of their own; its Python
components run in its own worker, which asks the server for work over gRPC, and it keeps runs in memory. Ours are served
twice: `journal` is `pyflue serve` on a project, every step on disk before it is used, and `memory` is a
`StepflowRuntime`. What is run is in `stepflow_flows.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2

from . import stepflow_flows
from .environments import interpreter_with

ORIGINAL_VERSION = "0.13.0"
#: Ours: on a journal, and in memory.
OURS = ("journal", "memory")
_HERE = Path(__file__).parent
_START_S = 30.0


def measure(*, rounds: int, only: Sequence[str] = (), which: Sequence[str] = ()) -> dict[str, float]:
    """The figures `stepflow.<which>.<case>.<what>`, medians over the rounds."""
    servers: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
        "original": original,
        "journal": journal,
        "memory": memory,
    }
    measured: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in which or servers:
            with servers[name]() as origin:
                figures = stepflow_flows.measure(origin, only, with_ours=name != "original")
            for what, value in figures.items():
                measured.setdefault(f"stepflow.{name}.{what}", []).append(value)
    return {name: statistics.median(values) for name, values in measured.items()}


@contextmanager
def original() -> Generator[str]:
    """stepflow-server with a worker for the Python components; gives its address."""
    interpreter = interpreter_with("stepflow-orchestrator", ORIGINAL_VERSION, f"stepflow-py=={ORIGINAL_VERSION}")
    port = _free_port()
    python = {
        "type": "grpc",
        "queueName": "python",
        "command": str(interpreter),
        "args": [str(_HERE / "stepflow_worker.py")],
        "env": {
            # By this name: told 127.0.0.1, its worker takes 44 ms for each step.
            "STEPFLOW_TASKS_URL": f"localhost:{port}",
            "STEPFLOW_QUEUE_NAME": "python",
            "STEPFLOW_LOG_LEVEL": "ERROR",
            "STEPFLOW_TRACE_ENABLED": "false",
        },
    }
    config = {
        "plugins": {"builtin": {"type": "builtin"}, "python": python},
        "routes": {"/python": [{"plugin": "python"}], "/builtin": [{"plugin": "builtin"}]},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = _written(Path(folder), config)
        command = [str(_binary(interpreter)), "--port", str(port), "--config", str(path), "--log-level", "error"]
        with _answering([*command, "--other-log-level", "error"], port) as origin:
            yield origin


@contextmanager
def journal() -> Generator[str]:
    """`pyflue serve` on a project whose journal is on the disk this repository is on (`/tmp` may be memory)."""
    with tempfile.TemporaryDirectory(prefix="stepflow-", dir=_HERE / "results") as folder:
        project = Path(folder)
        (project / "src" / "workflows").mkdir(parents=True)
        _written(project, _our_config())
        port = _free_port()
        command = [sys.executable, "-m", "pyflue.cli", "--project", str(project), "serve", "--port", str(port)]
        with _answering(command, port) as origin:
            yield origin


@contextmanager
def memory() -> Generator[str]:
    """A `StepflowRuntime` that listens."""
    with tempfile.TemporaryDirectory() as folder:
        path = _written(Path(folder), _our_config())
        port = _free_port()
        command = [sys.executable, str(_HERE / "stepflow_embedded.py"), str(path), str(port)]
        with _answering(command, port) as origin:
            yield origin


def _our_config() -> Mapping[str, Any]:
    return {
        "workingDirectory": str(_HERE),
        "plugins": {
            "builtin": {"type": "builtin"},
            "python": {
                "type": "stepflow",
                "transport": "stdio",
                "command": sys.executable,
                "args": ["stepflow_components.py"],
            },
            "here": {"type": "python", "server": "stepflow_components:server"},
        },
        "routes": {f"/{name}/{{*component}}": [{"plugin": name}] for name in ("builtin", "python", "here")},
    }


def _written(folder: Path, config: Mapping[str, Any]) -> Path:
    path = folder / "stepflow-config.yml"
    path.write_text(json.dumps(config))
    return path


def _binary(interpreter: Path) -> Path:
    said = subprocess.run(
        [str(interpreter), "-c", "import stepflow_orchestrator; print(stepflow_orchestrator.__file__)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(said.stdout.strip()).parent / "bin" / "stepflow-server"


@contextmanager
def _answering(command: Sequence[str], port: int) -> Generator[str]:
    """A server's address, while it runs."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_HERE.parent)},
    ) as process:
        try:
            origin = f"http://127.0.0.1:{port}"
            _await_answer(origin, process)
            yield origin
        finally:
            # Nothing of it is kept, and asked to end, the original would wait for its worker, which ends with it.
            process.kill()


def _await_answer(origin: str, process: subprocess.Popen[bytes]) -> None:
    # The original's worker may not be there yet: the first run waits for that.
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"The server ended with {process.returncode}.")
        try:
            if httpx2.get(f"{origin}/api/v1/health", timeout=5).status_code == 200:
                return
        except httpx2.RequestError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"The server did not answer within {_START_S} s.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stepflow_library")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=())
    parser.add_argument("--which", type=lambda text: text.split(","), default=())
    options = parser.parse_args()
    figures = measure(rounds=options.rounds, only=options.only, which=options.which)
    for name, value in figures.items():
        print(f"{name:52} {value:12,.2f}")


if __name__ == "__main__":
    main()
