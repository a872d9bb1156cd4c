"""Programs for the simulation: workflows as data, made at random, carried out by one workflow, checked afterwards.

A program is a list of operations (a run's payload holds it); `carry_out` does them through `ctx` only. Each value goes
into a running digest that is an argument of all later steps, so a replay that sees another value anywhere is noticed:
the step's input has drifted. What may happen in more than one way (who was faster, an answer or a timeout) is part of
the value. `check_values` says whether a result is one the program can have.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from pyflue import FlueContext, RetryPolicy
from pyflue.errors import RunCancelled, RunFailed, WaitTimedOut

Operation = dict[str, Any]
Program = Sequence[Operation]


class Boom(Exception):
    """What goes wrong in programs."""


class Laboratory(Protocol):
    """Where the effects of steps happen."""

    chance: random.Random

    async def effect(self, ctx: FlueContext[Any], operation: Operation, digest: int) -> int:
        """Do something outside, which shows how often it is done."""
        ...


def digest_of(digest: int, value: Any) -> int:
    """The running digest after a value."""
    return zlib.crc32(repr(value).encode(), digest)


# Carrying out


async def carry_out(laboratory: Laboratory, ctx: FlueContext[Any], program: Program, digest: int = 0) -> list[Any]:
    """Do a program's operations in their order; returns their values."""
    values: list[Any] = []
    for operation in program:
        value = await _DO[operation["do"]](laboratory, ctx, operation, digest)
        values.append(value)
        digest = digest_of(digest, value)
    return values


