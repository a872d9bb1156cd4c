"""PyFlue below a prefix of another application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount

from tests.server.harness import InProcess, client_of, frames_of


async def test_everything_works_under_a_prefix(here: InProcess) -> None:
    parent = Starlette(routes=[Mount("/flue", app=here.app)])
    async with client_of(parent) as client:
        answer = await client.post("/flue/workflows/echo?wait=result", json=1)
        run_id = answer.json()["run_id"]
        assert (answer.status_code, answer.json()["result"]) == (200, 1)
        run = (await client.get(f"/flue/runs/{run_id}")).json()
        assert run["request"]["url"] == "http://localhost/flue/workflows/echo?wait=result"
        assert len(frames_of((await client.get(f"/flue/runs/{run_id}/stream")).text)) == 2
        assert (await client.get("/flue/health")).json()["ok"] is True
        assert (await client.get("/flue/openapi.json")).json()["servers"] == [{"url": "/flue"}]
        missing = await client.get("/flue/nothing")
        assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")
        wrong = await client.put("/flue/workflows/echo")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, POST")
