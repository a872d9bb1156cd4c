"""`pyflue approvals` and `pyflue signal`, and what commands say of runs that wait."""

from __future__ import annotations

import getpass
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyflue.cli.approvals import STATES
from pyflue.journal import ApprovalState
from tests.cli.cli_project import Cli, complete, json_of, spawn, write_workflow
from tests.promises import promise

UNKNOWN = "01KAJ5V3W8Y3N5QZ6E4T9R2M1B"

ASKS = """
from pydantic import BaseModel

class Refund(BaseModel):
    amount: int

async def run(ctx):
    await ctx.step("prepare", lambda: {"ready": True})
    decision = await ctx.approve("refund", request={"amount": 700, "to": "\\x1b[31mAda"}, schema=Refund)
    return {"approved": decision.approved, "data": decision.data, "by": decision.by, "reason": decision.reason}
"""
LISTENS = """
async def run(ctx):
    return await ctx.wait_for(ctx.payload.get("name", "paid"), timeout_s=ctx.payload.get("timeout_s"))
"""
BADLY = """
async def run(ctx):
    schema = {"$ref": "#/$defs/nowhere"}
    await ctx.parallel(lambda: ctx.wait_for("paid", schema=schema), lambda: ctx.approve("refund", schema=schema))
"""


@dataclass
class Waiting:
    """A run in a process of its own, which says on stderr what it waits for."""

    process: subprocess.Popen[str]
    run_id: str
    told: str

    @property
    def approval_id(self) -> str:
        return self.told.split()[-1]

    def ended(self) -> str:
        """What the process writes to stdout by its end."""
        stdout, _ = self.process.communicate(timeout=20)
        return stdout

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


def test_the_states_of_the_options_are_those_there_are() -> None:
    assert list(STATES) == [state.value for state in ApprovalState]


def start(project: Path, *arguments: str) -> Waiting:
    process = spawn("run", *arguments, cwd=project)
    assert process.stderr is not None
    run_id = process.stderr.readline().split()[1]
    return Waiting(process, run_id, process.stderr.readline().rstrip("\n"))


@pytest.fixture
def asking(project: Path) -> Iterator[Waiting]:
    write_workflow(project, "asks", ASKS)
    waiting = start(project, "asks")
    with waiting.process:
        yield waiting
        waiting.process.kill()


def test_a_run_says_what_it_waits_for_and_the_command_that_answers_it(asking: Waiting, cli: Cli) -> None:
    expected = f"run {asking.run_id} waits for approval refund: pyflue approvals approve {asking.approval_id}"
    assert asking.told == expected
    arguments = asking.told.partition(": pyflue ")[2].split()
    answer = cli(*arguments)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert answer.stderr == f"refund of run {asking.run_id} is approved\n"
    assert f'"by": "{getpass.getuser()}"' in asking.ended()


def test_an_approval_is_listed_shown_and_approved_with_other_data(project: Path, asking: Waiting, cli: Cli) -> None:
    heading, line = cli("approvals", "list").stdout.splitlines()
    assert heading.split() == ["APPROVAL", "WORKFLOW", "NAME", "STATE", "AGE", "DUE", "ASKED"]
    assert line.split()[:4] == [asking.approval_id, "asks", "refund", "open"]
    assert line.rstrip().endswith('{"amount":700,"to":"\\u001b[31mAda"}')
    page = json_of(cli("approvals", "list", "--json", "--workflow", "asks", "--run", asking.run_id, "--name", "refund"))
    assert ([found["approval_id"] for found in page["approvals"]], page["next"]) == ([asking.approval_id], None)

    shown = cli("approvals", "show", asking.approval_id)
    assert '"amount": 700' in shown.stdout
    assert '"required"' in shown.stdout
    commands = [f"pyflue approvals {verb} {asking.approval_id}" for verb in ("approve", "reject")]
    assert shown.stderr.splitlines() == commands
    assert json_of(cli("approvals", "show", asking.approval_id, "--json")) == page["approvals"][0]

    (project / "less.json").write_text('{"amount": 5}', encoding="utf-8")
    approve = ("approvals", "approve", asking.approval_id)
    assert cli(*approve, "--data", '{"amount": "x"}').exit_code == 2
    assert cli(*approve, "--data", "{").exit_code == 2
    answer = cli(*approve, "--data", "@less.json", "--reason", "too much", "--by", "Ada", "--json")
    decision = json_of(answer)["decision"]
    assert (decision["by"], decision["reason"], decision["data"]) == ("Ada", "too much", {"amount": 5})
    assert '"amount": 5' in asking.ended()

    assert cli("approvals", "list").stderr == "no open approvals\n"
    assert "approved" in cli("approvals", "list", "--state", "approved").stdout
    again = cli("approvals", "reject", asking.approval_id)
    assert (again.exit_code, again.stderr) == (
        4, f"error: Approval {asking.approval_id} is already approved (by Ada).\n"
    )  # fmt: skip
    assert "decision" in cli("approvals", "show", asking.approval_id).stdout