async def _step(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    retry = RetryPolicy(max_attempts=operation["attempts"], delay_s=operation["pause_s"], jitter=0.1)
    try:
        return await ctx.step(operation["name"], laboratory.effect, ctx, operation, digest, retry=retry)
    except Boom as error:
        return ["failed", str(error)]


async def _nested(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    async def outer(digest: int) -> list[Any]:
        return await carry_out(laboratory, ctx, operation["inside"], digest)

    return await ctx.step(operation["name"], outer, digest)


async def _sleep(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    await ctx.sleep(operation["seconds"])
    return "slept"


async def _signal(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    try:
        return ["signal", await ctx.wait_for(operation["name"], timeout_s=operation["timeout_s"])]
    except WaitTimedOut:
        return ["timeout"]


async def _approve(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    try:
        decision = await ctx.approve(operation["name"], {"digest": digest}, timeout_s=operation["timeout_s"])
    except WaitTimedOut:
        return ["timeout"]
    return ["decided", decision.approved, decision.by, decision.data]


async def _call(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    payload = {"program": operation["program"], "digest": digest}
    try:
        return ["child", await ctx.call("program", payload, timeout_s=operation["timeout_s"])]
    except WaitTimedOut:
        return ["timeout"]
    except RunFailed as error:
        return ["child failed", error.details["error"]["type"]]
    except RunCancelled:
        return ["child cancelled"]


async def _start(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    run_id = await ctx.start("program", {"program": operation["program"], "digest": digest})
    return ["started", run_id if operation["shows_id"] else None]


async def _value(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    return {"now": ctx.now().isoformat, "random": ctx.random, "uuid": ctx.uuid}[operation["what"]]()


async def _log(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    await ctx.log.info(operation["text"])
    return None


async def _boom(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    raise Boom(operation["name"])


async def _branches(laboratory: Laboratory, ctx: FlueContext[Any], operation: Operation, digest: int) -> Any:
    async def branch(number: int) -> list[Any]:
        # Plain, not recorded, and each time another one: branches come to their durable calls in any order.
        await asyncio.sleep(laboratory.chance.uniform(0, operation["plain_s"]))
        return await carry_out(laboratory, ctx, operation["branches"][number], digest_of(digest, number))

    numbers = range(len(operation["branches"]))
    try:
        match operation["how"]:
            case "gather":
                return await asyncio.gather(*[branch(number) for number in numbers])
            case "group":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(branch(number)) for number in numbers]
                return [task.result() for task in tasks]
            case "parallel":
                return await ctx.parallel(*[branch(number) for number in numbers], limit=operation["limit"])
            case _:
                return await ctx.map(branch, numbers, limit=operation["limit"])
    except (Boom, ExceptionGroup):
        return ["failed"]


_DO: Mapping[str, Callable[[Laboratory, FlueContext[Any], Operation, int], Awaitable[Any]]] = {
    "step": _step,
    "nested": _nested,
    "sleep": _sleep,
    "signal": _signal,
    "approve": _approve,
    "call": _call,
    "start": _start,
    "value": _value,
    "log": _log,
    "boom": _boom,
    "branches": _branches,
}


# Checking


def check_values(program: Program, values: Sequence[Any], digest: int = 0) -> None:
    """Assert that a program may have had these values."""
    assert len(values) == len(program), (program, values)
    for operation, value in zip(program, values, strict=True):
        _check_value(operation, value, digest)
        digest = digest_of(digest, value)


def _check_value(operation: Operation, value: Any, digest: int) -> None:
    match operation["do"]:
        case "step":
            assert value == step_value(operation, digest), (operation, value)
        case "nested":
            check_values(operation["inside"], value, digest)
        case "sleep":
            assert value == "slept"
        case "signal":
            allowed = [["signal", operation["name"]]] + ([["timeout"]] if operation["timeout_s"] else [])
            assert value in allowed, (operation, value)
        case "approve" if value == ["timeout"]:
            assert operation["timeout_s"], operation
        case "approve":
            word, approved, _, data = value
            assert word == "decided"
            assert data == ({"digest": digest} if approved else None), (operation, value)
        case "call" if value[0] == "child":
            check_values(operation["program"], value[1], digest)
        case "call" if value == ["timeout"]:
            assert operation["timeout_s"], operation
        case "call":
            assert value[0] in {"child cancelled", "child failed"}
        case "branches" if value == ["failed"]:
            assert any(inner["do"] == "boom" for branch in operation["branches"] for inner in branch), operation
        case "branches":
            assert not any(inner["do"] == "boom" for branch in operation["branches"] for inner in branch), operation
            for number, (branch, branch_values) in enumerate(zip(operation["branches"], value, strict=True)):
                check_values(branch, branch_values, digest_of(digest, number))
        case "log":
            assert value is None


def step_value(operation: Operation, digest: int) -> Any:
    """What a step comes to."""
    if operation["failures"] >= operation["attempts"]:
        return ["failed", operation["name"]]
    return digest_of(digest, operation["name"])


def operations_of(program: Program) -> Iterator[Operation]:
    """All operations of a program, those inside of others included, but not those of its children."""
    for operation in program:
        yield operation
        for inner in operation.get("branches", ()):
            yield from operations_of(inner)
        yield from operations_of(operation.get("inside", ()))


# Making


class Maker:
    """Makes programs at random."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._names = 0

    def program(self, *, size: int, depth: int) -> list[Operation]:
        """A program of up to `size` operations on each of up to `depth` levels."""
        return [self._operation(size, depth) for _ in range(self._chance.randint(1, size))]

    def _operation(self, size: int, depth: int) -> Operation:
        chance = self._chance
        kinds = {"step": 6, "sleep": 2, "signal": 2, "approve": 2, "value": 2, "log": 2}
        if depth > 0:
            kinds |= {"branches": 3, "call": 1, "start": 1, "nested": 1}
        (kind,) = chance.choices(list(kinds), weights=list(kinds.values()))
        return getattr(self, f"_{kind}")(max(1, size - 2), depth - 1)

    def _name(self, *usual: str) -> str:
        # Some names are used again and again, as authors do it.
        self._names += 1
        return self._chance.choice([*usual, f"n{self._names}", f"n{self._names}"])

    def _unique(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def _step(self, size: int, depth: int) -> Operation:
        failures = self._chance.choice([0, 0, 0, 0, 1, 2])
        return {
            "do": "step",
            "name": self._name("work", "charge"),
            "failures": failures,
            "attempts": self._chance.choice([failures + 1, failures + 1, max(1, failures)]),
            "pause_s": self._chance.choice([0.01, 0.3, 1.5]),
            "takes_s": self._chance.choice([0, 0.002, 0.05]),
        }

    def _nested(self, size: int, depth: int) -> Operation:
        inside = [self._step(size, depth) for _ in range(self._chance.randint(1, 2))]
        return {"do": "nested", "name": self._name("whole"), "inside": inside}

    def _sleep(self, size: int, depth: int) -> Operation:
        return {"do": "sleep", "seconds": self._chance.choice([0, 0.01, 0.2, 1, 2.5])}

    def _timeout(self) -> float | None:
        return self._chance.choice([None, None, None, 0.05, 0.8])

    def _signal(self, size: int, depth: int) -> Operation:
        return {"do": "signal", "name": self._unique("signal"), "timeout_s": self._timeout()}

    def _approve(self, size: int, depth: int) -> Operation:
        return {"do": "approve", "name": self._name("ship"), "timeout_s": self._timeout()}

    def _call(self, size: int, depth: int) -> Operation:
        return {"do": "call", "program": self.program(size=size, depth=depth), "timeout_s": self._timeout()}

    def _start(self, size: int, depth: int) -> Operation:
        return {"do": "start", "program": self.program(size=size, depth=depth), "shows_id": True}

    def _value(self, size: int, depth: int) -> Operation:
        return {"do": "value", "what": self._chance.choice(["now", "random", "uuid"])}

    def _log(self, size: int, depth: int) -> Operation:
        return {"do": "log", "text": self._chance.choice(["again", self._unique("log ")])}

    def _branches(self, size: int, depth: int) -> Operation:
        chance = self._chance
        branches = [self.program(size=size, depth=depth) for _ in range(chance.randint(2, 3))]
        if chance.random() < 0.15:
            chance.choice(branches).append({"do": "boom", "name": self._unique("boom")})
        return {
            "do": "branches",
            "how": chance.choice(["gather", "group", "parallel", "map"]),
            "limit": chance.choice([None, 1, 2]),
            "plain_s": chance.choice([0, 0.02]),
            "branches": branches,
        }
