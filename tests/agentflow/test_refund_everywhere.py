"""One refund workflow, the sample's: as a library, by `pyflue run`, over HTTP, and killed with -9 wherever it is."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyflue import codec
from pyflue.agentflow import ApprovalDecision
from tests.cli.cli_project import spawn
from tests.engine.durable import asked
from tests.promises import promise
from tests.reliability.processes import reading, running, until_final, value, whole_record

from .support import without_times

ROOT = Path(__file__).parent.parent.parent
PAYLOAD = {"order_id": "ord_17", "amount": 250.0}
STEPS = ["check_order", "decide", "approve", "pay"]

#: The sample's workflow, which notes what each step does, and dies once where the payload's file says so.
WATCHED = '''
import os
import signal
from pathlib import Path

from pyflue.agentflow import workflow
from src.workflows.refund import RefundState, RefundWorkflow

FOLDER = Path({folder!r})


def here(place):
    """Die, if this is the place."""
    wanted = FOLDER / "die_at"
    if wanted.exists() and wanted.read_text() == place:
        wanted.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def work(name, do):
    here(f"in {{name}}")
    with (FOLDER / "done").open("a") as done:
        done.write(name + "\\n")
    return do()


def between(event):
    here(f"{{type(event).__name__}} {{getattr(event, 'step_name', '')}}".strip())


@workflow(name="RefundWorkflow", hooks=[between])
class Watched(RefundWorkflow):
    state: RefundState

    def check_order(self):
        return work("check_order", super().check_order)

    def decide(self):
        return work("decide", super().decide)

    def approve(self):
        return work("approve", super().approve)

    def pay(self):
        return work("pay", super().pay)
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "workflows"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "src" / "workflows" / "refund.py", folder)
    (folder / "watched.py").write_text(WATCHED.format(folder=str(tmp_path)), encoding="utf-8")
    return tmp_path


def as_library(project: Path) -> Any:
    """The result of a library call, with the decision that everybody gives here."""
    script = f"""
import json
from dataclasses import asdict
from src.workflows.refund import RefundState, RefundWorkflow
from pyflue.agentflow import ApprovalDecision
decision = ApprovalDecision(True, "a good customer", {{"by": "Ada"}})
result = RefundWorkflow().run(RefundState(**{PAYLOAD!r}), approval_handler=lambda request: decision)
print(json.dumps({{**result.to_dict(), "state": asdict(result.state)}}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, check=True)
    return comparable(codec.load(done.stdout))


def comparable(result: Any) -> Any:
    """A result without times, also without that of the decision."""
    plain = without_times(result)
    for step in plain["steps"]:
        if step["approval_decision"]:
            step["approval_decision"]["metadata"].pop("at", None)
    return plain


def pyflue(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pyflue.cli", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def approve(project: Path, approval_id: str) -> None:
    pyflue(project, "approvals", "approve", approval_id, "--by", "Ada", "--reason", "a good customer")


def approve_when_asked(project: Path) -> None:
    with spawn("run", "refund", "--payload", codec.encode(PAYLOAD).decode(), cwd=project) as process:
        try:
            assert process.stderr is not None
            process.stderr.readline()
            waits = process.stderr.readline()
            assert "waits for approval approve" in waits, waits
            approve(project, waits.split()[-1])
            stdout, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert comparable(codec.load(stdout.encode())) == as_library(project)


@promise("agentflow.same")
def test_pyflue_run_gives_what_the_library_gives(project: Path) -> None:
    expected = as_library(project)
    assert [step["status"] for step in expected["steps"]] == ["succeeded"] * 4 + ["skipped"]
    assert expected["state"]["response_text"] == "250.00 refunded for ord_17."
    assert ApprovalDecision(**expected["steps"][2]["approval_decision"]).reason == "a good customer"
    approve_when_asked(project)


async def approve_over_there(project: Path, run_id: str) -> None:
    """Approve what a run asks for, once it does, in a process of its own."""
    async with reading(project) as journal:
        approval = await asked(journal, run_id)
    await asyncio.to_thread(approve, project, str(approval.wait.wait_id))


@promise("agentflow.same")
async def test_a_run_over_http_approved_on_the_command_line_gives_what_the_library_gives(project: Path) -> None:
    async with running(project) as server:
        about = await server.client.workflows.get("refund")
        assert (about["kind"], len(about["graph"]["nodes"])) == ("agentflow", 6)
        assert about["input_schema"]["required"] == ["order_id", "amount"]
        accepted = await server.client.workflows.invoke("refund", PAYLOAD)
        await approve_over_there(project, accepted["run_id"])
        async with reading(project) as journal:
            [run] = await until_final(journal, [accepted["run_id"]])
            await whole_record(journal, run)
        assert comparable(value(run.result)) == await asyncio.to_thread(as_library, project)


PLACES = [
    "WorkflowStartedEvent",
    "in check_order",
    "StepFinishedEvent check_order",
    "in decide",
    "StepStartedEvent approve",
    "in approve",
    "StepFinishedEvent approve",
    "in pay",
    "WorkflowFinishedEvent",
]


@promise("agentflow.same")
@pytest.mark.parametrize("place", PLACES)
async def test_a_run_that_is_killed_gives_what_the_library_gives_and_does_each_step_once(
    project: Path, place: str
) -> None:
    (project / "die_at").write_text(place)
    approved_by_first = PLACES.index(place) > PLACES.index("StepStartedEvent approve")
    async with running(project) as server:
        accepted = await server.client.workflows.invoke("watched", PAYLOAD)
        if approved_by_first:
            await approve_over_there(project, accepted["run_id"])
        async with asyncio.timeout(20):
            assert await server.process.wait() == -9
    assert not (project / "die_at").exists()
    async with running(project) as server:
        if not approved_by_first:
            await approve_over_there(project, accepted["run_id"])
        async with reading(project) as journal:
            [run] = await until_final(journal, [accepted["run_id"]])
            events = await whole_record(journal, run)
    assert run.attempt == 2
    assert comparable(value(run.result)) == await asyncio.to_thread(as_library, project)
    assert (project / "done").read_text().split() == STEPS
    ended = [value(event.data)["step"] for event in events if event.type == "step_end"]
    assert [name for name in ended if not name.startswith("hook ")] == [
        "check_order",
        "decide",
        "@approve approval",
        "approve",
        "pay",
    ]
