"""What editors and new projects are given: the schemas, the sample flow, and the first lines that lead from one to the
other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

import pyflue.stepflow
from pyflue import codec
from pyflue.cli import main
from pyflue.stepflow.yaml_reader import read_document
from tests.samples.sample_runs import run_sample

_ROOT = Path(__file__).parents[3]
_MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")
_MARKED = sorted(
    path.relative_to(_ROOT)
    for folder in ("src", "templates", "examples")
    for path in (_ROOT / folder).rglob("*.y*ml")
    if path.read_text(encoding="utf-8").startswith("# yaml-language-server")
)


@pytest.mark.parametrize("kind", ["flow", "config"])
def test_the_schemas_are_printed_as_they_are_packaged(kind: str) -> None:
    printed = CliRunner().invoke(main, ["flow", "schema", kind]).stdout
    assert printed == (_ROOT / "pyflue" / "stepflow" / "schemas" / f"{kind}.json").read_text(encoding="utf-8")
    jsonschema.validators.validator_for(_value(printed)).check_schema(_value(printed))


def test_the_files_that_name_a_schema() -> None:
    assert [str(path) for path in _MARKED] == [
        "src/workflows/invitations.yaml",
        "templates/flows/src/workflows/hello.yaml",
        "templates/flows/stepflow-config.yml",
    ]


@pytest.mark.parametrize("path", _MARKED, ids=str)
def test_a_file_that_names_its_schema_fits_it(path: Path) -> None:
    text = (_ROOT / path).read_text(encoding="utf-8")
    named = _MODELINE.match(text)
    assert named is not None
    schema = _value(((_ROOT / path).parent / named[1]).read_text(encoding="utf-8"))
    jsonschema.validate(read_document(text).value, schema)


def test_the_sample_flow_runs_from_the_command_line() -> None:
    ran = run_sample("invitations", {"guests": [{"name": "Ada", "is_friend": True}, {"name": "Bob"}], "place": "hall"})
    assert (ran.exit_code, ran.status) == (0, "completed")
    assert (ran.result["place"], ran.result["invited"]) == ("hall", 2)
    assert [letter["result"][1]["content"] for letter in ran.result["letters"]] == ["Ada", "Bob"]
    assert [letter["result"][0]["content"] for letter in ran.result["letters"]] == [
        "Write an invitation. Be brief, and warm.",
        "Write an invitation. Be polite.",
    ]


def test_the_reference_lists_every_public_name() -> None:
    page = (_ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page[page.index("## Flows\n") :], re.MULTILINE)
    assert sorted(listed) == sorted(pyflue.stepflow.__all__)


def _value(text: str) -> Any:
    return codec.decode(text.encode(), "The schema")