def test_a_rejection_is_told_to_the_run(asking: Waiting, cli: Cli) -> None:
    assert cli("approvals", "reject", asking.approval_id, "--reason", "no").exit_code == 0
    assert '"approved": false' in asking.ended()


def test_an_unknown_approval_is_not_found(project: Path, cli: Cli) -> None:
    for arguments in (("show", UNKNOWN), ("approve", UNKNOWN), ("reject", "x")):
        assert cli("approvals", *arguments).exit_code == 3
    assert not (project / ".pyflue").exists()


def test_a_decision_without_an_engine_says_who_goes_on(project: Path, asking: Waiting, cli: Cli) -> None:
    asking.kill()
    told = f"run {asking.run_id} waits for approval refund: pyflue approvals approve {asking.approval_id}\n"
    assert cli("runs", "delete", asking.run_id).stderr.startswith(
        f"{told}run {asking.run_id} has no engine: a running `pyflue dev` or `pyflue serve`"
    )
    answer = cli("approvals", "approve", asking.approval_id)
    assert answer.exit_code == 0
    lines = answer.stderr.splitlines()
    who = "a running `pyflue dev` or `pyflue serve` of this project takes it up, else the next one to start."
    assert lines[0] == f"run {asking.run_id} is running, but its engine is gone: {who}"
    assert lines[1] == f"refund of run {asking.run_id} is approved"


def test_a_waiting_run_shows_what_answers_it(asking: Waiting, cli: Cli) -> None:
    lines = cli("runs", "show", asking.run_id).stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("waits for"))
    assert lines[at].split(maxsplit=2)[2] == "approval refund"
    assert lines[at + 1].strip() == f"pyflue approvals approve {asking.approval_id}"
    (wait,) = json_of(cli("runs", "show", asking.run_id, "--json"))["waiting_for"]
    assert wait["approval_id"] == asking.approval_id
    cancelled = json_of(cli("runs", "cancel", asking.run_id, "--json"))
    assert (cancelled["status"], cancelled["waiting_for"]) == ("cancelled", [])
    assert cli("approvals", "approve", asking.approval_id).exit_code == 4


@promise("F48")
def test_the_events_of_a_waiting_run_are_lines_to_read(asking: Waiting, cli: Cli) -> None:
    cli("approvals", "reject", asking.approval_id, "--reason", "\x1b[2Jno", "--by", "A\u202eda")
    asking.ended()
    answer = cli("logs", asking.run_id)
    assert not set(answer.stdout) & set("\x1b\u202e")
    said = [line.split(maxsplit=2)[2] for line in answer.stdout.splitlines()]
    approval = f"({asking.approval_id})"
    request = '{"amount":700,"to":"\\u001b[31mAda"}'
    assert said[1] == "step_start   prepare"
    assert said[2].startswith("step_end     prepare completed in ")
    assert said[3:-2] == [
        "step_start   refund [approval]",
        f"approval_requested refund {approval} - {request}",
        f"run_waiting  for approval refund {approval}",
        f"approval_decided refund {approval} rejected by A\\u202eda - \\x1b[2Jno",
    ]
    assert said[-2].startswith("step_end     refund [approval] completed")


