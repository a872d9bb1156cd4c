"""A machine with a journal, servers that run engines on it, and everybody outside who wants something of them.

A `Machine` is one simulation: `Plan` says what happens to its servers, and its random numbers decide the rest. It
drives the real `EmbeddedEngine` on the real SQL. The effects of steps happen here, and are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyflue import codec
from pyflue.engine import EmbeddedEngine, FlueContext
from pyflue.engine.scopes import current
from pyflue.errors import ApprovalClosed, ApprovalNotFound, EngineStopping, JournalError, RunFinished, RunNotFound
from pyflue.journal.queries import load_queries
from pyflue.journal.sqlite_rows import whole
from pyflue.settings import EngineSettings, Limits
from tests.support import Functions, submission

from .disk import Disk, SimulatedClock
from .loop import Died, Process, World, current_process
from .programs import Boom, Operation, Program, carry_out, digest_of, operations_of

T = TypeVar("T")

#: How often those outside look at the journal.
LOOK_S = 0.25
#: Everything must be over so long after the last fault.
PATIENCE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What happens to a machine."""

    programs: Sequence[Program]
    servers: int = 2
    #: For how long there are faults.
    trouble_s: float = 8.0
    #: Seconds until a server gets into trouble, on average; None: never.
    trouble_every_s: float | None = None
    #: The share of servers that die at some point of their work, and after how many points at most.
    fuse_share: float = 0.0
    most_points: int = 150
    busy_share: float = 0.0
    full_share: float = 0.0
    clock_jumps: bool = False
    cancels: bool = False
    #: Nothing is left to chance but the order of things: one person decides, and always the same.
    is_calm: bool = False
    running: int = 10
    #: Stop (or kill) the first server once so many commits were made; the next one goes on.
    stop_after: int | None = None
    stops_with_kill: bool = True


@dataclass
class Effect:
    """One execution of a step's function."""

    attempt: int
    step_attempt: int
    digest: int
    is_done: bool = False


