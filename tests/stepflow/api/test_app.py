"""The API on its own: who may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyflue.stepflow.app import create_app
from pyflue.stepflow.backend import Backend
from tests.server.harness import client_of

from .serving import ECHO, memory_backend

FLOWS = "/api/v1/flows"


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    async with memory_backend(tmp_path) as backend:
        yield backend


async def store(client: httpx2.AsyncClient, **headers: str) -> tuple[int, Any]:
    answer = await client.post(FLOWS, json={"flow": ECHO}, headers=headers)
    return answer.status_code, answer.json().get("message")


@pytest.mark.parametrize("host", ["localhost:7837", "127.0.0.1", "[::1]:80", "app.localhost", "LOCALHOST."])
async def test_this_machine_is_answered_by_any_of_its_names(backend: Backend, host: str) -> None:
    async with client_of(create_app(backend)) as client:
        assert await store(client, host=host) == (200, None)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "a b", "127.0.0.1.nip.example"])
async def test_another_host_name_is_refused(backend: Backend, host: str) -> None:
    async with client_of(create_app(backend)) as client:
        status, message = await store(client, host=host)
        assert (status, message) == (421, "This server does not answer to that host name: see `allowed_hosts`.")


async def test_a_host_name_that_is_allowed_is_answered(backend: Backend) -> None:
    async with client_of(create_app(backend, allowed_hosts=["Flows.example"])) as client:
        assert await store(client, host="flows.example:80") == (200, None)


async def test_pages_of_other_origins_are_refused_unless_they_are_allowed(backend: Backend) -> None:
    refused = (403, "Pages of that origin may not call this server: see `allowed_origins`.")
    async with client_of(create_app(backend)) as client:
        assert await store(client, origin="http://evil.example") == refused
        assert await store(client, origin="null") == refused
        assert (await store(client, **{"sec-fetch-site": "cross-site"}))[0] == 403
        assert await store(client, origin="http://localhost") == (200, None)
    async with client_of(create_app(backend, allowed_origins=["http://app.example"])) as client:
        answer = await client.post(FLOWS, json={"flow": ECHO}, headers={"origin": "http://app.example"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "http://app.example"
        assert await store(client, origin="http://evil.example") == refused


async def test_a_browser_is_told_beforehand_what_a_page_of_an_allowed_origin_may_send(backend: Backend) -> None:
    async with client_of(create_app(backend, allowed_origins=["http://app.example"])) as client:
        asked = {
            "origin": "http://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        }
        answer = await client.options(FLOWS, headers=asked)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "http://app.example"
        other = await client.options(FLOWS, headers={**asked, "origin": "http://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_with_a_token_only_health_is_answered_to_those_who_do_not_bring_it(backend: Backend) -> None:
    async with client_of(create_app(backend, token="open sesame")) as client:
        assert (await client.get("/api/v1/health")).status_code == 200
        missing = await client.get("/api/v1/runs")
        assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
        assert (await store(client, authorization="Bearer wrong"))[0] == 401
        assert (await store(client, authorization="Basic open sesame"))[0] == 401
        assert await store(client, authorization="Bearer open sesame") == (200, None)


async def test_what_is_not_below_the_prefix_is_answered_in_the_same_form(backend: Backend) -> None:
    async with client_of(create_app(backend)) as client:
        answer = await client.get("/elsewhere")
    told = "There is nothing at '/elsewhere'. GET /api/v1/openapi.json lists what there is."
    assert (answer.status_code, answer.json()) == (404, {"code": 404, "message": told})


async def test_what_goes_wrong_inside_is_logged_and_not_told(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def explode(*args: object, **named: object) -> object:
        raise RuntimeError("a secret thing")

    monkeypatch.setattr(backend, "store_flow", explode)
    async with client_of(create_app(backend)) as client:
        answer = await client.post(FLOWS, json={"flow": ECHO})
    assert answer.status_code == 500
    reference = answer.json()["message"].removeprefix("Internal server error (ref ").removesuffix(")")
    assert answer.json() == {"code": 500, "message": f"Internal server error (ref {reference})"}
    said = "".join(capsys.readouterr())
    assert reference in said
    assert "a secret thing" in said
