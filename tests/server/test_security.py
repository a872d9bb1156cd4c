"""The gate: hosts, origins and tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest

from pyflue.errors import SettingsInvalid
from pyflue.server import bind
from pyflue.settings import ServerSettings, load_settings
from tests.promises import promise
from tests.server.harness import InProcess, in_process

ADMIN = "admin-token-0123456789"
TOKENS = f"""
[server.tokens]
starter = {{ token = "starter-token-0123456789", scopes = ["run"] }}
reader = {{ token = "reader-token-0123456789", scopes = ["read"] }}
boss = {{ token = "{ADMIN}", scopes = ["admin"] }}
"""
UNKNOWN = "workflow:echo:01KAJ5V3W8Y3N5QZ6E4T9R2M1B"
APPROVAL = "01KAJ5V3W8Y3N5QZ6E4T9R2M1B"
#: Every POST there is.
CHANGES = [
    "/workflows/echo",
    *(f"/runs/{UNKNOWN}/{verb}" for verb in ("cancel", "retry", "fork", "signals/go")),
    f"/approvals/{APPROVAL}",
]


@pytest.fixture
async def guarded(root: Path) -> AsyncGenerator[InProcess, None]:
    (root / "pyflue.toml").write_text(TOKENS, encoding="utf-8")
    async with in_process(root) as here:
        yield here


async def count_runs(here: InProcess) -> int:
    headers = {"authorization": f"Bearer {ADMIN}"}
    return len((await here.client.get("/runs", headers=headers)).json()["runs"])


@promise("F44")
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://localhost:81"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"content-type": "text/plain"},
        {"content-type": "text/plain; application/json"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
    ],
)
@pytest.mark.parametrize("body", [b"", b'{"a": 1}'])
async def test_a_foreign_page_cannot_start_a_run(here: InProcess, headers: dict[str, str], body: bytes) -> None:
    for path in CHANGES:
        answer = await here.client.post(path, content=body, headers=headers)
        assert answer.status_code in {403, 415}
    assert await count_runs(here) == 0


@promise("F44")
async def test_following_a_link_to_us_is_allowed_and_embedding_us_is_not(client: httpx2.AsyncClient) -> None:
    navigated = await client.get("/runs", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})
    assert navigated.status_code == 200
    embedded = await client.get("/runs", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"})
    assert (embedded.status_code, embedded.json()["error"]["type"]) == (403, "origin_refused")


async def test_our_own_page_may_do_everything(client: httpx2.AsyncClient) -> None:
    for headers in ({"origin": "http://localhost"}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert (await client.post("/workflows/echo?wait=result", headers=headers)).status_code == 200


@promise("F45")
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil",
        "evil@localhost",
        "",
        "localhost:80:80",
        "[::1",
        "a b",
    ],
)
async def test_a_foreign_host_is_421(client: httpx2.AsyncClient, host: str) -> None:
    for method, path in (("GET", "/runs"), ("POST", "/workflows/echo"), ("GET", "/health"), ("GET", "/nothing")):
        answer = await client.request(method, path, headers={"host": host})
        assert (answer.status_code, answer.json()["error"]["type"]) == (421, "host_refused")


@promise("F45")
@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:2024", "localhost.", "app.localhost", "127.0.0.1:2024", "[::1]:2024", "192.168.7.9"],
)
async def test_addresses_and_localhost_are_our_names(client: httpx2.AsyncClient, host: str) -> None:
    assert (await client.get("/runs", headers={"host": host})).status_code == 200


@promise("F45")
async def test_a_host_is_allowed_by_a_setting(root: Path) -> None:
    async with in_process(root, server__allowed_hosts="flue.example") as here:
        for host, status in (("flue.example", 200), ("Flue.example.:443", 200), ("x.flue.example", 421)):
            assert (await here.client.get("/runs", headers={"host": host})).status_code == status


@promise("F45")
async def test_a_foreign_origin_cannot_read_a_stream(client: httpx2.AsyncClient) -> None:
    run_id = (await client.post("/workflows/echo?wait=result")).json()["run_id"]
    answer = await client.get(f"/runs/{run_id}/stream", headers={"origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "origin_refused")
    assert "access-control-allow-origin" not in answer.headers


async def test_an_allowed_origin_may_call_and_read(root: Path) -> None:
    async with in_process(root, server__allowed_origins="https://app.example", server__token=ADMIN) as here:
        origin = {"origin": "https://app.example"}
        asked = await here.client.options(
            "/workflows/echo", headers={**origin, "access-control-request-method": "POST"}
        )
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == "https://app.example"
        assert "idempotency-key, last-event-id, signal-id" in asked.headers["access-control-allow-headers"]
        headers = {**origin, "authorization": f"Bearer {ADMIN}", "sec-fetch-site": "cross-site"}
        answer = await here.client.post("/workflows/echo", headers=headers)
        assert answer.status_code == 202
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "X-Flue-Run-Id" in answer.headers["access-control-expose-headers"]
        refused = await here.client.post("/workflows/echo", headers=origin)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://app.example")
        foreign = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        assert (await here.client.options("/workflows/echo", headers=foreign)).status_code == 403


WITHOUT_A_TOKEN: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer wrong-token-0123456789"},
    {"authorization": f"Bearer {ADMIN[:-1]}"},
    {"authorization": f"Bearer {ADMIN}x"},
    {"authorization": f"Bearer {ADMIN.upper()}"},
    {"authorization": "Bearer "},
    {"authorization": "Bearer"},
    {"authorization": ADMIN},
    {"authorization": f"Basic {ADMIN}"},
    {"cookie": f"token={ADMIN}"},
    {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1"},
    {"x-http-method-override": "GET"},
    {"origin": "http://localhost", "access-control-request-method": "POST"},
]
WAYS_IN = [
    ("GET", "/runs"),
    ("HEAD", "/runs"),
    ("OPTIONS", "/runs"),
    ("GET", "//runs"),
    ("GET", "/runs/%2e"),
    ("GET", "/health/"),
    ("GET", "/health%2f..%2fruns"),
    ("GET", "//health"),
    ("GET", "/openapi.json"),
    ("GET", "/workflows"),
    ("GET", f"/runs?token={ADMIN}"),
    ("POST", "/workflows/echo"),
    ("POST", f"/workflows/echo?access_token={ADMIN}"),
    ("DELETE", f"/runs/{UNKNOWN}"),
    ("POST", f"/runs/{UNKNOWN}/signals/go"),
    ("GET", "/approvals"),
    ("POST", f"/approvals/{APPROVAL}"),
    ("GET", "/nothing"),
]


@promise("F46")
@pytest.mark.parametrize(("method", "path"), WAYS_IN)
async def test_no_request_gets_past_the_tokens(guarded: InProcess, method: str, path: str) -> None:
    for headers in WITHOUT_A_TOKEN:
        answer = await guarded.client.request(method, f"http://localhost{path}", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert ADMIN not in answer.text


@promise("F46")
async def test_health_needs_no_token(guarded: InProcess) -> None:
    health = (await guarded.client.get("/health")).json()
    assert (health["ok"], health["framework"]) == (True, "pyflue")


@promise("F46")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/workflows/echo", {"starter", "boss"}),
        ("GET", "/workflows", {"reader", "boss"}),
        ("GET", "/workflows/echo", {"reader", "boss"}),
        ("GET", "/runs", {"reader", "boss"}),
        ("GET", "/openapi.json", {"reader", "boss"}),
        ("POST", f"/runs/{UNKNOWN}/cancel", {"boss"}),
        ("POST", f"/runs/{UNKNOWN}/retry", {"boss"}),
        ("GET", f"/runs/{UNKNOWN}/steps", {"reader", "boss"}),
        ("POST", f"/runs/{UNKNOWN}/fork", {"boss"}),
        ("POST", f"/runs/{UNKNOWN}/signals/go", {"starter", "boss"}),
        ("POST", f"/runs/{UNKNOWN}/signals/..%2Fcancel", {"boss"}),
        ("POST", f"/runs/x%2Fsignals%2Fgo/{UNKNOWN}/cancel", {"boss"}),
        ("GET", "/approvals", {"reader", "boss"}),
        ("GET", f"/approvals/{APPROVAL}", {"reader", "boss"}),
        ("POST", f"/approvals/{APPROVAL}", {"boss"}),
        ("DELETE", f"/runs/{UNKNOWN}", {"boss"}),
    ],
)
async def test_a_token_allows_what_its_scopes_say(
    guarded: InProcess, method: str, path: str, allowed: set[str]
) -> None:
    tokens = {"starter": "starter-token-0123456789", "reader": "reader-token-0123456789", "boss": ADMIN}
    for name, token in tokens.items():
        answer = await guarded.client.request(method, path, headers={"authorization": f"bearer {token}"})
        assert (answer.status_code != 403) == (name in allowed)
        assert answer.status_code != 401


@promise("F46")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7"])
def test_an_open_address_without_a_token_refuses_to_start(host: str) -> None:
    with pytest.raises(SettingsInvalid, match="PYFLUE_TOKEN"):
        bind(ServerSettings(host=host, port=0))


def test_an_open_address_with_a_token_starts(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, options={"server.host": "0.0.0.0", "server.port": 0, "server.token": ADMIN})
    with bind(settings.server) as sock:
        assert sock.getsockname()[1] > 0


def test_a_taken_port_is_a_settings_error() -> None:
    """Nobody needs to have accepted a connection there: the other server may have started at the same moment."""
    with bind(ServerSettings(port=0)) as taken, pytest.raises(SettingsInvalid, match="cannot listen on"):
        bind(ServerSettings(port=taken.getsockname()[1]))


@pytest.mark.parametrize(
    "headers", [[("host", "localhost"), ("host", "evil.example")], [("signal-id", "a"), ("signal-id", "b")]]
)
async def test_a_header_that_must_not_come_twice_is_refused(
    client: httpx2.AsyncClient, headers: list[tuple[str, str]]
) -> None:
    answer = await client.get("/runs", headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request")
