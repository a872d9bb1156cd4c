"""What importing the definitions costs: nothing of providers, and nothing heavy before its first use."""

from __future__ import annotations

import subprocess
import sys

import pyflue.agents

HEAVY = {"anthropic", "openai", "bashkit", "genai_prices", "mcp", "yaml", "pydantic", "jsonschema", "docstring_parser"}


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_defining_an_agent_without_tools_imports_nothing_heavy() -> None:
    code = "from pyflue.agents import create_agent, define_tool\ncreate_agent(lambda: {})\n"
    loaded = _modules_after(code + "define_tool('x', lambda arguments: '', description='X.')")
    assert loaded & HEAVY == set()
    assert "pyflue.workflows" not in loaded


def test_the_settings_and_the_package_import_nothing_of_the_agents() -> None:
    loaded = _modules_after("import pyflue, pyflue.settings")
    assert {name for name in loaded if name.startswith("pyflue.agents")} == set()
    assert {name for name in _modules_after("import pyflue.agents") if name.startswith("pyflue.agents.")} == set()


def test_every_public_name_is_there() -> None:
    assert {name for name in pyflue.agents.__all__ if getattr(pyflue.agents, name, None) is None} == set()
    assert set(pyflue.agents.__all__) <= set(dir(pyflue.agents))
