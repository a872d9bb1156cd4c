"""`pyflue init`: every template is a project that works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.cli_project import Cli, json_of

TEMPLATES = sorted(folder.name for folder in (Path(__file__).parents[2] / "templates").iterdir())


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_new_project_runs_its_first_workflow(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = cli("init", "first")
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert files(Path("first")) == [
        ".gitignore",
        "README.md",
        "pyflue.toml",
        "src/agents/assistant.py",
        "src/workflows/hello.py",
        "src/workflows/summarize.py",
        "tests/test_hello.py",
    ]
    assert ".pyflue/" in Path("first/.gitignore").read_text(encoding="utf-8").splitlines()
    commands = answer.stderr.split("Next:\n")[1].splitlines()
    assert [command.split()[0] for command in commands] == ["cd", "pyflue", "pyflue"]
    monkeypatch.chdir("first")
    assert json_of(cli("run", "hello", "--payload", '{"name": "Ada"}'))["greeting"] == "Hello, Ada!"
    assert cli("workflows", "validate").exit_code == 0


def test_a_new_project_has_an_agent_that_works_without_a_key_and_says_so(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    cli("init", "first")
    monkeypatch.chdir("first")
    summary = json_of(cli("run", "summarize", "--payload", '{"text": "…"}'))
    assert summary["model"] == "scripted/hello"
    assert summary["summary"].startswith("Hello! I am the scripted model")


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_passes_its_own_tests(template: str, cli: Cli) -> None:
    assert cli("init", "made", "--template", template).exit_code == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd="made",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_files_that_are_there_are_kept_and_named(cli: Cli) -> None:
    Path("README.md").write_text("mine", encoding="utf-8")
    answer = cli("init")
    assert answer.exit_code == 0
    assert Path("README.md").read_text(encoding="utf-8") == "mine"
    assert "kept     README.md" in answer.stderr
    assert "created  pyflue.toml" in answer.stderr


def test_force_overwrites(cli: Cli) -> None:
    Path("README.md").write_text("mine", encoding="utf-8")
    assert "kept" not in cli("init", "--force").stderr
    assert Path("README.md").read_text(encoding="utf-8") != "mine"


def test_an_unknown_template_is_wrong_use_and_the_known_are_named(cli: Cli, empty_folder: Path) -> None:
    answer = cli("init", "x", "--template", "none")
    assert answer.exit_code == 2
    assert "hello" in answer.stderr
    assert files(empty_folder) == []
