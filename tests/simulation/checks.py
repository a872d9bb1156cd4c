"""What must be true of the journal, and of the world outside, once a simulation is over."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from pyflue import codec
from pyflue.codec import Raw

from .machine import Machine
from .programs import Program, check_values, operations_of

#: What a run may fail with if the disk was full again and again.
UNWRITTEN = "journal_error"


def check(machine: Machine) -> None:
    """Assert everything.

    Raises:
        AssertionError: naming the run.
    """
    assert machine.problems == [], machine.problems
    runs = _runs(machine)
    check_events(machine, runs)
    check_outcomes(machine, runs)
    check_effects(machine)
    check_children(machine, runs)
    check_decisions(machine)


def _runs(machine: Machine) -> dict[str, dict[str, Any]]:
    names = ("run_id", "status", "attempt", "last_index", "payload", "result", "error", "parent_run_id", "finished_at")
    runs: dict[str, dict[str, Any]] = {}
    for row in machine.disk.read(f"SELECT {', '.join(names)} FROM runs ORDER BY seq"):
        run = dict(zip(names, row, strict=True))
        runs[run["run_id"]] = run | {name: machine.value(row[0], run[name]) for name in ("payload", "result", "error")}
    return runs


def _events(machine: Machine, run_id: str) -> list[tuple[int, str, Any]]:
    rows = machine.disk.read("SELECT idx, type, data FROM events WHERE stream_id = ? ORDER BY idx", run_id)
    return [(index, type_, codec.load(Raw(data.encode()))) for index, type_, data in rows]


def check_events(machine: Machine, runs: dict[str, dict[str, Any]]) -> None:
    """Events are dense, end once, and tell what the tables hold."""
    for run_id, run in runs.items():
        events = _events(machine, run_id)
        assert [index for index, _, _ in events] == list(range(1, run["last_index"] + 1)), run_id
        types = [type_ for _, type_, _ in events]
        assert [n for n, type_ in enumerate(types, 1) if type_ == "run_end"] == [run["last_index"]], run_id
        assert types.count("run_start") == (1 if run["attempt"] else 0), run_id
        assert types.count("run_resumed") == max(0, run["attempt"] - 1), (run_id, run["attempt"], types)
        assert "replay_drift" not in types, (run_id, events)
        ends = Counter(data["step"] for _, type_, data in events if type_ == "step_end")
        steps = machine.disk.read(
            "SELECT key FROM steps WHERE run_id = ? AND status IN ('completed', 'failed')"
            " AND kind IN ('step', 'start')",
            run_id,
        )
        # A wait that was given up and is made again ends twice in the events.
        waits = machine.disk.read("SELECT key FROM waits WHERE run_id = ? AND state IN ('answered', 'expired')", run_id)
        expected = Counter(key for (key,) in (*steps, *waits))
        assert expected <= ends, (run_id, expected - ends)
        if not _is_ragged(_program(run)):
            assert expected == ends, (run_id, ends - expected)
        logged = machine.disk.read("SELECT data, step FROM events WHERE stream_id = ? AND type = 'log'", run_id)
        check_logs(run, [codec.load(Raw(data.encode()))["message"] for data, step in logged if step is None])
        check_logs_of_steps(machine, run, Counter(step for _, step in logged if step is not None))


def check_logs(run: dict[str, Any], lines: list[str]) -> None:
    """Each line was logged as often as the program logs it."""
    program = _program(run)
    expected = Counter(operation["text"] for operation in operations_of(program) if operation["do"] == "log")
    assert Counter(lines) <= expected, (run["run_id"], Counter(lines) - expected)
    if run["status"] == "completed" and not _is_ragged(program):
        assert Counter(lines) == expected, (run["run_id"], expected - Counter(lines))


def check_logs_of_steps(machine: Machine, run: dict[str, Any], lines: Counter[str]) -> None:
    """An attempt at a step says its line once, although it may have been cut off and made again."""
    assert set(lines.values()) <= {1}, (run["run_id"], lines)
    attempts = machine.disk.read(
        "SELECT key, attempts FROM steps WHERE run_id = ? AND kind = 'step' AND status <> 'cancelled'", run["run_id"]
    )
    for key, last in attempts:
        if (run["run_id"], key) in machine.outside.effects:
            assert all(lines[f"{key}/attempt-{attempt}"] for attempt in range(1, last + 1)), (run["run_id"], key, lines)


def _program(run: dict[str, Any]) -> Program:
    return run["payload"]["program"]


def _is_ragged(program: Program) -> bool:
    """Whether a program has branches that are cut off at a moment nobody knows."""
    return any(operation["do"] == "boom" for operation in operations_of(program))


def check_outcomes(machine: Machine, runs: dict[str, dict[str, Any]]) -> None:
    """Each run ended as its program does."""
    for number, run_id in machine.outside.run_ids.items():
        assert _program(runs[run_id]) == machine.plan.programs[number]
    assert len(machine.outside.run_ids) == len(machine.plan.programs)
    for run_id, run in runs.items():
        if run["status"] == "completed":
            payload = run["payload"]
            check_values(payload["program"], run["result"], payload.get("digest", 0))
        elif run["status"] == "failed":
            error = run["error"]
            is_boom = error["exception"].endswith("Boom") if "exception" in error else False
            is_allowed = is_boom and _is_ragged(_program(run))
            assert is_allowed or (error["type"] == UNWRITTEN and machine.disk.full_faults >= 3), (run_id, error)
        else:
            assert run["status"] == "cancelled", run
            assert _may_be_cancelled(machine, run, runs), run_id


def _may_be_cancelled(machine: Machine, run: dict[str, Any], runs: dict[str, dict[str, Any]]) -> bool:
    if run["run_id"] in machine.outside.cancelled:
        return True
    parent = run["parent_run_id"]
    if parent is None:
        return False
    if _may_be_cancelled(machine, runs[parent], runs) or runs[parent]["status"] == "failed":
        return True
    # Given up by its parent: it took too long, or a branch beside the call failed.
    return _is_ragged(_program(runs[parent])) or any(
        operation["do"] == "call" and operation["timeout_s"] for operation in operations_of(_program(runs[parent]))
    )


def check_effects(machine: Machine) -> None:
    """What is recorded was not done again; what was done twice was in flight when its attempt ended."""
    for (run_id, key), effects in machine.outside.effects.items():
        where = (run_id, key, effects)
        by_attempt = Counter((effect.attempt, effect.step_attempt) for effect in effects)
        assert max(by_attempt.values()) == 1, where
        assert len({effect.digest for effect in effects}) == 1, where
        latest: dict[int, int] = defaultdict(int)
        for effect in effects:
            # An attempt that counts its failures anew has lost some.
            assert effect.step_attempt >= latest[effect.attempt], where
            latest[effect.attempt] = effect.step_attempt
        recorded = machine.disk.read("SELECT status FROM steps WHERE run_id = ? AND key = ?", run_id, key)
        if recorded and recorded[0][0] == "completed":
            assert any(effect.is_done for effect in effects), where


def check_children(machine: Machine, runs: dict[str, dict[str, Any]]) -> None:
    """Each child was started once, and its parent has its result."""
    children: dict[str, list[str]] = defaultdict(list)
    for run_id, run in runs.items():
        if run["parent_run_id"] is not None:
            children[run["parent_run_id"]].append(run_id)
    for run_id, run in runs.items():
        program = _program(run)
        called = [operation for operation in operations_of(program) if operation["do"] in {"call", "start"}]
        if not _is_ragged(program):
            assert len(children[run_id]) <= len(called), run_id
            if run["status"] == "completed":
                assert len(children[run_id]) == len(called), run_id
        answers = machine.disk.read(
            "SELECT name, answer FROM waits WHERE run_id = ? AND kind = 'child' AND state = 'answered'", run_id
        )
        for child, answer in answers:
            told = machine.value(run_id, answer)
            assert (told["status"], told["result"]) == (runs[child]["status"], runs[child]["result"])
        if machine.plan.clock_jumps:
            continue  # nobody can say what was first
        given_up = machine.disk.read(
            "SELECT name, answered_at FROM waits WHERE run_id = ? AND kind = 'child' AND state <> 'answered'", run_id
        )
        if run["status"] == "cancelled":
            given_up += [(child, run["finished_at"]) for child in children[run_id]]
        for child, at in given_up:
            is_late = runs[child]["status"] != "cancelled" and runs[child]["finished_at"] > at
            assert not is_late, f"{run_id} has given {child} up, which goes on all the same"


def check_decisions(machine: Machine) -> None:
    """Everybody who was not refused was told the same, and that is what the journal has."""
    for approval_id, told in machine.outside.deciders.items():
        ((run_id, state, answer),) = machine.disk.read(
            "SELECT run_id, state, answer FROM waits WHERE wait_id = ?", approval_id
        )
        decision = machine.value(run_id, answer)
        assert state == "answered", approval_id
        for by, approved in told:
            assert (by, approved) == (decision["by"], decision["approved"]), (approval_id, told)
