"""The routes about what runs have recorded and wait for: steps, signals, retry and fork."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyflue import codec
from tests.promises import promise
from tests.server.harness import InProcess, event_of, finished, frames_of, in_process, waiting, write_project

UNKNOWN = "workflow:listen:01KAJ5V3W8Y3N5QZ6E4T9R2M1B"
WORKFLOWS = {
    "listen": """
async def run(ctx):
    await ctx.wait_for("go")
    return [await ctx.wait_for(ctx.payload.get("name", "paid")) for _ in range(ctx.payload.get("times", 1))]
""",
    "listen_badly": """
async def run(ctx):
    return await ctx.wait_for("paid", schema={"$ref": "#/$defs/nowhere"})
""",
    "listen_typed": """
from pydantic import BaseModel

class Payment(BaseModel):
    amount: int

async def run(ctx):
    payment = await ctx.wait_for("paid", schema=Payment)
    return payment.amount
""",
    "stumbles": """
from pyflue import RetryPolicy

def act():
    raise ValueError("secret text")

async def run(ctx):
    await ctx.step("act", act, retry=RetryPolicy(max_attempts=2, delay_s=0.001))
""",
    "three": """
from pathlib import Path

async def run(ctx):
    async def act(name):
        with open(ctx.payload["effects"], "a") as file:
            file.write(f"{name} {ctx.payload.get('note', '')}\\n")
        if name == ctx.payload.get("fails") and not Path(ctx.payload["mended"]).exists():
            raise ValueError("broken")
        return {"did": name}

    return [(await ctx.step(name, act, name))["did"] for name in ("one", "two", "three")]
""",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    write_project(tmp_path, WORKFLOWS)
    return tmp_path


async def start(here: InProcess, workflow: str, payload: Any = None) -> str:
    return (await here.client.post(f"/workflows/{workflow}", json=payload or {})).json()["run_id"]


async def send(
    client: httpx2.AsyncClient, run_id: str, name: str, data: Any = None, *, signal_id: str | None = None
) -> tuple[int, str]:
    """The status of the answer, and what it says: a status word or an error's type."""
    headers = {} if signal_id is None else {"signal-id": signal_id}
    answer = await client.post(f"/runs/{run_id}/signals/{name}", json=data, headers=headers)
    body = answer.json()
    if answer.status_code == 202:
        assert (body["run_id"], answer.headers["x-flue-run-id"]) == (run_id, run_id)
    return answer.status_code, body["status"] if "status" in body else body["error"]["type"]


async def test_a_signal_wakes_the_run_that_waits_for_it(here: InProcess) -> None:
    run_id = await start(here, "listen")
    (wait,) = (await waiting(here, run_id))["waiting_for"]
    assert (wait["kind"], wait["name"], wait["due_at"]) == ("signal", "go", None)
    assert "approval_id" not in wait
    assert await send(here.client, run_id, "go") == (202, "delivered")
    assert await send(here.client, run_id, "paid", {"amount": 7}) in {(202, "delivered"), (202, "kept")}
    assert (await finished(here.client, run_id))["result"] == [{"amount": 7}]
    assert await send(here.client, run_id, "paid") == (409, "run_finished")


async def test_a_signal_that_comes_early_is_kept_in_its_turn(here: InProcess) -> None:
    run_id = await start(here, "listen", {"times": 3})
    await waiting(here, run_id)
    for number in range(3):
        assert await send(here.client, run_id, "paid", number) == (202, "kept")
    await send(here.client, run_id, "go")
    assert (await finished(here.client, run_id))["result"] == [0, 1, 2]


async def test_a_signal_without_a_body_carries_null(here: InProcess) -> None:
    run_id = await start(here, "listen")
    await waiting(here, run_id)
    for name in ("go", "paid"):
        answer = await here.client.post(f"/runs/{run_id}/signals/{name}")
        assert (answer.status_code, answer.json()["signal"]) == (202, name)
    assert (await finished(here.client, run_id))["result"] == [None]


async def test_signals_with_one_id_are_one(here: InProcess) -> None:
    run_id = await start(here, "listen")
    await waiting(here, run_id)
    answers = await asyncio.gather(*(send(here.client, run_id, "paid", 1, signal_id="payment-1") for _ in range(20)))
    assert Counter(answers) == {(202, "kept"): 1, (202, "repeated"): 19}
    assert await send(here.client, run_id, "paid", 2, signal_id="payment-1") == (409, "signal_conflict")
    assert await send(here.client, run_id, "other", 1, signal_id="payment-1") == (409, "signal_conflict")
    await send(here.client, run_id, "go")
    assert (await finished(here.client, run_id))["result"] == [1]
    assert await send(here.client, run_id, "paid", 1, signal_id="payment-1") == (202, "repeated")


