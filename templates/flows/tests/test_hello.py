"""Runs the flow as `pyflue run` does, and its test cases. Start it with `python -m pytest`."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def pyflue(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The config says `python`: that is to be the one that runs this.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "pyflue.cli", *arguments]
    return subprocess.run(command, cwd=PROJECT, env={**os.environ, "PATH": path}, capture_output=True, text=True)


def test_hello_greets() -> None:
    done = pyflue("run", "hello", "--json", "--payload", json.dumps({"name": "Bob"}))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == {"greeting": "Hello, Bob!"}


def test_the_cases_in_the_flows_pass() -> None:
    done = pyflue("flow", "test")
    assert done.returncode == 0, done.stdout


def test_the_flows_are_without_faults() -> None:
    done = pyflue("workflows", "validate")
    assert done.returncode == 0, done.stdout