def test_approval_ids_complete(project: Path, asking: Waiting) -> None:
    assert complete(project, "pyflue approvals approve ") == [asking.approval_id]
    assert complete(project, "pyflue approvals a") == ["approve"]


def test_a_list_of_approvals_goes_on_from_its_cursor(project: Path, asking: Waiting, cli: Cli) -> None:
    another = start(project, "asks")
    try:
        first = json_of(cli("approvals", "list", "--limit", "1", "--json"))
        assert [found["approval_id"] for found in first["approvals"]] == [another.approval_id]
        assert f"--before {first['next']}" in cli("approvals", "list", "--limit", "1").stderr
        rest = json_of(cli("approvals", "list", "--before", first["next"], "--json"))
        assert ([found["approval_id"] for found in rest["approvals"]], rest["next"]) == ([asking.approval_id], None)
    finally:
        another.kill()


def test_a_signal_wakes_the_run_that_waits_for_it(project: Path, cli: Cli) -> None:
    write_workflow(project, "listens", LISTENS)
    run = start(project, "listens", "--payload", '{"name": "it is paid"}')
    assert run.told == f"run {run.run_id} waits for signal it is paid: pyflue signal {run.run_id} 'it is paid'"
    answer = cli("signal", run.run_id, "it is paid", "--data", '"yes"', "--json")
    assert json_of(answer) == {"status": "delivered", "run_id": run.run_id, "signal": "it is paid"}
    assert answer.stderr == f"run {run.run_id} has it\n"
    assert run.ended() == "yes\n"
    assert cli("signal", run.run_id, "it is paid").exit_code == 4
    (event,) = cli("logs", run.run_id, "--types", "signal").stdout.splitlines()
    assert "it is paid - yes" in event


def test_a_signal_is_kept_and_counted_once(project: Path, cli: Cli) -> None:
    write_workflow(project, "listens", LISTENS)
    run_id = cli("run", "listens", "--detach").stdout.strip()
    send = ("signal", run_id, "paid", "--id", "p-1", "--data")
    queued, kept = cli(*send, "[1]").stderr.splitlines()
    assert queued.startswith(f"run {run_id} is queued: a running `pyflue dev` or `pyflue serve`")
    assert kept == f"kept: the next wait of run {run_id} for paid takes it"
    assert cli(*send, "[1]").stderr.splitlines()[-1] == f"run {run_id} had it before; nothing was changed"
    assert cli(*send, "[2]").exit_code == 4
    assert cli("signal", run_id, "a/b").exit_code == 2
    assert cli("signal", run_id, "paid", "--data", "{").exit_code == 2
    assert cli("signal", "workflow:listens:" + UNKNOWN, "paid").exit_code == 3


def test_a_schema_that_cannot_be_used_is_one_line(project: Path, cli: Cli) -> None:
    write_workflow(project, "badly", BADLY)
    run = start(project, "badly")
    try:
        found = json_of(cli("runs", "show", run.run_id, "--json"))["waiting_for"]
        approval_id = next(wait["approval_id"] for wait in found if wait["kind"] == "approval")
        for arguments in (("signal", run.run_id, "paid"), ("approvals", "approve", approval_id)):
            answer = cli(*arguments)
            assert (answer.exit_code, answer.stdout) == (2, "")
            (line,) = answer.stderr.splitlines()
            assert line.startswith("error: ")
            assert "the schema cannot be used" in line
        assert cli("approvals", "reject", approval_id).exit_code == 0
    finally:
        run.kill()


def test_a_wait_with_a_time_limit_says_so(project: Path, cli: Cli) -> None:
    write_workflow(project, "listens", LISTENS)
    run = start(project, "listens", "--payload", '{"timeout_s": 3600}')
    try:
        soon = time.strftime("%Y-%m-%d", time.localtime(time.time() + 3600))
        assert f"waits for signal paid, due {soon} " in run.told
    finally:
        run.kill()
