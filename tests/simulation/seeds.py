"""One seed, one simulation: makes a plan and programs of it, lets everything happen, and checks what came of it."""

from __future__ import annotations

import random
from typing import Any

from structlog.testing import capture_logs

from .checks import check
from .loop import World
from .machine import Machine, Plan
from .programs import Maker

#: What the engine logs when something went wrong in it that it did not expect.
_UNEXPECTED = {"engine_service_failed"}


def plan_of(chance: random.Random) -> Plan:
    """What happens, at random; most plans are small, because small ones find as much and take less time."""
    maker = Maker(chance)
    size, depth = chance.choice([(3, 1), (3, 2), (4, 1), (6, 2)])
    return Plan(
        programs=[maker.program(size=size, depth=depth) for _ in range(chance.choice([1, 1, 2, 3]))],
        servers=chance.choice([1, 2, 2]),
        trouble_s=chance.choice([3, 8]),
        trouble_every_s=chance.choice([None, 0.5, 2]),
        fuse_share=chance.choice([0, 0.5, 0.9]),
        most_points=chance.choice([20, 60, 200]),
        busy_share=chance.choice([0, 0, 0.05]),
        full_share=chance.choice([0, 0, 0, 0.01]),
        clock_jumps=chance.random() < 0.2,
        cancels=chance.random() < 0.3,
        running=chance.choice([1, 2, 10]),
    )


def simulate(seed: int) -> Machine:
    """Carry a seed out.

    Raises:
        AssertionError: something is not as it must be.
    """
    chance = random.Random(seed)
    return carry_out(plan_of(chance), chance)


def carry_out(plan: Plan, chance: random.Random) -> Machine:
    """Carry a plan out; the machine's disk can still be read then."""
    random.seed(chance.random())  # the engine's own, for pauses and `ctx.random`
    world = World(chance)
    machine = Machine(world, plan)
    logs: list[Any]
    try:
        with capture_logs() as logs:
            world.run_until_complete(machine.run())
        check(machine)
        assert not [line for line in logs if line["event"] in _UNEXPECTED], logs
    except BaseException:
        machine.disk.close()
        raise
    finally:
        world.end()
    return machine


def trace_of(machine: Machine) -> list[Any]:
    """Everything that happened, without what is different each time: ids, and values that are random."""
    numbers: dict[str, int] = {}
    rows = machine.disk.read("SELECT stream_id, idx, type, at FROM events ORDER BY stream_id, idx")
    return [(numbers.setdefault(run_id, len(numbers)), index, type_, at) for run_id, index, type_, at in rows]