@pytest.mark.parametrize("signal_id", ["", "with space", "x" * 256])
async def test_an_impossible_signal_id_is_refused(here: InProcess, signal_id: str) -> None:
    run_id = await start(here, "listen")
    assert await send(here.client, run_id, "go", signal_id=signal_id) == (422, "signal_invalid")


async def test_data_that_does_not_fit_is_refused_where_the_run_waits_for_a_type(here: InProcess) -> None:
    run_id = await start(here, "listen_typed")
    await waiting(here, run_id)
    answer = await here.client.post(f"/runs/{run_id}/signals/paid", json={"amount": "much"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (422, "signal_invalid")
    assert [problem["path"] for problem in error["details"]] == ["$.amount"]
    assert await send(here.client, run_id, "paid", {"amount": 4}) == (202, "delivered")
    assert (await finished(here.client, run_id))["result"] == 4


@promise("F32")
@pytest.mark.parametrize(
    ("encoded", "name"),
    [("a%20b", "a b"), ("%C3%BCber", "über"), ("a%3Ab.c-d", "a:b.c-d"), ("%2e%2e", ".."), ("%252F", "%2F")],
)
async def test_a_signals_name_is_a_name_and_never_a_path(here: InProcess, encoded: str, name: str) -> None:
    run_id = await start(here, "listen", {"name": name})
    await waiting(here, run_id)
    await send(here.client, run_id, "go")
    answer = await here.client.post(f"http://localhost/runs/{run_id}/signals/{encoded}", json="it")
    assert (answer.status_code, answer.json()["signal"]) == (202, name)
    assert (await finished(here.client, run_id))["result"] == ["it"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/runs/{UNKNOWN}/signals/go", (404, "run_not_found")),
        ("/runs/nonsense/signals/go", (404, "run_not_found")),
        (f"/runs/{UNKNOWN}/signals/a%2Fb", (422, "signal_invalid")),
        (f"/runs/{UNKNOWN}/signals/", (422, "signal_invalid")),
        (f"/runs/{UNKNOWN}/signals/a%00b", (422, "signal_invalid")),
        (f"/runs/{UNKNOWN}/signals/%1b%5b31m", (422, "signal_invalid")),
        (f"/runs/{UNKNOWN}/signals/{'x' * 129}", (422, "signal_invalid")),
        (f"/runs/{UNKNOWN}/signals/go?x=1", (400, "invalid_query")),
    ],
)
async def test_an_impossible_signal_is_refused(
    client: httpx2.AsyncClient, path: str, expected: tuple[int, str]
) -> None:
    answer = await client.post(f"http://localhost{path}", json=1)
    assert (answer.status_code, answer.json()["error"]["type"]) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"{", (400, "invalid_json")), (b"NaN", (400, "invalid_json")), (b"[" * 200 + b"]" * 200, (400, "too_deep"))],
)
async def test_a_signal_with_impossible_data_is_refused(
    here: InProcess, body: bytes, expected: tuple[int, str]
) -> None:
    run_id = await start(here, "listen")
    headers = {"content-type": "application/json"}
    answer = await here.client.post(f"/runs/{run_id}/signals/go", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == expected


async def test_the_recorded_steps_of_a_run_are_read_in_parts(root: Path, here: InProcess) -> None:
    run_id = await start(here, "three", {"effects": str(root / "effects")})
    await finished(here.client, run_id)
    whole = (await here.client.get(f"/runs/{run_id}/steps")).json()
    assert [step["step"] for step in whole["steps"]] == ["one", "two", "three"]
    step = whole["steps"][1]
    assert step.pop("started_at") <= step.pop("finished_at")
    assert step == {
        "step": "two",
        "kind": "step",
        "name": "two",
        "status": "completed",
        "value": {"did": "two"},
        "error": None,
        "attempts": 1,
    }
    first = (await here.client.get(f"/runs/{run_id}/steps?limit=2")).json()
    rest = (await here.client.get(f"/runs/{run_id}/steps?after={first['next_after']}")).json()
    end = (await here.client.get(f"/runs/{run_id}/steps?after={rest['next_after']}")).json()
    assert [step["step"] for step in first["steps"] + rest["steps"]] == ["one", "two", "three"]
    assert end == {"steps": [], "next_after": "three"}
    assert (await here.client.get(f"/runs/{UNKNOWN}/steps")).status_code == 404
    assert (await here.client.get(f"/runs/{run_id}/steps?limit=0")).status_code == 400


async def test_what_a_run_waits_for_is_among_its_steps(here: InProcess) -> None:
    run_id = await start(here, "listen")
    (wait,) = (await waiting(here, run_id))["waiting_for"]
    (step,) = (await here.client.get(f"/runs/{run_id}/steps")).json()["steps"]
    assert step == {
        "step": "go",
        "kind": "signal",
        "name": "go",
        "status": "waiting",
        "value": None,
        "error": None,
        "attempts": 1,
        "started_at": wait["since"],
        "finished_at": None,
    }
    await send(here.client, run_id, "go", {"by": "hand"})
    await send(here.client, run_id, "paid")
    await finished(here.client, run_id)
    steps = (await here.client.get(f"/runs/{run_id}/steps")).json()["steps"]
    assert [(step["step"], step["status"], step["value"]) for step in steps] == [
        ("go", "completed", {"by": "hand"}),
        ("paid", "completed", None),
    ]


async def test_a_schema_that_cannot_be_used_is_an_answer_to_who_sends_the_signal(here: InProcess) -> None:
    run_id = await start(here, "listen_badly")
    await waiting(here, run_id)
    answer = await here.client.post(f"/runs/{run_id}/signals/paid", json=1)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (422, "signal_invalid")
    assert "the schema cannot be used" in error["message"]


@pytest.mark.parametrize("dev", [False, True])
async def test_what_a_steps_exception_says_is_told_to_its_caller_in_dev_only(root: Path, dev: bool) -> None:
    async with in_process(root, dev=dev) as here:
        streamed = await here.client.post("/workflows/stumbles", headers={"accept": "text/event-stream"})
        frames = frames_of(streamed.text)
        kinds = [frame["event"] for frame in frames]
        assert (kinds.count("step_retry"), kinds.count("step_end"), kinds[-1]) == (1, 1, "error")
        assert ("secret text" in streamed.text) is dev
        if not dev:
            errors = [codec.load(frame["data"].encode())["data"].get("error") for frame in frames[:-1]]
            assert [error for error in errors if error] == [{"type": "exception"}] * 3
        # Those who may read runs are told all of it.
        recorded = await here.client.get(f"/runs/{streamed.headers['x-flue-run-id']}/events?types=step_retry")
        assert "secret text" in recorded.text


async def failed_run(root: Path, here: InProcess) -> str:
    """A run of `three` that failed in its second step."""
    payload = {"effects": str(root / "effects"), "fails": "two", "mended": str(root / "mended")}
    run_id = await start(here, "three", payload)
    assert (await finished(here.client, run_id))["status"] == "failed"
    return run_id


async def test_a_retry_goes_on_where_the_run_failed(root: Path, here: InProcess) -> None:
    run_id = await failed_run(root, here)
    (root / "mended").touch()
    accepted = (await here.client.post(f"/runs/{run_id}/retry")).json()
    run = await finished(here.client, accepted["run_id"])
    assert (run["status"], run["result"], run["retried_from"]) == ("completed", ["one", "two", "three"], run_id)
    assert [line.split()[0] for line in (root / "effects").read_text().splitlines()] == ["one", "two", "two", "three"]


async def test_a_fork_begins_at_a_step_with_another_payload(root: Path, here: InProcess) -> None:
    run_id = await start(here, "three", {"effects": str(root / "effects"), "note": "a", "drop": 1})
    await finished(here.client, run_id)
    body = {"from_step": "two", "payload_patch": {"note": "b", "drop": None}}
    answer = await here.client.post(f"/runs/{run_id}/fork", json=body, headers={"idempotency-key": "fork-1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    run = await finished(here.client, answer.json()["run_id"])
    assert (run["status"], run["forked_from"], run["retried_from"]) == ("completed", run_id, None)
    assert run["payload"] == {"effects": str(root / "effects"), "note": "b"}
    assert (root / "effects").read_text().splitlines() == ["one a", "two a", "three a", "two b", "three b"]
    again = await here.client.post(f"/runs/{run_id}/fork", json=body, headers={"idempotency-key": "fork-1"})
    assert again.json() == answer.json()
    other = await here.client.post(
        f"/runs/{run_id}/fork", json={"from_step": "three"}, headers={"idempotency-key": "fork-1"}
    )
    assert (other.status_code, other.json()["error"]["type"]) == (422, "idempotency_conflict")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"from_step": "four"}, 404, "step_not_found"),
        ({}, 400, "invalid_request"),
        ({"from_step": ""}, 400, "invalid_request"),
        ({"from_step": "two", "patch": 1}, 400, "invalid_request"),
    ],
)
async def test_an_impossible_fork_is_refused(
    root: Path, here: InProcess, body: dict[str, Any], status: int, kind: str
) -> None:
    run_id = await failed_run(root, here)
    answer = await here.client.post(f"/runs/{run_id}/fork", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)


async def test_a_run_that_goes_on_cannot_be_forked(here: InProcess) -> None:
    run_id = await start(here, "listen")
    await event_of(here, run_id, "step_start")
    answer = await here.client.post(f"/runs/{run_id}/fork", json={"from_step": "go"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "run_not_finished")
    cancelled = await here.client.post(f"/runs/{run_id}/cancel")
    assert (cancelled.json()["status"], cancelled.json()["waiting_for"]) == ("cancelled", [])