@dataclass
class Outside:
    """What those outside know, to be checked afterwards."""

    #: Run ids of the programs, in their order.
    run_ids: dict[int, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    #: Who was told that his decision counts, per approval.
    deciders: dict[str, list[tuple[str, bool]]] = field(default_factory=lambda: defaultdict(list))
    effects: dict[tuple[str, str], list[Effect]] = field(default_factory=lambda: defaultdict(list))


class Server:
    """An engine in a process of its own."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.process: Process = machine.world.process(name)
        self.engine: EmbeddedEngine
        self._machine = machine
        self._started: asyncio.Future[None] = machine.world.create_future()
        self._stop = asyncio.Event()
        self._life: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            Died
        """
        self._life = asyncio.ensure_future(self.process.ask(self._live))
        self._life.add_done_callback(lambda life: life.cancelled() or life.exception())
        await asyncio.wait([self._life, self._started], return_when=asyncio.FIRST_COMPLETED)
        if not self._started.done():
            self._life.result()

    async def _live(self) -> None:
        machine = self._machine
        journal = machine.disk.open()
        try:
            self.engine = EmbeddedEngine(
                journal,
                machine.workflows,
                settings=EngineSettings(adopt_every_s=0.5, cancel_grace_s=0.2, stop_s=3.0),
                limits=machine.limits,
                clock=machine.clock,
                is_supervised_apart=False,
            )
            async with self.engine:
                self._started.set_result(None)
                await self._stop.wait()
        finally:
            await journal.close()

    async def stop(self) -> None:
        """SIGTERM.

        Raises:
            Died: it died on the way.
        """
        assert self._life is not None
        if self.process.is_alive:
            self._stop.set()
        try:
            await self._life
        finally:
            self.process.die()

    @property
    def is_up(self) -> bool:
        return self.process.is_alive and self._started.done() and not self._stop.is_set()


class Machine:
    """One simulation."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self.chance = world.chance
        self.clock = SimulatedClock(world)
        self.limits = Limits(running=plan.running)
        self.disk = Disk(world, self.chance, self.clock, self.limits)
        self.disk.on_commit.append(self._note_commit)
        self.outside = Outside()
        self.problems: list[str] = world.problems
        self.workflows = Functions(self.program)
        self.servers: list[Server | None] = [None] * plan.servers
        self.is_troubled = True
        self._seen_runs: set[str] = set()
        self._seen_approvals: set[str] = set()
        self._answering: list[asyncio.Task[None]] = []
        self._names = 0

    def value(self, run_id: str, column: str | None) -> Any:
        """What a column of the journal holds."""
        if column is None:
            return None
        raw = whole(self.disk.database, load_queries("sqlite"), run_id, column)
        assert raw is not None
        return codec.load(codec.Raw(raw.encode()))

    # Workflows and their effects

    async def program(self, ctx: FlueContext[Any]) -> list[Any]:
        """The one workflow there is."""
        return await carry_out(self, ctx, ctx.payload["program"], ctx.payload.get("digest", 0))

    async def effect(self, ctx: FlueContext[Any], operation: Operation, digest: int) -> int:
        scope = current()
        assert scope is not None
        key = scope.step_key
        assert key is not None
        process = current_process()
        ((owner, attempt),) = self.disk.read("SELECT owner, attempt FROM runs WHERE run_id = ?", ctx.id)
        is_owner = attempt == ctx.attempt and any(
            server and server.process is process and server.engine.engine_id == owner for server in self.servers
        )
        recorded = self.disk.read("SELECT status, attempts FROM steps WHERE run_id = ? AND key = ?", ctx.id, key)
        status, attempts = recorded[0] if recorded else (None, 0)
        if is_owner and status in {"completed", "failed"}:
            self.problems.append(f"{key} of {ctx.id} is recorded, and is done again")
        # An attempt that the program itself cut off is made again.
        step_attempt = attempts if status == "cancelled" else attempts + 1
        effect = Effect(attempt=ctx.attempt, step_attempt=step_attempt, digest=digest)
        self.outside.effects[ctx.id, key].append(effect)
        process.pass_point()
        ctx.log.info("effect")
        await asyncio.sleep(operation["takes_s"])
        process.pass_point()
        effect.is_done = True
        if step_attempt <= operation["failures"]:
            raise Boom(operation["name"])
        return digest_of(digest, operation["name"])

    # The whole

    async def run(self) -> None:
        """Let everything happen, until all programs have ended."""
        plan = self.plan
        async with asyncio.TaskGroup() as actors:
            keepers = [actors.create_task(self._keep(number)) for number in range(plan.servers)]
            outside = actors.create_task(self._look(actors))
            clients = [actors.create_task(self._submit(n, program)) for n, program in enumerate(plan.programs)]
            if plan.clock_jumps:
                clients.append(actors.create_task(self._jump()))
            self.disk.busy_share, self.disk.full_share = plan.busy_share, plan.full_share
            await asyncio.wait(clients, timeout=plan.trouble_s)
            while self.world.time() < plan.trouble_s and self._unfinished():
                await asyncio.sleep(LOOK_S)
            self._end_trouble()
            await asyncio.wait(clients)
            await self._until_over()
            outside.cancel()
            if self._answering:
                await asyncio.wait(self._answering)
            for keeper in keepers:
                keeper.cancel()
        await self._stop_servers()

    def _end_trouble(self) -> None:
        self.is_troubled = False
        self.disk.busy_share = self.disk.full_share = 0.0
        for server in self.servers:
            if server is not None:
                server.process.fuse = None

    def _unfinished(self) -> list[tuple[Any, ...]]:
        return self.disk.read("SELECT run_id, status, owner FROM runs WHERE finished_at IS NULL")

    async def _until_over(self) -> None:
        ends_at = self.world.time() + PATIENCE_S
        while left := self._unfinished():
            if self.world.time() > ends_at:
                waits = self.disk.read("SELECT run_id, key, kind, state, due_at FROM waits WHERE state = 'open'")
                raise AssertionError(f"not over after {PATIENCE_S} s: {left}; open waits: {waits}")
            await asyncio.sleep(LOOK_S)

    async def _stop_servers(self) -> None:
        for server in self.servers:
            if server is None or not server.is_up:
                continue
            engine = server.engine
            try:
                # The journal has it before the engine hears of it.
                async with asyncio.timeout(5):
                    while engine.stats()["running"] or engine._drives or engine._arriving:
                        await asyncio.sleep(0.01)
            except TimeoutError:
                if engine.engine_id not in self.disk.alive:
                    continue  # what it still has in memory is another engine's, and will be refused
                self.problems.append(f"left in an engine: {engine.stats()}, {engine._drives}, {engine._arriving}")
            with contextlib.suppress(Died):
                await server.stop()

    # Servers

    async def _keep(self, number: int) -> None:
        """Keep a server running, and get it into trouble."""
        plan, chance = self.plan, self.chance
        while True:
            self._names += 1
            server = Server(self, f"server-{number}-{self._names}")
            if self.is_troubled and chance.random() < plan.fuse_share:
                server.process.fuse = chance.randint(1, plan.most_points)
            try:
                await server.start()
            except Died:
                continue
            self.servers[number] = server
            await self._live_with(server)
            await asyncio.sleep(chance.choice([0, 0.1, 1.0]))

    async def _live_with(self, server: Server) -> None:
        """Return when a server is gone."""
        plan, chance = self.plan, self.chance
        gone = asyncio.Event()
        server.process.on_death.append(gone.set)
        if not server.process.is_alive:
            return
        if plan.trouble_every_s is not None:
            try:
                async with asyncio.timeout(chance.expovariate(1 / plan.trouble_every_s)):
                    await gone.wait()
            except TimeoutError:
                if self.is_troubled:
                    await self._trouble(server)
        await gone.wait()

    async def _trouble(self, server: Server) -> None:
        chance = self.chance
        match chance.choice(["kill", "kill", "stop", "stall", "declare dead"]):
            case "kill":
                server.process.die()
            case "stop":
                with contextlib.suppress(Died):
                    await server.stop()
            case "stall":
                server.process.stalled_until = self.world.time() + chance.uniform(0, 2)
                server.process.fuse = chance.randint(1, 200)
            case _:
                # An operator deletes the lock of an engine that hangs; it wakes up again.
                server.process.stalled_until = self.world.time() + chance.uniform(0, 1.5)
                self.disk.alive.discard(server.engine.engine_id)
                await asyncio.sleep(chance.uniform(0, 2))
                server.process.die()

    def _note_commit(self) -> None:
        homeless = self.disk.read(
            "SELECT run_id FROM runs WHERE status = 'waiting' AND NOT EXISTS"
            " (SELECT 1 FROM waits WHERE waits.run_id = runs.run_id AND state = 'open')"
        )
        if homeless:
            self.problems.append(f"waiting for nothing: {homeless}")
        if self.disk.commits == self.plan.stop_after:
            self._stop_now()

    def _stop_now(self) -> None:
        for server in self.servers:
            if server is not None and server.is_up:
                if self.plan.stops_with_kill:
                    server.process.die()
                else:
                    self._stopping = asyncio.ensure_future(server.stop())

    async def _on_some_server(self, work: Callable[[EmbeddedEngine], Awaitable[T]]) -> T:
        """Ask a server, again and again until one has answered."""
        while True:
            up = [server for server in self.servers if server is not None and server.is_up]
            if up:
                server = self.chance.choice(up)
                with contextlib.suppress(Died, JournalError, EngineStopping):
                    return await server.process.ask(functools.partial(_awaited, work, server.engine))
            await asyncio.sleep(self.chance.uniform(0, 0.1))

    # Those outside

    async def _submit(self, number: int, program: Program) -> None:
        chance = self.chance
        await asyncio.sleep(chance.uniform(0, 1))
        workflow = self.workflows.find("program")
        asked = submission(workflow, {"program": program}, idempotency_key=f"program {number}")
        handle = await self._on_some_server(lambda engine: engine.submit(asked))
        self.outside.run_ids[number] = handle.run_id
        if self.plan.cancels and chance.random() < 0.2:
            await asyncio.sleep(chance.uniform(0, 3))
            self.outside.cancelled.add(handle.run_id)
            await self._on_some_server(lambda engine: _unless_finished(engine.cancel(handle.run_id)))

    async def _look(self, actors: asyncio.TaskGroup) -> None:
        """See what runs wait for, and answer it."""
        while True:
            for run_id, payload in self.disk.read("SELECT run_id, payload FROM runs WHERE finished_at IS NULL"):
                if run_id not in self._seen_runs:
                    self._seen_runs.add(run_id)
                    for number, operation in enumerate(operations_of(self.value(run_id, payload)["program"])):
                        if operation["do"] == "signal":
                            signal = self._signal(run_id, operation["name"], f"signal-{number}")
                            self._answering.append(actors.create_task(signal))
            approvals = self.disk.read("SELECT wait_id, name FROM waits WHERE kind = 'approval' AND state = 'open'")
            for approval_id, asked in approvals:
                if approval_id not in self._seen_approvals:
                    self._seen_approvals.add(approval_id)
                    for name in ("ann",) if self.plan.is_calm else ("ann", "bob"):
                        self._answering.append(actors.create_task(self._decide(approval_id, asked, name)))
            await asyncio.sleep(LOOK_S)

    async def _signal(self, run_id: str, name: str, signal_id: str) -> None:
        await asyncio.sleep(self.chance.choice([0, 0.3, 1.0, 3.0]))
        await self._on_some_server(
            lambda engine: _unless_finished(engine.signal(run_id, name, name, signal_id=signal_id))
        )

    async def _decide(self, approval_id: str, asked: str, name: str) -> None:
        await asyncio.sleep(self.chance.choice([0, 0.3, 1.0, 3.0]))
        approved = len(asked) % 2 == 0 if self.plan.is_calm else self.chance.random() < 0.5
        try:
            approval = await self._on_some_server(lambda engine: engine.decide(approval_id, approved=approved, by=name))
        except (ApprovalClosed, ApprovalNotFound):
            return
        # Two people may say the same; the decision is the first one's.
        self.outside.deciders[approval_id].append((approval.decision["by"], approved))

    async def _jump(self) -> None:
        while self.is_troubled:
            await asyncio.sleep(self.chance.uniform(0.5, 4))
            self.clock.offset_us += self.chance.choice([-3600, 3600, -10, 10]) * 1_000_000


async def _awaited(work: Callable[[EmbeddedEngine], Awaitable[T]], engine: EmbeddedEngine) -> T:
    return await work(engine)


async def _unless_finished(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except (RunFinished, RunNotFound):
        return None
