"""The OpenAPI document, and whether the server keeps to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.definitions import OPENAPI_31

from pyflue import FlueContext, create_app
from pyflue.server import schemas
from pyflue.server.openapi import build_document
from pyflue.server.operations import OPERATIONS
from tests.server.harness import InProcess, in_process, waiting, write_project
from tests.support import FunctionWorkflow


async def document(client: httpx2.AsyncClient) -> dict[str, Any]:
    return (await client.get("/openapi.json")).json()


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from item.values()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


async def test_the_document_is_valid_openapi_3_1(client: httpx2.AsyncClient) -> None:
    made = await document(client)
    jsonschema.Draft202012Validator(OPENAPI_31).validate(made)
    names = made["components"]["schemas"]
    for schema in names.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert {reference.removeprefix("#/components/schemas/") for reference in references(made)} <= set(names)


async def test_operation_ids_are_unique_and_every_operation_is_described(client: httpx2.AsyncClient) -> None:
    made = await document(client)
    ids = [operation["operationId"] for operation in operations(made)]
    assert len(ids) == len(set(ids))
    assert {operation.id for operation in OPERATIONS} <= set(ids)
    assert {"run_echo", "get_echo", "run_typed"} <= set(ids)
    assert all(operation["summary"] and operation["tags"] for operation in operations(made))


async def test_workflows_keep_their_own_schemas_also_where_names_are_equal(client: httpx2.AsyncClient) -> None:
    made = await document(client)

    def resolve(schema: dict[str, Any]) -> dict[str, Any]:
        return made["components"]["schemas"][schema["$ref"].rpartition("/")[2]]

    fields: dict[str, set[str]] = {}
    for name in ("typed", "twin"):
        start = made["paths"][f"/workflows/{name}"]["post"]
        payload = resolve(start["requestBody"]["content"]["application/json"]["schema"])
        fields[name] = set(resolve(payload["properties"]["items"]["items"])["properties"])
    assert fields == {"typed": {"amount"}, "twin": {"label"}}


async def test_examples_fit_their_schemas(client: httpx2.AsyncClient) -> None:
    made = await document(client)
    registry = {"components": made["components"]}
    for name, schema in made["components"]["schemas"].items():
        for example in schema.get("examples", []):
            jsonschema.Draft202012Validator({**registry, "$ref": f"#/components/schemas/{name}"}).validate(example)
    for operation in operations(made):
        for parameter in operation.get("parameters", []):
            if "example" in parameter:
                jsonschema.Draft202012Validator(parameter["schema"]).validate(parameter["example"])


async def test_the_shapes_are_those_of_real_answers(client: httpx2.AsyncClient) -> None:
    run_id = (await client.post("/workflows/typed?wait=result&tags=a", json={"id": 3})).json()["run_id"]
    failed = await client.post("/workflows/fails?wait=result")
    for path, shape in (
        ("/runs", schemas.RunList),
        (f"/runs/{run_id}", schemas.RunRecord),
        (f"/runs/{run_id}/events", schemas.EventList),
        ("/workflows", schemas.WorkflowList),
        ("/workflows/typed", schemas.WorkflowDetail),
        ("/health", schemas.Health),
    ):
        shape.model_validate((await client.get(path)).json(), strict=True)
    schemas.ErrorEnvelope.model_validate(failed.json(), strict=True)


async def test_the_shapes_of_what_waits_are_those_of_real_answers(here: InProcess) -> None:
    run_id = (await here.client.post("/workflows/asks")).json()["run_id"]
    waits = (await waiting(here, run_id))["waiting_for"]
    approval_id = waits[0]["approval_id"]
    for path, shape in (
        (f"/runs/{run_id}", schemas.RunRecord),
        (f"/runs/{run_id}/steps", schemas.StepList),
        ("/approvals", schemas.ApprovalList),
        (f"/approvals/{approval_id}", schemas.ApprovalRecord),
    ):
        shape.model_validate((await here.client.get(path)).json(), strict=True)
    sent = await here.client.post(f"/runs/{run_id}/signals/go")
    schemas.SignalAccepted.model_validate(sent.json(), strict=True)
    decided = await here.client.post(f"/approvals/{approval_id}", json={"approved": True})
    schemas.ApprovalRecord.model_validate(decided.json(), strict=True)


def test_a_fuzzer_finds_no_internal_error_and_no_undeclared_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    write_project(tmp_path)
    for name in ("gate", "blocks", "fails", "refuses", "odd", "big_event", "chatty", "asks"):
        (tmp_path / "src" / "workflows" / f"{name}.py").unlink()
    app = create_app(tmp_path, options={"server.allowed_hosts": "testserver"})
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]
    tried: set[str] = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=25,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def requests_fit(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=checks)

        requests_fit()
        tried.add(operation.label)
    assert len(tried) >= len(OPERATIONS)


async def test_a_server_with_a_token_says_so(root: Path) -> None:
    token = "admin-token-0123456789"
    async with in_process(root, server__token=token) as here:
        answer = await here.client.get("/openapi.json", headers={"authorization": f"Bearer {token}"})
    made = answer.json()
    assert made["security"] == [{"token": []}]
    assert made["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert made["paths"]["/health"]["get"]["security"] == []


def test_schemas_with_references_of_every_kind_stay_whole() -> None:
    tree = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "children": {"type": "array", "items": {"$ref": "#"}},
            "default": {"$ref": "#/$defs/Leaf"},
            "label": {"const": {"$ref": "#/$defs/Leaf"}},
            "pet": {
                "oneOf": [{"$ref": "#/$defs/Leaf"}],
                "discriminator": {"propertyName": "kind", "mapping": {"leaf": "#/$defs/Leaf"}},
            },
        },
        "$defs": {"Leaf": {"type": "object", "properties": {"up": {"$ref": "#/properties/children"}}}},
    }
    named = {"$id": "https://example.com/own", "$ref": "#/$defs/X", "$defs": {"X": {"type": "integer"}}}
    workflow = FunctionWorkflow(nothing, "tree", input_schema=tree, output_schema=named)
    made = build_document([workflow], version="1", prefix="", needs_token=False)
    schemas = made["components"]["schemas"]
    leaf = "#/components/schemas/tree.payload.Leaf"
    assert schemas["tree.payload"] == {
        "type": "object",
        "properties": {
            "children": {"type": "array", "items": {"$ref": "#/components/schemas/tree.payload"}},
            "default": {"$ref": leaf},
            "label": {"const": {"$ref": "#/$defs/Leaf"}},
            "pet": {
                "oneOf": [{"$ref": leaf}],
                "discriminator": {"propertyName": "kind", "mapping": {"leaf": leaf}},
            },
        },
    }
    up = {"$ref": "#/components/schemas/tree.payload/properties/children"}
    assert schemas["tree.payload.Leaf"]["properties"] == {"up": up}
    assert schemas["tree.result"] == named


async def nothing(ctx: FlueContext[Any]) -> None:
    return None
