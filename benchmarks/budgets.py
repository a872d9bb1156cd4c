"""Which figures have a budget, and what it is: ratios within one run on one machine, and a few absolute times.

The budgets are design decisions, not test assertions: a busy machine may miss one without anything being wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .three_steps import DBOS_VERSION

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A figure made of the measured ones, and its bound. `aim` is what would be better still."""

    what: str
    figure: Callable[[Figures], float]
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A budget beside what was measured; `met` is None if its figures were not measured."""

    budget: Budget
    value: float | None
    met: bool | None


def _figure(name: str) -> Callable[[Figures], float]:
    return lambda figures: figures[name]


def _ratio(above: str, below: str) -> Callable[[Figures], float]:
    return lambda figures: figures[above] / figures[below]


BUDGETS: Sequence[Budget] = (
    Budget(
        what="waited, 32 connections: ours / bare echo",
        figure=_ratio("http_32.ours.per_second", "http_32.bare.per_second"),
        at_least=0.25,
        aim=0.4,
    ),
    Budget(
        what="waited, 32 connections: ours / 0.2.0 in memory",
        figure=_ratio("http_32.ours.per_second", "http_32.previous.per_second"),
        at_least=4,
    ),
    Budget(
        what="waited, 32 connections: p99 / p50",
        figure=_ratio("http_32.ours.p99_ms", "http_32.ours.p50_ms"),
        at_most=5,
    ),
    Budget(
        what="waited, 1 connection beside a saturated server on the same journal, p50",
        figure=_figure("neighbours.small.p50_ms"),
        at_most=20,
        unit=" ms",
    ),
    Budget(
        what="waited, 1 connection: p50 ours / p50 0.2.0",
        figure=_ratio("http_1.ours.p50_ms", "http_1.previous.p50_ms"),
        at_most=1,
    ),
    Budget(
        what="3 steps in process, 64 callers",
        figure=_figure("three_steps.ours.per_second"),
        at_least=3000,
        unit="runs/s",
    ),
    Budget(
        what=f"3 steps in process, 64 callers: ours / DBOS {DBOS_VERSION} on SQLite",
        figure=_ratio("three_steps.ours.per_second", "three_steps.dbos.per_second"),
        at_least=20,
    ),
    Budget(
        what="step classes, a call of 3 steps: stepflow-agent 0.1.0 / ours",
        figure=_ratio("agentflow.original.three_steps_us", "agentflow.ours.three_steps_us"),
        at_least=1,
    ),
    Budget(
        what="graphs, a call of start and end: flowgram-runtime 0.1.0 / ours",
        figure=_ratio("flowgram.original.echo_us", "flowgram.ours.echo_us"),
        at_least=2,
    ),
    Budget(
        what="graphs, a loop of 1,000 iterations: flowgram-runtime 0.1.0 / ours",
        figure=_ratio("flowgram.original.loop_1000_us", "flowgram.ours.loop_1000_us"),
        at_least=3,
    ),
    Budget(
        what="graphs, a chain of 900 nodes: flowgram-runtime 0.1.0 / ours",
        figure=_ratio("flowgram.original.chain_900_us", "flowgram.ours.chain_900_us"),
        at_least=3,
    ),
    Budget(
        what="POST /task/run, 32 connections: ours, journaled / flowgram-runtime 0.1.0 in memory",
        figure=_ratio("flowgram.ours.task_run_per_second", "flowgram.original.task_run_per_second"),
        at_least=4,
    ),
    Budget(
        what="graphs: memory that a finished call leaves",
        figure=_figure("flowgram.ours.bytes_per_run"),
        at_most=16,
        unit="bytes",
    ),
    Budget(
        what="flows, 20 components over stdio, in memory: stepflow 0.13.0 / ours",
        figure=_ratio("stepflow.original.python_chain_20.p50_ms", "stepflow.memory.python_chain_20.p50_ms"),
        at_least=10,
    ),
    Budget(
        what="flows, 20 components over stdio that never wait, in memory: stepflow 0.13.0 / ours",
        figure=_ratio("stepflow.original.python_chain_20.p50_ms", "stepflow.memory.python_at_once_chain_20.p50_ms"),
        at_least=10,
    ),
    Budget(
        what="flows, 20 async components in process: stepflow 0.13.0 over its worker / ours",
        figure=_ratio("stepflow.original.python_chain_20.p50_ms", "stepflow.memory.here_async_chain_20.p50_ms"),
        at_least=50,
    ),
    Budget(
        what="flows, 20 plain components in process that never wait: stepflow 0.13.0 over its worker / ours",
        figure=_ratio("stepflow.original.python_chain_20.p50_ms", "stepflow.memory.here_at_once_chain_20.p50_ms"),
        at_least=50,
    ),
    Budget(
        what="flows, a built-in step, in memory: stepflow 0.13.0's Rust server / ours",
        figure=_ratio("stepflow.original.noop_1.p50_ms", "stepflow.memory.noop_1.p50_ms"),
        at_least=0.5,
    ),
    Budget(
        what="flows, 20 built-in steps, in memory: stepflow 0.13.0's Rust server / ours",
        figure=_ratio("stepflow.original.noop_chain_20.p50_ms", "stepflow.memory.noop_chain_20.p50_ms"),
        at_least=0.5,
    ),
    Budget(
        what="flows, 100 components that sleep for 200 ms at once, journaled",
        figure=_figure("stepflow.journal.fan_out_100.p50_ms"),
        at_most=300,
        unit="ms",
    ),
    Budget(what="import pyflue", figure=_figure("command.ours.import_ms"), at_most=40, unit="ms"),
    Budget(what="pyflue --help", figure=_figure("command.ours.help_ms"), at_most=150, unit="ms"),
    Budget(what="pyflue run echo", figure=_figure("command.ours.run_ms"), at_most=200, unit="ms"),
    Budget(
        what="import pyflue: ours / 0.2.0",
        figure=_ratio("command.ours.import_ms", "command.previous.import_ms"),
        at_most=1 / 3,
    ),
    Budget(
        what="pyflue --help: ours / 0.2.0",
        figure=_ratio("command.ours.help_ms", "command.previous.help_ms"),
        at_most=1 / 3,
    ),
    Budget(
        what="pyflue run echo: ours / 0.2.0",
        figure=_ratio("command.ours.run_ms", "command.previous.run_ms"),
        at_most=1 / 3,
    ),
    Budget(
        what="long run: events stored",
        figure=_figure("long_run.events_per_second"),
        at_least=10_000,
        unit="/s",
    ),
    Budget(
        what="long run: memory of ten times the events, grown by",
        figure=lambda figures: figures["long_run.peak_mib"] - figures["shorter_run.peak_mib"],
        at_most=16,
        unit="MiB",
    ),
    Budget(
        what="long run: first 1,000 events from the middle",
        figure=_figure("long_run.middle_page_ms"),
        at_most=1000,
        unit="ms",
    ),
    Budget(what="agents: a turn beside its model, p50", figure=_figure("agents.turn.p50_ms"), at_most=1, unit="ms"),
    Budget(what="agents: a tool call, p50", figure=_figure("agents.tool_call.p50_ms"), at_most=1, unit="ms"),
    Budget(
        what="agents: 500 sessions at once on a model of 50 ms, p99, with journal.writer_process",
        figure=_figure("agents_writer_process.crowd.p99_ms"),
        at_most=100,
        unit="ms",
    ),
    Budget(what="a run that waits takes", figure=_figure("waiting.bytes_each"), at_most=20_000, unit="bytes"),
    Budget(
        what="waited requests beside very many waiting runs, p99",
        figure=_figure("waiting.beside.p99_ms"),
        at_most=50,
        unit="ms",
    ),
    Budget(
        what="restart with very many waiting runs: until one of them goes on",
        figure=_figure("waiting.restart.taken_up_s"),
        at_most=5,
        unit="s",
    ),
    Budget(
        what="the same after a kill",
        figure=_figure("waiting.restart_after_kill.taken_up_s"),
        at_most=5,
        unit="s",
    ),
)


def judge(figures: Figures) -> list[Verdict]:
    """Every budget with its verdict."""
    return [_verdict(budget, figures) for budget in BUDGETS]


def _verdict(budget: Budget, figures: Figures) -> Verdict:
    try:
        value = budget.figure(figures)
    except KeyError:
        return Verdict(budget=budget, value=None, met=None)
    met = (budget.at_least is None or value >= budget.at_least) and (budget.at_most is None or value <= budget.at_most)
    return Verdict(budget=budget, value=value, met=met)
