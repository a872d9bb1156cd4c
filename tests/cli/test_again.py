"""`pyflue runs steps`, `retry`, `fork` and `replay`: what is recorded, and what can be begun with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.cli_project import Cli, json_of, run_id_of, write_workflow

THREE = """
from pathlib import Path

async def act(name, note):
    with open("effects", "a") as file:
        file.write(f"{name}{note} ")
    if name == "two" and not Path("mended").exists():
        raise ValueError("broken\\x1b[31m")
    return {"did": name}

async def run(ctx):
    note = ctx.payload.get("note", "")
    return [(await ctx.step(name, act, name, note))["did"] for name in ("one", "two", "three")]
"""


@pytest.fixture
def failed(project: Path, cli: Cli) -> str:
    """A run that failed in the second of three steps."""
    write_workflow(project, "three", THREE)
    return run_id_of(cli("run", "three"))


@pytest.fixture
def whole(project: Path, cli: Cli) -> str:
    """A run of three steps that completed."""
    write_workflow(project, "three", THREE)
    (project / "mended").touch()
    return run_id_of(cli("run", "three", "--payload", '{"note": "!"}'))


def effects(project: Path) -> str:
    return (project / "effects").read_text(encoding="utf-8").strip()


def test_the_recorded_steps_of_a_run_are_listed(project: Path, cli: Cli, failed: str) -> None:
    answer = cli("runs", "steps", failed)
    assert "\x1b" not in answer.stdout
    heading, one, two = answer.stdout.splitlines()
    assert heading.split() == ["STEP", "KIND", "STATUS", "ATTEMPTS", "TOOK", "VALUE"]
    assert one.split()[:4] == ["one", "step", "completed", "1"]
    assert one.rstrip().endswith('{"did":"one"}')
    assert two.split()[:4] == ["two", "step", "failed", "1"]
    assert "ValueError: broken\\x1b[31m" in two
    steps = json_of(cli("runs", "steps", failed, "--json"))["steps"]
    assert [(step["step"], step["value"]) for step in steps] == [("one", {"did": "one"}), ("two", None)]
    assert cli("runs", "steps", run_id_of(cli("run", "echo"))).stderr == "no steps\n"
    assert cli("runs", "steps", "workflow:three:1").exit_code == 3


def test_a_retry_goes_on_where_the_run_failed(project: Path, cli: Cli, failed: str) -> None:
    (project / "mended").touch()
    answer = cli("runs", "retry", failed)
    assert (answer.exit_code, json_of(answer)) == (0, ["one", "two", "three"])
    assert effects(project) == "one two two three"


def test_a_detached_retry_takes_its_records_over(project: Path, cli: Cli, failed: str) -> None:
    retried = cli("runs", "retry", failed, "--detach").stdout.strip()
    assert [step["step"] for step in json_of(cli("runs", "steps", retried, "--json"))["steps"]] == ["one"]
    record = json_of(cli("runs", "show", retried, "--json"))
    assert (record["status"], record["retried_from"], record["forked_from"]) == ("queued", failed, None)


def test_a_fork_begins_at_a_step_with_another_payload(project: Path, cli: Cli, whole: str) -> None:
    answer = cli("runs", "fork", whole, "--from", "three", "--payload-patch", '{"note": "?"}', "--json")
    forked = json_of(answer)
    assert (answer.exit_code, forked["result"]) == (0, ["one", "two", "three"])
    assert effects(project) == "one! two! three! three?"
    record = json_of(cli("runs", "show", forked["run_id"], "--json"))
    assert (record["forked_from"], record["payload"]) == (whole, {"note": "?"})


def test_a_detached_fork_is_queued_with_its_records(project: Path, cli: Cli, whole: str) -> None:
    forked = cli("runs", "fork", whole, "--from", "two", "--detach").stdout.strip()
    assert [step["step"] for step in json_of(cli("runs", "steps", forked, "--json"))["steps"]] == ["one"]
    assert json_of(cli("runs", "show", forked, "--json"))["status"] == "queued"
    refused = cli("runs", "fork", forked, "--from", "one")
    assert (refused.exit_code, "cannot be forked yet" in refused.stderr) == (4, True)


def test_an_impossible_fork_is_refused(project: Path, cli: Cli, whole: str) -> None:
    unknown = cli("runs", "fork", whole, "--from", "four")
    assert unknown.exit_code == 3
    assert "hint: It has: one, two, three." in unknown.stderr
    assert cli("runs", "fork", whole, "--from", "two", "--payload-patch", "{").exit_code == 2
    assert cli("runs", "fork", whole).exit_code == 2
    assert cli("runs", "fork", whole, "--from", "two", "--stream", "--detach").exit_code == 2
    assert cli("runs", "fork", "workflow:three:1", "--from", "two").exit_code == 3
    assert effects(project) == "one! two! three!"


def test_steps_are_lines_to_read_in_the_events_of_a_run(project: Path, cli: Cli, failed: str) -> None:
    said = [line.split(maxsplit=2)[2] for line in cli("logs", failed).stdout.splitlines()]
    assert [re.sub(r"in [\d.]+ m?s", "in …", line) for line in said[1:5]] == [
        "step_start   one",
        "step_end     one completed in …",
        "step_start   two",
        "step_end     two failed in … - ValueError: broken\\x1b[31m",
    ]
    (warning, _) = cli("logs", failed, "--level", "warn").stdout.splitlines()
    assert "two failed" in warning


def test_a_failed_attempt_is_a_line_to_read(project: Path, cli: Cli) -> None:
    write_workflow(
        project,
        "flaky",
        """
from pyflue import RetryPolicy

attempts = 0

def act():
    global attempts
    attempts += 1
    if attempts == 1:
        raise ValueError("not yet")
    return attempts

async def run(ctx):
    return await ctx.step("act", act, retry=RetryPolicy(max_attempts=2, delay_s=0.001, jitter=0))
""",
    )
    run_id = run_id_of(cli("run", "flaky"))
    said = [line.split(maxsplit=2)[2] for line in cli("logs", run_id).stdout.splitlines()]
    assert said[2] == "step_retry   act failed (attempt 1): ValueError: not yet; again in 1 ms"
    assert said[3] == "step_start   act (attempt 2)"
    assert said[4].startswith("step_end     act completed in ")
    assert said[4].endswith("(attempt 2)")


def test_a_replay_says_that_nothing_has_changed(project: Path, cli: Cli, whole: str) -> None:
    answer = cli("runs", "replay", whole)
    assert (answer.exit_code, answer.stdout) == (0, "same: 3 recorded calls\n")
    assert json_of(cli("runs", "replay", whole, "--json")) == {
        "is_same": True,
        "divergence": None,
        "step": None,
        "calls": 3,
    }
    assert effects(project) == "one! two! three!"
    assert cli("runs", "replay", "workflow:three:1").exit_code == 3


def test_a_replay_names_the_first_difference(project: Path, cli: Cli, whole: str) -> None:
    changed = THREE.replace('("one", "two", "three")', '("one", "2", "three")')
    write_workflow(project, "three", changed)
    answer = cli("runs", "replay", whole)
    assert answer.exit_code == 1
    assert answer.stdout.startswith("differs at 2: ")
    told = json_of(cli("runs", "replay", whole, "--json"))
    assert (told["is_same"], told["step"]) == (False, "2")
    assert effects(project) == "one! two! three!"
