"""Who may do what on FlowGram's routes of a project's server, and what the server says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pyflue.flowgram.dialect import flowgram_dialect, scope_of
from pyflue.server import build_app
from pyflue.workflows import Dialect
from tests.server.harness import client_of, in_process

from .graphs import end, graph, start

ECHO = json.dumps(graph([start(), end()], "start -> end"))
TOKENS = {scope: f"token-with-scope-{scope}-0001" for scope in ("run", "read", "admin")}


def write_tokens(root: Path) -> None:
    (root / "src" / "workflows").mkdir(parents=True)
    lines = [f'{name} = {{ token = "{token}", scopes = ["{name}"] }}' for name, token in TOKENS.items()]
    (root / "pyflue.toml").write_text("\n".join(["[server.tokens]", *lines]))


REQUESTS: list[tuple[str, str, Any, str]] = [
    ("GET", "/info", None, "read"),
    ("POST", "/task/run", {"schema": ECHO}, "run"),
    ("GET", "/task/report?taskID=x", None, "read"),
    ("GET", "/task/result?taskID=x", None, "read"),
    ("PUT", "/task/cancel", {"taskID": "x"}, "run"),
    ("POST", "/task/validate", {"schema": ECHO}, "read"),
    ("POST", "/trpc/task.run", {"schema": ECHO}, "run"),
    ("POST", "/trpc/task/run", {"schema": ECHO}, "run"),
    ("POST", "/trpc//task/run/", {"schema": ECHO}, "run"),
    ("POST", "/trpc/task.cancel", {"taskID": "x"}, "run"),
    ("POST", "/trpc/task.report", {"taskID": "x"}, "read"),
    ("GET", "/trpc/task.result?input=%7B%22taskID%22%3A%22x%22%7D", None, "read"),
    ("POST", "/trpc/info,task.report?batch=1", {"1": {"taskID": "x"}}, "read"),
    ("POST", "/trpc/info,task%2Frun?batch=1", {"1": {"schema": ECHO}}, "run"),
]


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_token_that_may_look_starts_nothing_and_one_that_may_run_is_enough(tmp_path: Path, prefix: str) -> None:
    write_tokens(tmp_path)
    async with in_process(tmp_path) as here:
        for method, path, body, needed in REQUESTS:
            for scope, token in TOKENS.items():
                answer = await here.client.request(
                    method, prefix + path, json=body, headers={"authorization": f"Bearer {token}"}
                )
                wanted = 200 if scope in (needed, "admin") else 403
                assert (method, path, scope, answer.status_code) == (method, path, scope, wanted), answer.text
            assert (await here.client.request(method, prefix + path, json=body)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/trpc/task.delete"), ("POST", "/trpc/"), ("GET", "/trpc/x,info"), ("PUT", "/api/task/cancel")],
)
def test_what_is_unknown_needs_more_than_looking(method: str, path: str) -> None:
    assert scope_of(method, path) == "run"


@pytest.mark.parametrize("path", ["/", "/runs/x/cancel", "/api", "/api/v1/runs", "/task", "/trpc", "/tasks/run"])
def test_other_paths_are_left_to_the_server(path: str) -> None:
    assert scope_of("POST", path) is None


async def test_a_dialect_has_no_say_in_the_servers_own_paths(tmp_path: Path) -> None:
    write_tokens(tmp_path)

    class Nothing:
        def claims(self, path: Path) -> bool:
            return False

        def load(self, source: Any) -> Any:
            raise AssertionError

    async def own(request: Request) -> PlainTextResponse:
        return PlainTextResponse("own")

    def routes(services: Any) -> list[Route]:
        return [Route("/approvals/{id}", own, methods=["POST"]), Route("/free", own), Route("/health", own)]

    greedy = Dialect(kind="greedy", loader=Nothing(), routes=routes, scope_of=lambda method, path: "read")
    headers = {"authorization": f"Bearer {TOKENS['read']}"}
    async with in_process(tmp_path) as here, client_of(build_app(here.app.services, dialects=[greedy])) as client:
        assert (await client.post("/approvals/x", json={"approved": True}, headers=headers)).status_code == 403
        assert (await client.get("/free", headers=headers)).text == "own"
        assert (await client.get("/health")).json()["ok"] is True
        assert (await client.put("/free", headers=headers)).headers["allow"] == "GET, HEAD"


async def test_the_routes_are_in_the_openapi_document(tmp_path: Path) -> None:
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    async with in_process(tmp_path) as here:
        made = (await here.client.get("/openapi.json")).json()
        registry = {"components": made["components"]}
        jsonschema.Draft202012Validator(OPENAPI_31).validate(made)
        for path, methods in flowgram_dialect().operations().items():
            assert set(made["paths"][path]) == set(methods)
        ran = await here.client.post("/api/task/run", json={"schema": ECHO})
        for path, answer in (
            ("/api/task/run", ran),
            ("/info", await here.client.get("/info")),
            ("/task/report", await here.client.get("/task/report", params=ran.json())),
            ("/api/task/report", await here.client.get("/api/task/report", params=ran.json())),
            ("/task/validate", await here.client.post("/task/validate", json={"schema": ECHO})),
            ("/task/run", await here.client.post("/task/run", json={})),
            ("/task/run", await here.client.post("/task/run", content=b"{}")),
        ):
            method = answer.request.method.lower()
            response = made["paths"][path][method]["responses"][str(answer.status_code)]
            schema = {**registry, **response["content"]["application/json"]["schema"]}
            jsonschema.Draft202012Validator(schema).validate(answer.json())


async def test_a_path_that_is_also_a_name_is_found_and_other_methods_are_told(tmp_path: Path) -> None:
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    async with in_process(tmp_path) as here:
        refused: httpx2.Response = await here.client.delete("/task/run")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert (await here.client.head("/info")).status_code == 200
        assert (await here.client.get("/task/run/")).status_code == 404
