"""Runs the workflows as `pyflue run` does, and looks at what comes out. Start it with `python -m pytest`."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def run(workflow: str, payload: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyflue.cli", "run", workflow, "--json", "--payload", json.dumps(payload)]
    return subprocess.run(command, cwd=PROJECT, env={**os.environ, **variables}, capture_output=True, text=True)


def test_hello_greets_as_often_as_it_is_told_to() -> None:
    done = run("hello", {"name": "Ada", "times": 2})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["greeting"] == "Hello, Ada! Hello, Ada!"


def test_hello_says_what_is_wrong_with_its_payload() -> None:
    done = run("hello", {"times": 0})
    assert done.returncode == 2
    assert "$.name" in done.stderr
    assert "$.times" in done.stderr


def test_summarize_returns_what_the_model_says() -> None:
    done = run("summarize", {"text": "A workflow is a file."}, PYFLUE_MODEL="scripted/hello")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["model"] == "scripted/hello"
