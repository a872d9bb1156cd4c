"""The OpenAPI document of the API: whole, and the same as what is answered (which `test_http.py` compares)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
from starlette.routing import Route

from pyflue.stepflow.config import default_config
from pyflue.stepflow.environments import environment_for
from pyflue.stepflow.http import api_routes
from pyflue.stepflow.memory_runs import MemoryBackend
from pyflue.stepflow.openapi import SCHEMAS, dialect_operations, document
from tests.server.harness import client_of

from .serving import serving


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    backend = MemoryBackend(environment_for(default_config(tmp_path)), limit_bytes=1)
    served = set[tuple[str, str]]()
    for route in api_routes(backend):
        assert isinstance(route, Route)
        served |= {(route.path, method.lower()) for method in route.methods or () if method != "HEAD"}
    paths = document("1.0")["paths"]
    assert served == {(path, method) for path, operations in paths.items() for method in operations}


def test_every_reference_leads_somewhere_and_every_shape_is_used() -> None:
    used = set(references(document("1.0")))
    assert used == {f"#/components/schemas/{name}" for name in SCHEMAS}


def test_every_shape_is_json_schema() -> None:
    for shape in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(shape)


def test_every_parameter_of_a_path_is_described() -> None:
    for path, operations in document("1.0")["paths"].items():
        for operation in operations.values():
            described = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
            assert described == re.findall(r"\{([^}]+)\}", path)


def test_the_document_of_a_project_gets_the_operations_without_references() -> None:
    operations = dialect_operations()
    assert list(references(operations)) == []
    assert operations.keys() == document("1.0")["paths"].keys()
    json.dumps(operations)


async def test_a_project_describes_the_api_with_everything_else(tmp_path: Path) -> None:
    async with serving("project", tmp_path) as app, client_of(app) as client:
        described = (await client.get("/openapi.json")).json()
    ours = document("1.0")["paths"]
    assert ours.keys() <= described["paths"].keys()
    answers = described["paths"]["/api/v1/runs"]["post"]["responses"]
    assert {"200", "400", "401", "404", "503"} <= answers.keys()
    assert set(references(described)) <= {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
